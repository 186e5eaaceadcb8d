"""The main story: four customers, their keys, and what happens to their data when they take the keys away.

Every step talks to the real parts as the people in it would: the API with tokens, KMS in the customers' own accounts,
the notes app over HTTP. What no person could see (wrapped keys, memory, the bus) is looked at from the test's side.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable
from typing import Any

from claviger_local import customers, memory, notes, onboarding, vendor_side
from claviger_local import settings as s
from claviger_local.aws import client
from claviger_local.cloud import Cloud, tick, write_environment
from claviger_local.people import People
from claviger_local.settings import ACME, CUSTOMERS, GLOBEX, HOOLI, INITECH, Customer
from claviger_local.stage import Stage

NOTES = 1000
TAGS = {"acme": "acme01", "globex": "globex01", "initech": "initech01", "hooli": "hooli01"}
UNWATCHED_BOUND_S = s.PROBE_PHASE_S + s.WATCH_SLACK_S + s.PROOF_REUSE_S + s.LEASE_S
CUTOFF_EVENTS_S = 6.0
CUTOFF_PROBE_S = 10.0
# An ambiguous refusal has to persist: phase, queue and propagation, confirmations, persistence, lease.
CUTOFF_ROLE_S = s.PROBE_PHASE_S + 15 + s.AMBIGUITY_S + s.LEASE_S
# An event is deferred by 5 s at most; then a queue, a probe and the outbox.
TOLD_WHO_S = 20.0


class Story:
    """What the steps share."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.stage = Stage()
        self.people = People(cloud)
        self.tap = vendor_side.Tap(cloud.outputs["BusName"])
        self.keys: dict[str, dict[str, str]] = {}
        self.roles: dict[str, str] = {}
        self.trusts: dict[str, dict[str, Any]] = {}
        self.notes = notes.make_notes(NOTES)
        self.few = notes.make_notes(5)
        self.data_keys: set[bytes] = set()
        self.acme_instance = ""

    # -- what several steps do --

    def make_keys(self, customer: Customer) -> dict[str, str]:
        """The customer makes one key per region, with the policy that the API prints."""
        policy = self.people.key_policy(customer)
        keys = {
            region: customers.create_key(customer.account, region, policy, f"{customer.org} root key")
            for region in customer.regions
        }
        self.keys[customer.org] = keys
        return keys

    def make_keys_by_template(self, customer: Customer) -> None:
        """The customer deploys the template of `onboarding/` in place of making keys by hand."""
        printed = self.people.of(customer, "GET", "key-policy").json
        parameters = {
            "VendorAccountId": printed["principal"]["account"],
            "KeyAccessRoleArn": printed["principal"]["roleArn"],
            "OrganisationId": self.people.organisation_id(customer),
        }
        self.keys[customer.org] = {}
        for region in customer.regions:
            cloudformation, processed = (
                client(service, customer.account, region, s.VENDOR_AWS) for service in ("cloudformation", "kms")
            )
            template = onboarding.ONBOARDING / "cmk-key.yaml"
            made = onboarding.deployed(cloudformation, f"claviger-root-key-{region}", template, parameters)
            real = customers.kms(customer.account, region)
            self.keys[customer.org][region] = onboarding.replayed_key(made["RootKey"], processed, real)
            found = onboarding.document(processed.get_key_policy(KeyId=made["RootKey"], PolicyName="default")["Policy"])
            self.stage.check(
                found == self.people.key_policy(customer),
                f"the template's policy is the one that is printed ({region})",
            )

    def make_role(self, customer: Customer) -> None:
        """The customer deploys the template of its key-management role; what it makes is what the API prints."""
        printed = self.people.of(customer, "GET", "key-policy").json
        trust, permissions = self.people.role_documents(customer)
        parameters = {
            "VendorAccountId": printed["principal"]["account"],
            "KeyAccessRoleArn": printed["principal"]["roleArn"],
            "OrganisationId": self.people.organisation_id(customer),
            "ExternalId": printed["role"]["externalId"],
            "RoleName": customers.KEY_MANAGEMENT,
        }
        cloudformation, processed = (
            client(service, customer.account, "us-east-1", s.VENDOR_AWS) for service in ("cloudformation", "iam")
        )
        template = onboarding.ONBOARDING / "byok-role.yaml"
        onboarding.deployed(cloudformation, "claviger-key-management", template, parameters)
        made = processed.get_role(RoleName=customers.KEY_MANAGEMENT)["Role"]
        allowed = processed.get_role_policy(RoleName=customers.KEY_MANAGEMENT, PolicyName=customers.PERMISSIONS)
        documents = (made["AssumeRolePolicyDocument"], allowed["PolicyDocument"])
        self.stage.check(
            tuple(onboarding.document(found) for found in documents) == (trust, permissions),
            "the template's two policies are the ones that are printed",
        )
        real = customers.iam(customer.account)
        self.roles[customer.org] = onboarding.replayed_role(customers.KEY_MANAGEMENT, processed, real)
        self.trusts[customer.org] = trust

    def learn_keys(self, customer: Customer) -> dict[str, str]:
        """The keys that were made in the customer's account, as its policy lists them."""
        keys = {key["region"]: key["keyArn"] for key in self.people.policy(customer)["keys"]}
        self.keys[customer.org] = keys
        return keys

    def byok_enrolment(self, customer: Customer) -> dict[str, Any]:
        return {
            "mode": "byok",
            "awsAccountId": customer.account,
            "realm": customer.realm,
            "roleArn": self.roles[customer.org],
            "contextTag": TAGS[customer.org],
            "contextTagConfirmation": TAGS[customer.org],
        }

    def enrolment(self, customer: Customer, keys: dict[str, str] | None = None) -> dict[str, Any]:
        if customer.org in self.roles:
            return self.byok_enrolment(customer)
        chosen = self.keys[customer.org] if keys is None else keys
        return {
            "mode": "cmk",
            "awsAccountId": customer.account,
            "realm": customer.realm,
            "keys": [{"region": region, "keyArn": arn} for region, arn in chosen.items()],
            "contextTag": TAGS[customer.org],
            "contextTagConfirmation": TAGS[customer.org],
        }

    def enrol(self, customer: Customer) -> None:
        answer = self.people.of(customer, "POST", "encryption-policy", self.enrolment(customer))
        self.stage.need(answer.status == 202, f"{customer.org} asks to enrol: accepted", answer)
        self.approve_until(f"{customer.org}'s policy active", lambda: self.people.lifecycle(customer) == "active")

    def provision(self, customer: Customer) -> str:
        body = {"site": customer.site, "app": "jira"}
        answer = self.people.of(customer, "POST", "app-instances", body)
        self.stage.need(answer.status in (201, 202), f"{customer.org} asks for Jira on {customer.site}", answer)
        return str(
            self.approve_until(
                f"Jira on {customer.site} active",
                lambda: next(
                    (item["id"] for item in self.people.instances(customer) if status_of(item) == "active"), None
                ),
            )
        )

    def approve_until(self, what: str, ask: Any) -> Any:
        def approve_and_ask() -> Any:
            found = ask()
            if not found:
                self.people.approve_all()
            return found

        result = self.stage.until(what, approve_and_ask, 30, 0.2)
        self.stage.check(True, what)
        return result

    def disable(self, customer: Customer, region: str) -> float:
        """The customer's own act. The moment before the call, in Unix seconds."""
        moment = time.time()
        customers.kms(customer.account, region).disable_key(KeyId=self.keys[customer.org][region])
        return moment

    def enable(self, customer: Customer, region: str) -> None:
        customers.kms(customer.account, region).enable_key(KeyId=self.keys[customer.org][region])

    def enable_all(self, customer: Customer) -> None:
        for region in customer.regions:
            self.enable(customer, region)

    def open_ticket(self, customer: Customer) -> dict[str, Any]:
        """The ticket of the revocation that is going on."""
        return next(
            (t for t in self.people.tickets(customer) if "revocation started" in t["title"] and t["status"] == "open"),
            {},
        )

    def restore(self, customer: Customer) -> None:
        """Asks until it is accepted: KMS may still be propagating."""
        ticket = self.open_ticket(customer).get("id", "")
        self.stage.until(
            f"{customer.org}'s restoration accepted",
            lambda: self.people.of(customer, "POST", "restorations", {"ticketId": ticket}).status == 202,
            20,
            0.5,
        )
        self.stage.until(f"{customer.org} active again", lambda: self.people.lifecycle(customer) == "active", 30)
        self.stage.until(f"{customer.org} readable again", lambda: self.readable(customer), 15)

    def readable(self, customer: Customer) -> bool:
        return notes.get(customer, "note-0000").status == 200

    def scan(self) -> set[bytes]:
        assert self.cloud.notes is not None
        return memory.find(self.cloud.notes.pid, self.data_keys)


