"""What the vendor's operators could do and see: stop the prober, read the registry, listen on the bus."""

from __future__ import annotations

import json
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from claviger_local import customers, settings
from claviger_local.aws import vendor
from claviger_local.cloud import Cloud

PROBER = f"{settings.STACK}-key-prober"


def stop_prober() -> None:
    """No invocation gets through any more: tick, queue and synchronous call alike."""
    vendor("lambda").put_function_concurrency(FunctionName=PROBER, ReservedConcurrentExecutions=0)


def start_prober() -> None:
    vendor("lambda").delete_function_concurrency(FunctionName=PROBER)


def end_environments(*functions: str) -> None:
    """The environments of these functions end, as they do whenever their configuration changes."""
    for function in functions:
        name = f"{settings.STACK}-{function}"
        timeout = vendor("lambda").get_function_configuration(FunctionName=name)["Timeout"]
        vendor("lambda").update_function_configuration(FunctionName=name, Timeout=timeout + 1)


def _items(table: str) -> list[dict[str, Any]]:
    plain = TypeDeserializer()
    pages = vendor("dynamodb").get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [{k: plain.deserialize(v) for k, v in item.items()} for page in pages for item in page["Items"]]


def data_keys(cloud: Cloud, organisation: str, tag: str, instance: str) -> set[bytes]:
    """The plaintext data keys of an instance: the registry's wraps, opened in the customers' cloud by the owner."""
    found: set[bytes] = set()
    for item in _items(cloud.outputs["RegistryTable"]):
        data_key = json.loads(item.get("doc", "{}"))
        if data_key.get("instance") != instance:
            continue
        context = {
            "claviger:organisation": organisation,
            "claviger:purpose": "data-key",
            "claviger:instance": instance,
            "claviger:tag": tag,
        }
        for wrap in data_key["wraps"].values():
            found.add(customers.decrypt_as_owner(wrap["ciphertext"], wrap["key"], context))
    return found


def generations(cloud: Cloud, customer: settings.Customer) -> dict[int, int]:
    """How many of a customer's stored notes are under keys of which generation, by their headers."""
    found: dict[int, int] = {}
    for item in _items(cloud.notes_outputs["NotesTable"]):
        if str(item["pk"]).startswith(f"{customer.org}/"):
            generation = int.from_bytes(bytes(item["record"].value)[17:21], "big")
            found[generation] = found.get(generation, 0) + 1
    return found


class Tap:
    """Listens on claviger's bus, so that an event can be sent once more, later, just as it was."""

    def __init__(self, bus: str) -> None:
        self._bus = bus
        sqs, events = vendor("sqs"), vendor("events")
        self._queue = sqs.create_queue(QueueName="story-tap")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "events.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                }
            ],
        }
        sqs.set_queue_attributes(QueueUrl=self._queue, Attributes={"Policy": json.dumps(policy)})
        events.put_rule(Name="story-tap", EventBusName=bus, EventPattern=json.dumps({"source": ["claviger"]}))
        events.put_targets(Rule="story-tap", EventBusName=bus, Targets=[{"Id": "tap", "Arn": arn}])
        self.heard: list[dict[str, Any]] = []

    def listen(self) -> list[dict[str, Any]]:
        """Everything heard so far, oldest first."""
        while True:
            messages = vendor("sqs").receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages", [])
            if not messages:
                return self.heard
            for message in messages:
                self.heard.append(json.loads(message["Body"]))
                vendor("sqs").delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])

    def say_again(self, event: dict[str, Any]) -> None:
        answer = vendor("events").put_events(
            Entries=[
                {
                    "Source": event["source"],
                    "DetailType": event["detail-type"],
                    "Detail": json.dumps(event["detail"]),
                    "EventBusName": self._bus,
                }
            ]
        )
        if answer["FailedEntryCount"]:
            raise AssertionError(f"the bus refused the event: {answer}")
