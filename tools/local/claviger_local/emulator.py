"""Starts ministack (the vendor's AWS) with six answers corrected to those of AWS.

- A Function URL with IAM authorisation names its caller in `requestContext.authorizer.iam`; ministack checks the
  caller but leaves the block out.
- The condition key `aws:PrincipalArn` of an assumed role is the role's ARN; ministack gives the session's.
- A user pool's tokens name an issuer under which their keys can be fetched; ministack names the real AWS host.
- A stream's batch of which a part failed comes again; ministack moves on, and what failed is lost to the function.
- A batch of SQS is allowed by the action of the single call (`sqs:SendMessage`); ministack wants an action of its own.
- A `rate(1 minute)` rule fires on the minute; ministack looks at its rules every 10 s only.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

STREAM_TRIES = 10
CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/")


def caller_of(headers: dict[str, str]) -> dict[str, Any] | None:
    """The `authorizer.iam` block of a signed request whose signature ministack has already accepted."""
    from ministack.core.iam_evaluator import resolve_caller_identity

    match = CREDENTIAL.search(headers.get("authorization", ""))
    identity = resolve_caller_identity(match.group(1)) if match else None
    if identity is None:
        return None
    return {
        "accessKey": identity["accessKey"],
        "accountId": identity["userArn"].split(":")[4],
        "callerId": identity["userId"],
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": identity["userArn"],
        "userId": identity["userId"],
    }


def name_callers_of_function_urls() -> None:
    from ministack.services import lambda_svc

    build = lambda_svc._build_function_url_event

    def build_with_caller(
        url_id: str,
        account: str,
        region: str,
        method: str,
        path: str,
        headers: dict[str, str],
        *rest: Any,
        **named: Any,
    ) -> dict[str, Any]:
        event = build(url_id, account, region, method, path, headers, *rest, **named)
        caller = caller_of(headers)
        if caller is not None:
            event["requestContext"]["authorizer"] = {"iam": caller}
        return event

    lambda_svc._build_function_url_event = build_with_caller


def name_role_as_principal() -> None:
    from ministack.core import iam_evaluator

    resolve = iam_evaluator._resolve_condition_key

    def resolve_to_role(key: str, context: Any) -> Any:
        value = resolve(key, context)
        if key.lower() == "aws:principalarn" and ":assumed-role/" in str(value):
            account, role = value.split(":")[4], value.split("/")[1]
            return f"arn:aws:iam::{account}:role/{role}"
        return value

    iam_evaluator._resolve_condition_key = resolve_to_role


def name_issuer_of_tokens(gateway: str) -> None:
    from ministack.services import cognito

    sign = cognito._signed_jwt

    def sign_as_gateway(claims: dict[str, Any], pool: str, use: str, *rest: Any, **named: Any) -> str:
        return sign(claims | {"iss": f"{gateway}/{pool}"}, pool, use, *rest, **named)

    cognito._signed_jwt = sign_as_gateway


def bring_failed_stream_records_again() -> None:
    from ministack.services import lambda_svc

    execute = lambda_svc._execute_function
    tries: dict[str, int] = {}

    def execute_and_look(function: dict[str, Any], event: Any) -> dict[str, Any]:
        result = execute(function, event)
        records = event.get("Records") if isinstance(event, dict) else None
        if not records or not isinstance(records[0], dict) or records[0].get("eventSource") != "aws:dynamodb":
            return result
        body = result.get("body")
        if not isinstance(body, dict) or not body.get("batchItemFailures"):
            return result
        first = str(records[0].get("eventID"))
        tries[first] = tries.get(first, 0) + 1
        # The whole batch comes again, after a second. On AWS its bisected rest would: at least once, either way.
        return result | {"error": True} if tries[first] < STREAM_TRIES else result

    lambda_svc._execute_function = execute_and_look


def allow_batches_by_their_single_action() -> None:
    from ministack.core import iam_actions

    extract = iam_actions.extract_iam_action

    def extract_single(service: str, *rest: Any, **named: Any) -> str | None:
        action = extract(service, *rest, **named)
        return action.removesuffix("Batch") if service == "sqs" and action else action

    iam_actions.extract_iam_action = extract_single


def fire_schedules_on_time() -> None:
    from ministack.services import eventbridge

    eventbridge._SCHEDULER_TICK_INTERVAL = 1


def main() -> None:
    name_callers_of_function_urls()
    name_role_as_principal()
    name_issuer_of_tokens(os.environ["AWS_ENDPOINT_URL"])
    bring_failed_stream_records_again()
    allow_batches_by_their_single_action()
    fire_schedules_on_time()
    from ministack.app import main as serve

    serve()


if __name__ == "__main__":
    sys.exit(main())