def status_of(item: dict[str, Any]) -> str:
    status = item.get("status", "")
    return str(status.get("state", "")) if isinstance(status, dict) else str(status)


def enrolling(story: Story) -> None:
    stage, people = story.stage, story.people
    keys = story.make_keys(ACME)
    stage.say(f"two keys with plain KMS calls: {', '.join(keys.values())}")
    printed = people.key_policy(ACME)

    home = ACME.regions[0]
    answer = people.of(ACME, "POST", "encryption-policy/validate", story.enrolment(ACME, {home: keys[home]}))
    missing = ACME.regions[1]
    stage.check(
        missing in str(answer) and failing(answer), f"validate names the region that is missing ({missing})", answer
    )

    bare = json.loads(json.dumps(printed))
    for statement in bare["Statement"]:
        conditions = statement.get("Condition", {}).get("StringEquals", {})
        conditions.pop("kms:EncryptionContext:claviger:organisation", None)
    customers.of_key(keys[home]).put_key_policy(KeyId=keys[home], PolicyName="default", Policy=json.dumps(bare))
    answer = people.of(ACME, "POST", "encryption-policy/validate", story.enrolment(ACME))
    stage.check(
        failing(answer) and "context" in str(answer).lower() and home in str(answer),
        f"validate finds the missing encryption-context condition ({home})",
        answer,
    )
    stage.check(not people.policy(ACME), "validate stored nothing")

    customers.of_key(keys[home]).put_key_policy(KeyId=keys[home], PolicyName="default", Policy=json.dumps(printed))
    answer = people.of(ACME, "POST", "encryption-policy/validate", story.enrolment(ACME))
    stage.need(answer.status == 200 and not failing(answer), "validate passes with the policy that was printed", answer)
    story.enrol(ACME)


