"""What must stay true of the stacks, whatever is added to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awscli.customizations.cloudformation.yamlhelper import yaml_parse
from claviger_local import settings

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
NOTES = yaml_parse((ROOT / "examples" / "notes" / "template.yaml").read_text())
KEY_ACCESS = yaml_parse((ROOT / "key-access.yaml").read_text())


def of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {name: item for name, item in template["Resources"].items() if item["Type"] == kind}


FUNCTIONS = of_type(TEMPLATE, "AWS::Serverless::Function")


def statements(template: dict[str, Any], role: str) -> Iterator[dict[str, Any]]:
    for policy in template["Resources"][role]["Properties"]["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def actions(statement: dict[str, Any]) -> list[str]:
    found = statement["Action"]
    return found if isinstance(found, list) else [found]


def test_every_function_of_the_workspace_is_deployed_as_its_own_binary() -> None:
    binaries = {item["Metadata"]["BuildProperties"]["Binary"] for item in FUNCTIONS.values()}
    crates = {
        f"claviger-{folder.name}" for folder in (ROOT / "functions").iterdir() if (folder / "Cargo.toml").exists()
    }
    assert binaries == crates == {f"claviger-{name}" for name in settings.FUNCTIONS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_a_role_of_its_own_without_wildcard_actions(name: str) -> None:
    assert FUNCTIONS[name]["Properties"]["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
    for statement in statements(TEMPLATE, f"{name}Role"):
        assert not [action for action in actions(statement) if "*" in action]
        # ListStreams knows no resource.
        assert statement["Resource"] != "*" or actions(statement) == ["dynamodb:ListStreams"]


def test_only_the_functions_that_touch_keys_may_become_the_key_access_role() -> None:
    may = {
        name
        for name in FUNCTIONS
        for statement in statements(TEMPLATE, f"{name}Role")
        if "sts:AssumeRole" in actions(statement)
    }
    assert may == {"KeyBroker", "KeyProber", "Provisioner", "ReencryptionPlanner"}
    trust = KEY_ACCESS["Resources"]["KeyAccessRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]
    trusted = [arn["Fn::Sub"].rsplit("-", 2)[-2:] for arn in trust["Condition"]["ArnEquals"]["aws:PrincipalArn"]]
    assert len(trusted) == len(may)


def test_k3_the_broker_may_change_counts_of_calls_and_proofs_and_nothing_else_of_the_control_table() -> None:
    changes = {}
    for statement in statements(TEMPLATE, "KeyBrokerRole"):
        words = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"}
        if changing := {action.removeprefix("dynamodb:") for action in actions(statement)} & words:
            assert statement["Resource"] == {"Fn::GetAtt": ["ControlTable", "Arn"]}
            [leading] = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
            changes[leading] = changing
    assert changes == {"PROOF#*": {"PutItem"}, "USAGE#*": {"UpdateItem"}}


def test_the_broker_asks_for_newer_data_keys_and_cannot_make_them() -> None:
    registry = {"Fn::GetAtt": ["RegistryTable", "Arn"]}
    of_registry: set[str] = set()
    queues = []
    for statement in statements(TEMPLATE, "KeyBrokerRole"):
        if statement["Resource"] == registry:
            of_registry |= set(actions(statement))
        if "sqs:SendMessage" in actions(statement):
            queues.append(statement["Resource"]["Fn::GetAtt"][0])
    assert of_registry == {"dynamodb:GetItem", "dynamodb:Query"}
    assert sorted(queues) == ["ProbeQueue", "ProvisionerQueue"]
    # The provisioner stores one only if the policy and the instance still are as it read them.
    [checks] = [s for s in statements(TEMPLATE, "ProvisionerRole") if s["Sid"] == "ChangeControl"]
    assert "dynamodb:ConditionCheckItem" in actions(checks)


def changers_of(table: str) -> dict[str, set[str]]:
    """Which functions may change a table, each with how. The local cloud asks nobody's role, AWS does."""
    changing = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"}
    may: dict[str, set[str]] = {}
    for name in FUNCTIONS:
        for statement in statements(TEMPLATE, f"{name}Role"):
            if f"'{table}', 'Arn'" in str(statement["Resource"]) and (how := set(actions(statement)) & changing):
                may.setdefault(name, set()).update(how)
    return may


