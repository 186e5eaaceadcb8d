"""The vendor's and the customers' people, at claviger's API."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from claviger_local.aws import Answer, http
from claviger_local.cloud import Cloud
from claviger_local.settings import Customer

PLACEHOLDER = "<your AWS account id>"


@dataclass
class Usage:
    """What an organisation's keys were used for, by region, operation and purpose."""

    calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unanswered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    cost: str = ""


class People:
    """Calls of the API, by who makes them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def call(self, person: str, method: str, path: str, body: Any = None) -> Answer:
        return http(method, f"{self.cloud.api}/v1/{path}", token=self.cloud.token(person), body=body)

    def of(self, customer: Customer, method: str, path: str, body: Any = None, by: str = "") -> Answer:
        """A call about an organisation, by its own admin unless somebody else is named."""
        return self.call(by or f"{customer.org}-admin", method, f"organizations/{customer.org}/{path}", body)

    def policy(self, customer: Customer) -> dict[str, Any]:
        answer = self.of(customer, "GET", "encryption-policy")
        return answer.json if answer.status == 200 else {}

    def lifecycle(self, customer: Customer) -> str:
        return str(self.policy(customer).get("lifecycle", ""))

    def tickets(self, customer: Customer) -> list[dict[str, Any]]:
        answer = self.of(customer, "GET", "tickets?limit=50")
        return answer.json["items"] if answer.status == 200 else []

    def instances(self, customer: Customer) -> list[dict[str, Any]]:
        answer = self.of(customer, "GET", "app-instances?limit=50")
        return answer.json["items"] if answer.status == 200 else []

    def audit(self, customer: Customer, by: str = "") -> str:
        """The whole audit log, one fact a line: every page of it."""
        path, lines = "audit?limit=200", ""
        while path:
            answer = self.of(customer, "GET", path, by=by)
            if answer.status != 200:
                raise AssertionError(f"no audit log: {answer}")
            lines += answer.body.decode()
            link = answer.headers.get("link", "")
            path = "audit?" + link.split("?", 1)[1].split(">", 1)[0] if 'rel="next"' in link else ""
        return lines

    def usage(self, customer: Customer) -> Usage:
        """What the organisation's keys were used for: every page of it."""
        said, path = Usage(), "usage?limit=200"
        while path:
            answer = self.of(customer, "GET", path)
            if answer.status != 200:
                raise AssertionError(f"no usage: {answer}")
            for item in answer.json["items"]:
                use = (item["region"], item["operation"], item["purpose"] or "")
                said.calls[use] += item["calls"]
                said.unanswered[use] += item["unanswered"]
            vendors, own = answer.json["billedToVendorUsd"], answer.json["billedToCustomerUsd"]
            said.cost = f"{answer.json['total']} calls, ${vendors:.6f} to the vendor, ${own:.6f} to {customer.org}"
            path = f"usage?limit=200&cursor={answer.json['nextCursor']}" if answer.json["nextCursor"] else ""
        return said

    def approve_all(self, support: str = "support-1") -> int:
        """A support agent approves what waits; how many were approved."""
        approved = 0
        for request in self.call(support, "GET", "support/requests?limit=50").json["items"]:
            if request.get("status", "open") in ("open", "waiting", "requested", "pending"):
                answer = self.call(support, "POST", f"support/requests/{request['id']}/approve")
                approved += answer.status < 300
        return approved

    def key_policy(self, customer: Customer) -> dict[str, Any]:
        """The policy that the API prints, with the customer's account filled in, as the customer would paste it."""
        answer = self.of(customer, "GET", f"key-policy?awsAccountId={customer.account}")
        if answer.status != 200:
            raise AssertionError(f"no key policy: {answer}")
        return _filled(_find_policy(answer.json), customer.account)

    def role_documents(self, customer: Customer) -> tuple[dict[str, Any], dict[str, Any]]:
        """The trust policy and the permission policy that the API prints for a key-management role."""
        answer = self.of(customer, "GET", f"key-policy?awsAccountId={customer.account}")
        if answer.status != 200 or not answer.json.get("role"):
            raise AssertionError(f"no documents for a role: {answer}")
        role = _filled(answer.json["role"], customer.account)
        return role["trustPolicy"], role["permissionPolicy"]

    def organisation_id(self, customer: Customer) -> str:
        """The opaque id, as the key policy's condition shows it to the customer."""
        for statement in self.key_policy(customer)["Statement"]:
            for keys in statement.get("Condition", {}).values():
                if "kms:EncryptionContext:claviger:organisation" in keys:
                    return str(keys["kms:EncryptionContext:claviger:organisation"])
        raise AssertionError("the key policy has no condition on the encryption context")


def _find_policy(value: Any) -> dict[str, Any]:
    """The first policy document in an answer."""
    if isinstance(value, dict):
        if "Statement" in value:
            return value
        children = list(value.values())
    else:
        children = value if isinstance(value, list) else []
    for child in children:
        found = _find_policy(child) if isinstance(child, dict | list) else {}
        if found:
            return found
    return {}


def _filled(policy: Any, account: str) -> Any:
    if isinstance(policy, dict):
        return {key: _filled(value, account) for key, value in policy.items()}
    if isinstance(policy, list):
        return [_filled(value, account) for value in policy]
    return policy.replace(PLACEHOLDER, account) if isinstance(policy, str) else policy