def failing(answer: Any) -> bool:
    return bool(answer.status == 400 or (answer.status == 200 and answer.json.get("result") == "fail"))


def using(story: Story) -> None:
    stage = story.stage
    story.acme_instance = story.provision(ACME)
    began = time.time()
    refused = notes.write_all(ACME, story.notes)
    wrote = time.time() - began
    size = sum(map(len, story.notes.values()))
    stage.need(not refused, f"{NOTES} notes written, {size / 1e6:.1f} MB, {wrote:.1f} s", refused[:3])
    again = time.time()
    wrong = notes.read_all(ACME, story.notes)
    stage.check(not wrong, f"{NOTES} notes read back, byte for byte, {time.time() - again:.1f} s", wrong[:3])
    calls = len(customers.data_key_calls(ACME.account, began))
    stage.check(calls <= 10, f"{calls} KMS calls about data keys for {2 * NOTES} records: per key, not per record")
    stage.number("records", written=NOTES, bytes=size, kms_calls=calls)

    organisation = story.people.organisation_id(ACME)
    story.data_keys = vendor_side.data_keys(story.cloud, organisation, TAGS["acme"], story.acme_instance)
    stage.need(story.data_keys, f"{len(story.data_keys)} data key(s) of acme learned from the registry, by its owner")
    stage.check(story.scan() == story.data_keys, "the scan of the notes app's memory finds them: they are in use")


def settling_globex(story: Story) -> None:
    stage, people = story.stage, story.people
    story.make_role(GLOBEX)
    trust = story.trusts[GLOBEX.org]
    open_to_all = json.loads(json.dumps(trust))
    for statement in open_to_all["Statement"]:
        statement["Condition"]["StringEquals"].pop("sts:ExternalId")
    customers.trust(GLOBEX.account, open_to_all)
    answer = people.of(GLOBEX, "POST", "encryption-policy/validate", story.enrolment(GLOBEX))
    stage.check(
        failing(answer) and '"external-id-enforced"' in answer.body.decode(),
        "a role that lets us in without its external id is refused",
        answer,
    )
    customers.trust(GLOBEX.account, trust)
    answer = people.of(GLOBEX, "POST", "encryption-policy/validate", story.enrolment(GLOBEX))
    stage.need(answer.status == 200 and not failing(answer), "with the trust policy that was printed it passes", answer)
    stage.check(not any(listed(GLOBEX)), "and no key is made by validating", listed(GLOBEX))
    story.enrol(GLOBEX)
    keys = story.learn_keys(GLOBEX)
    stage.check(
        sorted(keys) == sorted(GLOBEX.regions) and len(listed(GLOBEX)) == len(keys),
        f"keys made in globex's account, one per region: {', '.join(keys.values())}",
        listed(GLOBEX),
    )
    named = [alias["AliasName"] for region in GLOBEX.regions for alias in aliases(GLOBEX, region)]
    stage.check(named and all(name.startswith("alias/cryptor-") for name in named), "named `cryptor-...`", named)
    story.provision(GLOBEX)
    refused = notes.write_all(GLOBEX, story.few)
    stage.check(not refused, "globex has notes too", refused[:2])


def listed(customer: Customer) -> list[str]:
    """The keys in a customer's account."""
    clients = [customers.kms(customer.account, region) for region in customer.regions]
    return [key["KeyArn"] for client in clients for key in client.list_keys()["Keys"]]


def aliases(customer: Customer, region: str) -> list[dict[str, Any]]:
    return list(customers.kms(customer.account, region).list_aliases()["Aliases"])