def test_i5_whoever_decides_that_the_fence_changes_may_put_it_and_nobody_may_take_an_entry_away() -> None:
    # The vendor and enrolment; refusals; restoration; the switch of a re-encryption; the end of an export.
    deciding = {"Api", "Deadlines", "KeyProber", "ReencryptionPlanner", "Restorer"}
    assert changers_of("FenceTable") == {name: {"dynamodb:PutItem"} for name in deciding}


def test_k3_facts_are_put_and_no_role_may_update_or_delete_one() -> None:
    deciding = {"Api", "Deadlines", "KeyProber", "Provisioner", "ReencryptionPlanner", "Restorer", "Suspender"}
    assert changers_of("FactsTable") == {name: {"dynamodb:PutItem"} for name in deciding}


def test_a_table_is_not_deleted_by_mistake() -> None:
    for table in of_type(TEMPLATE, "AWS::DynamoDB::Table").values():
        assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
        assert table["Properties"]["DeletionProtectionEnabled"] is True


def test_r9_the_bus_lets_through_what_customers_forward_and_nothing_else_of_their_calls() -> None:
    forwarding = yaml_parse((ROOT / "onboarding" / "key-events.yaml").read_text())

    def names(template: dict[str, Any]) -> list[str]:
        patterns = [rule["Properties"]["EventPattern"] for rule in of_type(template, "AWS::Events::Rule").values()]
        return sorted(name for pattern in patterns for name in pattern.get("detail", {}).get("eventName", []))

    def notices(template: dict[str, Any]) -> list[str]:
        patterns = [rule["Properties"]["EventPattern"] for rule in of_type(template, "AWS::Events::Rule").values()]
        return sorted(kind for pattern in patterns for kind in pattern["detail-type"] if kind.startswith("KMS "))

    assert names(TEMPLATE) == names(forwarding)
    assert notices(TEMPLATE) == notices(forwarding) != []
    known = (ROOT / "functions" / "key-events" / "src" / "event.rs").read_text()
    assert not [name for name in names(TEMPLATE) if f'"{name}"' not in known]


def test_data_keys_are_changed_by_the_two_functions_that_make_and_move_them() -> None:
    assert set(changers_of("RegistryTable")) == {"Provisioner", "ReencryptionPlanner"}


