"""The vendor's identity provider: a user pool, its people and their tokens."""

from __future__ import annotations

from dataclasses import dataclass

from claviger_local import settings
from claviger_local.aws import vendor

PASSWORD = "Local-only-1!"
SYSTEM_GROUP = "claviger-system"
SUPPORT_GROUP = "claviger-support"
PEOPLE: dict[str, str | None] = {
    "acme-admin": None,
    "acme-auditor": None,
    "globex-admin": None,
    "initech-admin": None,
    "hooli-admin": None,
    "support-1": SUPPORT_GROUP,
    "support-2": SUPPORT_GROUP,
    "system": SYSTEM_GROUP,
}


@dataclass(frozen=True)
class Identity:
    """Who may call the API. `subjects` are the `sub` claims that the organisations' feed names."""

    issuer: str
    audience: str
    tokens: dict[str, str]
    subjects: dict[str, str]


def create() -> Identity:
    cognito = vendor("cognito-idp")
    pool = cognito.create_user_pool(PoolName="claviger")["UserPool"]["Id"]
    application = cognito.create_user_pool_client(
        UserPoolId=pool,
        ClientName="claviger",
        ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        IdTokenValidity=24,
        AccessTokenValidity=24,
        TokenValidityUnits={"IdToken": "hours", "AccessToken": "hours"},
    )["UserPoolClient"]["ClientId"]
    for group in (SYSTEM_GROUP, SUPPORT_GROUP):
        cognito.create_group(UserPoolId=pool, GroupName=group)
    tokens: dict[str, str] = {}
    subjects: dict[str, str] = {}
    for name, group in PEOPLE.items():
        user = cognito.admin_create_user(UserPoolId=pool, Username=name, MessageAction="SUPPRESS")["User"]
        subjects[name] = next(a["Value"] for a in user["Attributes"] if a["Name"] == "sub")
        cognito.admin_set_user_password(UserPoolId=pool, Username=name, Password=PASSWORD, Permanent=True)
        if group is not None:
            cognito.admin_add_user_to_group(UserPoolId=pool, Username=name, GroupName=group)
        result = cognito.admin_initiate_auth(
            UserPoolId=pool,
            ClientId=application,
            AuthFlow="ADMIN_USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": name, "PASSWORD": PASSWORD},
        )["AuthenticationResult"]
        # The ID token: it alone has an audience.
        tokens[name] = result["IdToken"]
    return Identity(f"{settings.VENDOR_AWS}/{pool}", application, tokens, subjects)