def distrusting(story: Story) -> None:
    """BYOK: the role's trust is denied, then allowed again; then the role is deleted and made again."""
    stage, people = story.stage, story.people
    trust = story.trusts[GLOBEX.org]
    with notes.Reader(GLOBEX, "note-0001") as reader, notes.Reader(INITECH, "note-0001") as other:
        stage.until("a read", reader.last_success, 10)
        moment = time.time()
        customers.trust(GLOBEX.account, customers.denied(trust))
        stage.until("suspended", lambda: people.lifecycle(GLOBEX) == "suspended", 40, 0.05)
        stage.until("refused", lambda: reader.refused_since(reader.last_success(), "suspended"), 20)
        time.sleep(1)
        last = reader.last_success() - moment
        stage.check(last <= CUTOFF_ROLE_S, f"trust set to Deny: cut off, last successful read {last:.2f} s")
        stage.number("cutoff_role", s=last)
        stage.check(other.kinds() == {"ok": len(other.looks)}, "initech noticed nothing", other.kinds())
    told_who(story, "trust set to Deny", GLOBEX, "trust-policy-changed")
    title = stage.until("a ticket", lambda: story.open_ticket(GLOBEX).get("title"), 10)
    stage.check(title == f"BYOK revocation started for AWS account {GLOBEX.account}", f"ticket: {title}")
    ticket = story.open_ticket(GLOBEX)["id"]
    answer = people.of(GLOBEX, "POST", "restorations", {"ticketId": ticket})
    stage.check(
        answer.status == 409 and "update-assume-role-policy" in str(answer),
        "refused while the trust is denied, with the remedy",
        answer,
    )
    customers.trust(GLOBEX.account, trust)
    story.restore(GLOBEX)
    wrong = notes.read_all(GLOBEX, story.few)
    stage.check(not wrong, "trust back to Allow: restored, every note byte-identical", wrong[:2])

    _, permissions = people.role_documents(GLOBEX)
    customers.delete_role(GLOBEX.account)
    stage.until("suspended", lambda: people.lifecycle(GLOBEX) == "suspended", 40, 0.05)
    stage.check(True, "role deleted: cut off")
    told_who(story, "role deleted", GLOBEX, "role-deleted")
    customers.create_role(GLOBEX.account, trust, permissions)
    story.restore(GLOBEX)
    wrong = notes.read_all(GLOBEX, story.few)
    stage.check(not wrong, "the same role made again: restored", wrong[:2])


def revoking(story: Story) -> None:
    stage, people = story.stage, story.people
    first, second = ACME.regions[1], ACME.regions[0]
    with notes.Reader(ACME, "note-0002") as reader, notes.Reader(GLOBEX, "note-0002") as other:
        moment = story.disable(ACME, first)
        stage.until("degraded", lambda: people.policy(ACME).get("degraded"), 15)
        stage.check(True, f"one key disabled ({first}): degraded after {time.time() - moment:.1f} s")
        warned = stage.until("a warning", lambda: warning(story, second), 10)
        stage.check("incomplete" in warned.lower(), f"warned: {warned[:110]}")
        time.sleep(s.LEASE_S + 1)
        stage.check(story.readable(ACME), "data stays readable from the other region")

        quiet = time.time()
        moment = story.disable(ACME, second)
        stage.until("fence closed", lambda: people.policy(ACME)["fence"]["causes"], 20, 0.02)
        closed = time.time() - moment
        stage.until("ticket", lambda: story.open_ticket(ACME), 20, 0.05)
        ticketed = time.time() - moment
        stage.until(
            "reads refused", lambda: reader.last_success() and reader.refused_since(reader.last_success(), "suspended"),
            20, 0.05,
        )  # fmt: skip
        time.sleep(2)
        last = reader.last_success() - moment
        stage.check(
            last <= CUTOFF_EVENTS_S,
            f"cut off: fence closed after {closed:.2f} s, last successful read {last:.2f} s, ticket {ticketed:.2f} s",
        )
        stage.number("cutoff_events", s=last, fence_s=closed, ticket_s=ticketed)
        stage.check(
            reader.refused_since(reader.last_success(), "suspended"),
            "every read after it is refused as `suspended`",
            reader.kinds(reader.last_success()),
        )
    answer = notes.put(ACME, "note-late", b"too late")
    stage.check(answer.status == 409 and answer.problem == "suspended", "a write is refused as `suspended`", answer)
    stage.check(not story.scan(), "the scan of the notes app's memory finds none of the data keys")
    ticket = story.open_ticket(ACME)
    stage.check(ACME.account in ticket["title"], f"ticket: {ticket['title']}")
    told_who(story, "both keys disabled", ACME, "key-disabled")
    stage.check(other.kinds() == {"ok": len(other.looks)}, "globex noticed nothing", other.kinds())
    extra = customers.data_key_calls(GLOBEX.account, quiet)
    stage.check(not extra, "acme's cut-off cost globex no KMS call", [c["operation"] for c in extra])
    stage.number("bystander", extra_kms_calls=len(extra))


def warning(story: Story, still_works: str) -> str:
    """What acme's tickets say of the region that still works."""
    for ticket in story.people.tickets(ACME):
        for text in (ticket.get("body", ""), *(comment["body"] for comment in ticket.get("comments", []))):
            if "incomplete" in text.lower() and still_works in text:
                return str(text)
    return ""


