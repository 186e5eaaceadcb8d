"""The HTTP interface as it describes itself, asked everything that its description allows and much that it does not:
no server error, and no answer that the description does not have. On the local cloud, with the real binaries."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import pytest
import schemathesis
from claviger_local import cloud as local_cloud
from claviger_local import settings as local
from claviger_local import surroundings
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi import checks

# A token for each role of the description's `x-roles`, by its name in `.local/env`.
TOKENS = {
    "org-admin": "ORG_ADMIN_TOKEN",
    "auditor": "AUDITOR_TOKEN",
    "support": "SUPPORT_TOKEN",
    "system": "SYSTEM_TOKEN",
}
# Every call is sent by those who may make it, mostly; each is one of a few dozen, so that all of it takes minutes.
EXAMPLES = 12
SEED_ORGANIZATION = "acme"
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@dataclass
class Interface:
    """Where it answers, and whom it knows."""

    api: str
    tokens: dict[str, str]


def environment() -> dict[str, str]:
    words = (shlex.split(line)[1] for line in local.ENV_FILE.read_text().splitlines() if line.startswith("export "))
    return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="session")
def interface() -> Iterator[Interface]:
    """The local cloud that is up, or one for this test."""
    started = None
    if surroundings.holder() is None or not local.ENV_FILE.exists():
        started = local_cloud.up()
    try:
        values = environment()
        yield Interface(values["CLAVIGER_API"], {role: values[name] for role, name in TOKENS.items()})
    finally:
        if started is not None:
            started.down()


def ask(case: schemathesis.Case, interface: Interface, turn: int) -> None:
    """Sends one call, and holds what comes back against the description."""
    roles = case.operation.definition.raw.get("x-roles", [])
    # Mostly by somebody who may; now and then by anybody.
    role = roles[0] if roles and turn != 3 else list(TOKENS)[turn]
    if "org" in (case.path_parameters or {}):
        if case.operation.method.upper() == "PUT":
            # The feed is not let near an organization that others use.
            case.path_parameters["org"] = f"generated-{turn}"
        elif turn != 2:
            # Most names that can be made up belong to nobody.
            case.path_parameters["org"] = SEED_ORGANIZATION
    headers = {"Authorization": f"Bearer {interface.tokens[role]}"} if roles else {}
    answer = case.call(base_url=interface.api, headers=headers, timeout=30)
    if answer.status_code >= 500:
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (503, "temporarily-unavailable"), answer.text
    case.validate_response(answer, checks=CHECKS)


def many(operation: schemathesis.APIOperation, interface: Interface, sent: Counter[str]) -> None:
    """A few dozen calls of an operation, by turns of who asks for what."""
    turns = cycle(range(4))

    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def generated(case: schemathesis.Case) -> None:
        sent[operation.label] += 1
        ask(case, interface, next(turns))

    generated()


def test_no_server_error_and_no_undocumented_answer(interface: Interface) -> None:
    """One test for all calls, not one each: they are known only when the interface answers."""
    description = schemathesis.openapi.from_url(f"{interface.api}/v1/openapi.json")
    operations = [operation.ok() for operation in description.get_all_operations()]
    assert len(operations) >= 15
    faults: dict[str, str] = {}
    sent: Counter[str] = Counter()
    for operation in operations:
        try:
            many(operation, interface, sent)
        except Exception as fault:  # every call is tried; all that went wrong is told at the end
            faults[operation.label] = str(fault)
    assert not faults, "\n\n".join(f"{label}: {fault}" for label, fault in faults.items())
    assert len(sent) == len(operations)