def test_r9_what_strangers_send_can_change_nothing_but_the_counts_of_hints() -> None:
    [count] = [s for s in statements(TEMPLATE, "KeyEventsRole") if s["Sid"] == "CountHints"]
    assert changers_of("ControlTable")["KeyEvents"] == {"dynamodb:PutItem"} == set(actions(count))
    assert count["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["HINTS#*"]}}


def test_the_worker_may_read_and_write_tags_which_a_rewritten_object_would_lose() -> None:
    policy = TEMPLATE["Resources"]["ReencryptionWorkerBuckets"]["Properties"]["PolicyDocument"]
    [statement] = policy["Statement"]
    assert {"s3:GetObjectTagging", "s3:PutObjectTagging"} <= set(actions(statement))


def test_the_two_parameters_that_grow_are_in_the_environment_of_those_alone_who_read_them() -> None:
    # All variables of a function together may have 4 KB.
    of_all = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    may = {"CLAVIGER_CANARY_KEYS": set(), "CLAVIGER_APP_ROLES": set()}
    for name, item in FUNCTIONS.items():
        variables = item["Properties"].get("Environment", {}).get("Variables", {})
        for variable, functions in may.items():
            assert variable not in of_all
            if variable in variables:
                functions.add(name)
    probing = {"KeyBroker", "KeyProber", "Provisioner", "ReencryptionPlanner"}
    assert may == {"CLAVIGER_CANARY_KEYS": probing, "CLAVIGER_APP_ROLES": {"KeyBroker"}}


def test_no_function_has_a_kms_permission_of_its_own() -> None:
    for name in FUNCTIONS:
        for statement in statements(TEMPLATE, f"{name}Role"):
            assert not [action for action in actions(statement) if action.startswith("kms:")]
    # But for the vendor's own keys, in which its stores lie: through those stores alone, and only where there are any.
    with_keys = {
        name: item
        for name, item in of_type(TEMPLATE, "AWS::IAM::Policy").items()
        if "kms:" in str(item["Properties"]["PolicyDocument"])
    }
    assert list(with_keys) == ["ReencryptionWorkerKeys"]
    keys = with_keys["ReencryptionWorkerKeys"]
    assert keys["Condition"] == "HasRecordKmsKeys"
    assert keys["Properties"]["Roles"] == [{"Ref": "ReencryptionWorkerRole"}]
    [statement] = keys["Properties"]["PolicyDocument"]["Statement"]
    assert actions(statement) == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == {"Ref": "RecordKmsKeyArns"}
    services = statement["Condition"]["StringEquals"]["kms:ViaService"]
    assert [service["Fn::Sub"].split(".")[0] for service in services] == ["dynamodb", "s3"]


def test_a_webhook_secret_is_read_anew_when_another_version_of_it_is_named() -> None:
    _, reference, _ = FUNCTIONS["Outbox"]["Properties"]["Environment"]["Variables"]["CLAVIGER_WEBHOOK_SECRET"]["Fn::If"]
    where = "{{resolve:secretsmanager:${WebhookSecretArn}:SecretString:::${WebhookSecretVersion}}}"
    assert reference == {"Fn::Sub": where}
    assert TEMPLATE["Parameters"]["WebhookSecretVersion"]["Default"] == ""


def test_an_app_may_read_the_fence_and_nothing_else_of_claviger() -> None:
    of_claviger = [
        statement
        for statement in statements(NOTES, "AppRole")
        if "NotesTable" not in str(statement["Resource"]) and "CommandsQueue" not in str(statement["Resource"])
    ]
    assert sorted(action for statement in of_claviger for action in actions(statement)) == [
        "dynamodb:Query",
        "lambda:InvokeFunction",
        "lambda:InvokeFunctionUrl",
    ]


def test_the_key_access_role_is_retained_and_in_a_stack_of_its_own() -> None:
    role = KEY_ACCESS["Resources"]["KeyAccessRole"]
    assert role["DeletionPolicy"] == role["UpdateReplacePolicy"] == "Retain"
    assert list(KEY_ACCESS["Resources"]) == ["KeyAccessRole"]


def test_i7_the_key_access_role_uses_nothing_of_the_vendors_own_account() -> None:
    [policy] = KEY_ACCESS["Resources"]["KeyAccessRole"]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        assert statement["Condition"] == {"StringNotEquals": {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}}}


def test_every_work_queue_has_dead_letters_and_an_alarm_on_them() -> None:
    queues = of_type(TEMPLATE, "AWS::SQS::Queue")
    work = [name for name in queues if name.endswith("Queue")]
    alarmed = str(of_type(TEMPLATE, "AWS::CloudWatch::Alarm"))
    for name in work:
        dead = f"{name.removesuffix('Queue')}DeadLetters"
        assert queues[name]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [dead, "Arn"]}
        assert f"'{dead}', 'QueueName'" in alarmed