def enduring(story: Story) -> None:
    stage, people = story.stage, story.people
    seen: set[str] = set()
    with notes.Reader(GLOBEX, "note-0003") as reader:
        for kind, named in (("throttle", "throttling"), ("timeout", "timeouts"), ("error-500", "5xx")):
            began = time.time()
            customers.inject(kind, account=GLOBEX.account, **({"millis": 10_000} if kind == "timeout" else {}))
            while time.time() < began + 1.5 * s.AMBIGUITY_S:
                seen.add(people.lifecycle(GLOBEX))
                time.sleep(0.5)
            customers.heal()
            kinds = reader.kinds(began)
            stage.check(
                set(kinds) <= {"ok", "temporarily-unavailable"}, f"{named} for {time.time() - began:.0f} s: {kinds}"
            )
        stage.check(seen == {"active"}, "globex was never suspended", seen)
        healed = time.time()
        stage.until("globex readable", lambda: story.readable(GLOBEX), 30)
        time.sleep(3)
        stage.check(reader.kinds(time.time() - 2).keys() == {"ok"}, f"healed by itself, {time.time() - healed:.1f} s")
    stage.check(not story.open_ticket(GLOBEX), "and has no ticket of a revocation")


def unheard(story: Story) -> None:
    stage, people = story.stage, story.people
    (region,) = INITECH.regions
    story.make_keys_by_template(INITECH)
    story.enrol(INITECH)
    story.provision(INITECH)
    refused = notes.write_all(INITECH, story.few)
    stage.need(not refused, "initech has notes", refused[:2])
    customers.inject("events-lost", account=INITECH.account)
    with notes.Reader(INITECH, "note-0002") as reader:
        stage.until("a read", reader.last_success, 10)
        moment = story.disable(INITECH, region)
        stage.until("suspended", lambda: people.lifecycle(INITECH) == "suspended", 30)
        stage.until("refused", lambda: reader.refused_since(reader.last_success(), "suspended"), 20)
        time.sleep(1)
        last = reader.last_success() - moment
    stage.check(last <= CUTOFF_PROBE_S, f"every event lost: the prober found it, last successful read {last:.2f} s")
    stage.number("cutoff_probe", s=last)
    story.enable(INITECH, region)
    story.restore(INITECH)
    stage.check(True, "initech restored")


def unwatched(story: Story) -> None:
    stage = story.stage
    (region,) = INITECH.regions
    customers.heal()
    customers.inject("events-lost", account=INITECH.account)
    try:
        with notes.Reader(INITECH, "note-0002") as reader, notes.Reader(GLOBEX, "note-0002") as other:
            stage.until("a read", lambda: reader.last_success() > time.time() - 1, 10)
            vendor_side.stop_prober()
            stage.say("the prober is stopped: no tick, no message, no call reaches it")
            moment = story.disable(INITECH, region)
            dark = moment + s.PROBE_PHASE_S + s.WATCH_SLACK_S
            while time.time() < moment + UNWATCHED_BOUND_S + 5 and time.time() < max(dark, reader.last_success()) + 5:
                time.sleep(0.2)
            last = reader.last_success() - moment
            kinds = reader.kinds(reader.last_success() + 0.001)
            others = other.kinds(dark + 1)
        stage.check(
            last <= UNWATCHED_BOUND_S,
            f"nobody watches, and initech is unreadable all the same: last successful read {last:.2f} s",
        )
        stage.number("cutoff_unwatched", s=last, bound=UNWATCHED_BOUND_S)
        stage.check(set(kinds) <= {"suspended", "temporarily-unavailable"}, f"initech since then: {kinds}")
        stage.check(set(others) == {"ok"}, f"globex stays readable, by fresh proofs: {others}")
    finally:
        vendor_side.start_prober()
        customers.heal()
        tick()
    stage.until("found out", lambda: story.people.lifecycle(INITECH) == "suspended", 90)
    stage.check(True, "the prober is back and suspends initech")
    story.enable(INITECH, region)
    story.restore(INITECH)
    stage.check(True, "initech restored")


def revoking_otherwise(story: Story) -> None:
    """The other ways out that a customer has in KMS, each within the bound that the cell publishes."""
    stage, people = story.stage, story.people
    bounds = people.call("system", "GET", "catalogue").json["bounds"]
    policy = people.key_policy(INITECH)
    own = [statement for statement in policy["Statement"] if INITECH.account in str(statement["Principal"])]
    stage.need(own and len(own) < len(policy["Statement"]), "the key policy has the owner's statements and ours")

    def cancel(arn: str) -> None:
        customers.of_key(arn).cancel_key_deletion(KeyId=arn)
        customers.of_key(arn).enable_key(KeyId=arn)

    def put(arn: str, document: dict[str, Any]) -> None:
        customers.of_key(arn).put_key_policy(KeyId=arn, PolicyName="default", Policy=json.dumps(document))

    ways: tuple[tuple[str, str, str, Callable[[str], Any], Callable[[str], Any]], ...] = (
        (
            "scheduled deletion", "key-deletion-scheduled", "cutOffSeconds",
            lambda arn: customers.of_key(arn).schedule_key_deletion(KeyId=arn, PendingWindowInDays=7), cancel,
        ),
        (
            "key policy", "key-policy-changed", "ambiguousCutOffSeconds",
            lambda arn: put(arn, {**policy, "Statement": own}), lambda arn: put(arn, policy),
        ),
    )  # fmt: skip
    for name, slug, which, take, give_back in ways:
        revoke_and_restore(story, name, INITECH, slug, float(bounds[which]), take, give_back)


def importing(story: Story) -> None:
    """Key material of the customer's own: deleted, and imported again."""
    stage, people = story.stage, story.people
    (region,) = HOOLI.regions
    material = secrets.token_bytes(32)
    arn = customers.create_imported_key(HOOLI.account, region, people.key_policy(HOOLI), material)
    story.keys[HOOLI.org] = {region: arn}
    story.enrol(HOOLI)
    story.provision(HOOLI)
    refused = notes.write_all(HOOLI, story.few)
    stage.need(not refused, f"hooli has notes, under material that it imported into {arn}", refused[:2])
    bounds = people.call("system", "GET", "catalogue").json["bounds"]
    revoke_and_restore(
        story,
        "deleted imported material",
        HOOLI,
        "key-material-deleted",
        float(bounds["cutOffSeconds"]),
        lambda key: customers.of_key(key).delete_imported_key_material(KeyId=key),
        lambda key: customers.import_material(key, material),
    )


def told_who(story: Story, name: str, customer: Customer, slug: str) -> None:
    """The ticket names who changed it, whether the event came before the probe that decided or after it."""
    said = f"{slug} by arn:aws:iam::{customer.account}:root"
    began = time.time()
    story.stage.until(
        f"who did it ({slug}) on the ticket", lambda: said in json.dumps(story.open_ticket(customer)), TOLD_WHO_S, 0.1
    )
    story.stage.check(True, f"{name}: the ticket says who changed it, {time.time() - began:.1f} s later")


def revoke_and_restore(
    story: Story,
    name: str,
    customer: Customer,
    slug: str,
    bound: float,
    take: Callable[[str], Any],
    give_back: Callable[[str], Any],
) -> None:
    stage, people = story.stage, story.people
    arns = list(story.keys[customer.org].values())
    with notes.Reader(customer, "note-0002") as reader:
        began = time.time()
        stage.until("a read", lambda: reader.last_success() > began, 15)
        for arn in arns:
            take(arn)
        moment = time.time()
        stage.until("suspended", lambda: people.lifecycle(customer) == "suspended", bound + 5)
        stage.until("refused", lambda: reader.refused_since(reader.last_success(), "suspended"), 20)
        time.sleep(1)
        last = reader.last_success() - moment
    stage.check(last <= bound, f"{name}: last successful read {last:.2f} s, published bound {bound:.0f} s")
    stage.number("cutoff_" + name.replace(" ", "_"), s=last, bound=bound)
    told_who(story, name, customer, slug)
    for arn in arns:
        give_back(arn)
    story.restore(customer)
    wrong = notes.read_all(customer, story.few)
    stage.check(not wrong, f"{name}: restored, every note is byte-identical", wrong[:2])


def restoring(story: Story) -> None:
    stage, people = story.stage, story.people
    first, second = ACME.regions
    ticket = story.open_ticket(ACME)["id"]
    ask = {"ticketId": ticket}
    for who in ("acme-auditor", "globex-admin", "support-1", "system"):
        answer = people.of(ACME, "POST", "restorations", ask, by=who)
        stage.check(answer.status in (403, 404), f"{who} asks to restore: {answer.status}", answer)
    story.enable(ACME, first)
    time.sleep(1)
    answer = people.of(ACME, "POST", "restorations", ask)
    stage.check(
        answer.status == 409 and second in str(answer), f"refused while {second} is disabled, which is named", answer
    )
    story.enable(ACME, second)
    began = time.time()
    story.restore(ACME)
    stage.check(True, f"both keys enabled: restored, {time.time() - began:.1f} s after asking")
    stage.number("restored", s=time.time() - began)
    wrong = notes.read_all(ACME, story.notes)
    stage.check(not wrong, f"all {NOTES} notes are byte-identical", wrong[:3])
    stage.check(notes.put(ACME, "note-new", b"hello again").status in (200, 201, 204), "and it writes again")
    resolved = next((t for t in people.tickets(ACME) if t["id"] == ticket), {})
    stage.check(resolved.get("status") == "resolved", "the ticket is resolved", resolved.get("status"))

    late = [e for e in story.tap.listen() if e["detail-type"] in ("SuspensionOrdered", "AppInstanceSuspended")]
    of_acme = [event for event in late if event["detail"].get("organisation") == "acme"]
    stage.need(of_acme, f"{len(of_acme)} suspension messages of the old epoch are at hand")
    for event in of_acme:
        story.tap.say_again(event)
    time.sleep(3)
    stage.check(people.lifecycle(ACME) == "active", "sent again, late: acme stays active")
    stage.check(all(status_of(i) == "active" for i in people.instances(ACME)), "its instances too")
    stage.check(story.readable(ACME), "and its data readable")