def test_r9_what_was_given_up_is_tried_again_by_itself_but_for_webhooks() -> None:
    queues = of_type(TEMPLATE, "AWS::SQS::Queue")
    dead = {name for name in queues if name.endswith("DeadLetters")}
    environment = FUNCTIONS["Outbox"]["Properties"]["Environment"]["Variables"]
    _, arns = environment["CLAVIGER_DEAD_LETTERS"]["Fn::Join"]
    brought_back = {arn["Fn::GetAtt"][0] for arn in arns}
    # A receiver that did not answer for eighty minutes is mended by its owner.
    assert dead - brought_back == {"WebhookDeadLetters"}
    assert environment["CLAVIGER_UNDELIVERED_QUEUE_URL"] == {"Ref": "UndeliveredEvents"}
    allowed = {statement["Sid"]: str(statement) for statement in statements(TEMPLATE, "OutboxRole")}
    for name in brought_back:
        assert f"'{name}'" in allowed["BringBackWhatWasGivenUp"]
        assert f"'{name.replace('DeadLetters', 'Queue')}'" in allowed["ToWhereItCameFrom"]
    assert "'UndeliveredEvents'" in allowed["SeeToWhatWasNotDelivered"]


def test_every_alarm_has_its_entry_in_the_runbook_and_none_is_left_of_an_alarm_that_is_gone() -> None:
    alarms = set(of_type(TEMPLATE, "AWS::CloudWatch::Alarm"))
    runbook = (ROOT / "docs" / "RUNBOOK.md").read_text()
    assert set(re.findall(r"\*\*(\w+Alarm)\*\*", runbook)) == alarms


def test_r4_the_watchers_metrics_have_alarms_and_come_from_the_line_that_the_prober_logs() -> None:
    source = (ROOT / "functions" / "key-prober" / "src" / "lib.rs").read_text()
    filters = of_type(TEMPLATE, "AWS::Logs::MetricFilter").values()
    of_prober = [
        item["Properties"] for item in filters if item["Properties"]["LogGroupName"] == {"Ref": "KeyProberLogs"}
    ]
    assert len(of_prober) == 3
    for item in of_prober:
        [transformation] = item["MetricTransformations"]
        field = transformation["MetricValue"].removeprefix("$.")
        assert item["FilterPattern"] == f"{{ $.{field} >= 0 }}"
        assert f"{field} = " in source
    alarmed = {item["Properties"]["MetricName"] for item in of_type(TEMPLATE, "AWS::CloudWatch::Alarm").values()}
    assert {"OldestProof", "MassFailures"} <= alarmed


def test_every_rule_says_where_undeliverable_events_go() -> None:
    for template in (TEMPLATE, NOTES):
        for rule in of_type(template, "AWS::Events::Rule").values():
            assert all("DeadLetterConfig" in target for target in rule["Properties"]["Targets"])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_asynchronous_trigger_can_fail_in_part_or_has_somewhere_to_go(name: str) -> None:
    properties = FUNCTIONS[name]["Properties"]
    for trigger in properties.get("Events", {}).values():
        if trigger["Type"] == "Schedule":
            assert "DeadLetterQueue" in properties
        else:
            assert trigger["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize(
    ("timeout", "visibility"),
    [
        (
            TEMPLATE["Parameters"]["FunctionTimeoutSeconds"]["Default"],
            TEMPLATE["Parameters"]["VisibilitySeconds"]["Default"],
        ),
        (settings.TIMINGS["FunctionTimeoutSeconds"], settings.TIMINGS["VisibilitySeconds"]),
    ],
)
def test_visibility_is_at_least_six_times_the_timeout(timeout: int, visibility: int) -> None:
    assert visibility >= 6 * timeout


def test_the_published_bounds_are_the_defaults() -> None:
    published = {
        "ProbePhaseSeconds": 60,
        "LeaseSeconds": 30,
        "LeasePollMillis": 5000,
        "AmbiguitySeconds": 60,
        "WatchSlackSeconds": 10,
        "ProofReuseSeconds": 10,
    }
    assert {name: TEMPLATE["Parameters"][name]["Default"] for name in published} == published


def test_the_local_timings_are_values_that_the_template_allows() -> None:
    for name, value in settings.TIMINGS.items():
        parameter = TEMPLATE["Parameters"][name]
        if parameter["Type"] == "Number":
            assert parameter.get("MinValue", value) <= value <= parameter.get("MaxValue", value)