def moving(story: Story) -> None:
    """Everything moves to new keys while users write; the new keys are lost in the middle and come back."""
    stage, people = story.stage, story.people
    first, second = ACME.regions
    old = dict(story.keys[ACME.org])
    policy = people.key_policy(ACME)

    def made(number: str) -> dict[str, str]:
        name = f"acme root key {number}"
        return {region: customers.create_key(ACME.account, region, policy, name) for region in ACME.regions}

    new = made("2")
    ask = {"depth": "rekey", "keys": [{"region": region, "keyArn": arn} for region, arn in new.items()]}
    began = time.time()

    def job() -> dict[str, Any]:
        return dict(people.of(ACME, "GET", f"reencryptions/{started.json['id']}").json)

    def on_its_way() -> bool:
        seen = job()
        return bool(seen["progress"]["rewritten"] or seen["status"] not in ("preparing", "rewriting"))

    with notes.Writer(ACME, "note-moving") as writer:
        stage.until("notes are written", lambda: len(writer.acknowledged) > 10, 20)
        started = people.of(ACME, "POST", "reencryptions", ask)
        stage.need(started.status == 202, "acme asks to move everything to two new keys", started)
        stage.say(f"advice: {started.json['advice'][:140]}")
        others = [{"region": region, "keyArn": arn} for region, arn in made("3").items()]
        answer = people.of(ACME, "POST", "reencryptions", ask | {"keys": others})
        stage.check(answer.status == 409, f"a second job is refused: {answer.status} {answer.problem}", answer)
        stage.until("records are rewritten", on_its_way, 60, 0.05)
        story.keys[ACME.org] = new
        story.disable(ACME, second)
        stopped = stage.until("the job stops", lambda: job()["stopped"], 30, 0.05)
        seen = job()
        stage.check(second in stopped, f"a new key is lost in the middle ({seen['status']}): {stopped[:120]}")
        progress = seen["progress"]
        total = progress["total"] or "a number that is not known yet"
        stage.say(f"{progress['done']} records gone through of {total}, {progress['rewritten']} rewritten")
        stage.check(story.readable(ACME), "everything stays readable")
        story.disable(ACME, first)
        stage.until("suspended", lambda: people.lifecycle(ACME) == "suspended", 30, 0.05)
        stage.until("refused", lambda: notes.get(ACME, "note-0000").problem == "suspended", 20, 0.1)
        stage.check(job()["status"] != "completed", "the other one too: acme is cut off, and the job waits")
        story.enable_all(ACME)
        story.restore(ACME)
        resumed = time.time()
        stage.until("completed", lambda: job()["status"] == "completed", 120, 0.2)
        stage.check(True, f"restored: the job goes on by itself and completes, {time.time() - resumed:.1f} s")
    done = job()
    ledger = done["ledger"][0]
    stage.check(
        ledger["safeToDelete"] and {key["keyArn"] for key in ledger["keys"]} == set(old.values()),
        f"the ledger: {'; '.join(ledger['why'])[:160]}",
        ledger,
    )
    stage.check(set(writer.refused) <= {"suspended", "temporarily-unavailable"}, f"refused writes: {writer.refused}")
    generations = vendor_side.generations(story.cloud, ACME)
    stage.check(set(generations) == {done["generation"]}, f"records by generation of their keys: {generations}")
    for arn in old.values():
        customers.of_key(arn).schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    stage.say(f"acme schedules the deletion of {', '.join(old.values())}")
    time.sleep(s.PROBE_PHASE_S + s.LEASE_S)
    wrong = notes.read_all(ACME, story.notes | writer.acknowledged)
    stage.check(not wrong, f"all {len(story.notes) + len(writer.acknowledged)} notes are byte-identical", wrong[:3])
    stage.check(people.lifecycle(ACME) == "active", "and acme is active")
    titles = [ticket["title"] for ticket in people.tickets(ACME)]
    title = f"Re-encryption for AWS account {ACME.account}"
    stage.check(title in titles, f"ticket: {title}", titles)
    stage.number(
        "reencryption",
        s=time.time() - began,
        rewritten=done["progress"]["rewritten"],
        lost_races=done["progress"]["lostRaces"],
    )


def counting(story: Story) -> None:
    """What claviger says that it used each customer's keys for, against what KMS saw."""
    stage, people = story.stage, story.people
    seen = {customer.org: customers.uses(customer.account) for customer in CUSTOMERS}
    # Environments end, and write what they have counted; new ones go on counting meanwhile.
    vendor_side.end_environments("key-broker", "key-prober", "provisioner", "reencryption-planner")
    for customer in CUSTOMERS:

        def missing(of: Customer = customer) -> dict[customers.Use, tuple[int, int]]:
            said = people.usage(of)
            counted = said.calls + said.unanswered
            return {use: (counted[use], count) for use, count in seen[of.org].items() if counted[use] < count}

        deadline = time.monotonic() + 20
        while missing() and time.monotonic() < deadline:
            time.sleep(0.5)
        total = sum(seen[customer.org].values())
        stage.check(not missing(), f"{customer.org}: all of {total} calls that KMS saw are counted", missing())
        said = people.usage(customer)
        after = customers.uses(customer.account)
        above = {use: (count, after[use]) for use, count in said.calls.items() if count > after[use]}
        stage.check(said.calls and not above, f"{customer.org}: none is counted that KMS did not see", above)
        (region, operation, purpose), most = said.calls.most_common(1)[0]
        stage.say(f"{said.cost}; most: {most} of {operation} ({purpose or 'no context'}) in {region}")
        stage.number(
            "usage",
            org=customer.org,
            seen=total,
            counted=sum(said.calls.values()),
            unanswered=sum(said.unanswered.values()),
        )


def remembering(story: Story) -> None:
    stage = story.stage
    log = story.people.audit(ACME, by="acme-auditor")
    facts = [json.loads(line) for line in log.splitlines() if line.strip()]
    stage.need(facts, "the auditor reads the trail", log)
    for fact in sorted(facts, key=lambda fact: fact["at"]):
        actor = fact.get("actor", "")
        shown = actor if isinstance(actor, str) else json.dumps(actor, sort_keys=True)
        stage.say(f"{fact['at'][:23]:<23}  {fact['slug']:<28} {fact.get('state', ''):<13} {shown[:60]}")
    slugs = {fact["slug"] for fact in facts}
    stage.check(len(facts) >= 6, f"{len(facts)} facts of {len(slugs)} kinds")
    chains: dict[str, list[dict[str, Any]]] = {}
    for fact in facts:
        chains.setdefault(fact["stream"], []).append(fact)
    broken = [name for name, chain in chains.items() if not unbroken(chain)]
    stage.check(not broken, f"the hash chains of {len(chains)} streams are whole", broken)
    for customer in CUSTOMERS:
        stage.check(story.people.lifecycle(customer) == "active", f"{customer.org} is active")
    stage.number("audit", facts=len(facts), chains=len(chains))
    for customer in CUSTOMERS:
        said = conform(story.people.audit(customer))
        stage.check(said.endswith("divergences=0"), f"{customer.org}'s log, decided anew by the same code: {said}")


def conform(log: str) -> str:
    """What `proof conform` says of an audit log."""
    file = s.LOCAL / "tmp" / "audit.ndjson"
    file.write_text(log)
    command = [str(s.BINARIES / "proof"), "conform", str(file), "--ambiguity-seconds", str(s.AMBIGUITY_S)]
    command += ["--in-transit-seconds", str(s.IN_TRANSIT_S)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or ran.stderr.strip()


def unbroken(chain: list[dict[str, Any]]) -> bool:
    """Whether each fact names the one before and bears its own hash."""
    previous = ""
    for position, fact in enumerate(sorted(chain, key=lambda fact: fact["seq"]), 1):
        bare = json.dumps(fact | {"hash": ""}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if fact["seq"] != position or fact["previous"] != previous:
            return False
        if hashlib.sha256(bare.encode()).hexdigest() != fact["hash"]:
            return False
        previous = fact["hash"]
    return True


STEPS = (
    ("acme makes its keys, pastes the key policy, validates and enrols", enrolling),
    ("a Jira instance is provisioned; 1,000 records go in and come back", using),
    ("globex lets claviger make its keys, through a role of its own", settling_globex),
    ("acme revokes: one region, then the other", revoking),
    ("globex lives through throttling, timeouts and 5xx", enduring),
    ("initech revokes and every event is lost", unheard),
    ("the prober is dead and initech revokes", unwatched),
    ("globex denies its role's trust, deletes the role, and comes back", distrusting),
    ("acme restores", restoring),
    ("initech revokes by scheduled deletion and by key policy", revoking_otherwise),
    ("hooli deletes the key material that it imported, and imports it again", importing),
    ("acme moves to new keys, and loses them in the middle", moving),
    ("what the keys were used for, next to what KMS saw", counting),
    ("the audit trail", remembering),
)


def play(cloud: Cloud) -> int:
    """Plays the story once; the number of things that did not hold."""
    story = Story(cloud)
    for number, (title, tell) in enumerate(STEPS, 1):
        with story.stage.step(f"{number}. {title}"):
            tell(story)
        customers.heal()
    write_environment(cloud, {org: list(keys.values()) for org, keys in story.keys.items()})
    seconds = time.monotonic() - story.stage.began
    failures = story.stage.failures
    story.stage.number("end", failures=len(failures), s=seconds)
    if failures:
        print(f"\n{len(failures)} thing(s) did not hold:")
        for failure in failures:
            print(f"  - {failure}")
    return len(failures)
