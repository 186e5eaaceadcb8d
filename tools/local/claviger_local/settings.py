"""Names, places and numbers of the local cloud. The only module that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LOCAL = ROOT / ".local"
RUN = LOCAL / "run"
LOGS = LOCAL / "log"
ARTIFACTS = LOCAL / "artifacts"
ENV_FILE = LOCAL / "env"
BINARIES = Path(os.environ.get("CLAVIGER_BIN_DIR", ROOT / "target" / "debug"))

REGION = "eu-central-1"
STACK = "claviger"
KEY_ACCESS_STACK = "claviger-key-access"
NOTES_STACK = "notes"
NOTES_ROLE = "notes-app"
NOTES_TABLE = "notes-records"
VENDOR_ACCOUNT = "111111111111"
CANARY_ACCOUNT = "555555555555"

FUNCTIONS = (
    "api",
    "deadlines",
    "key-broker",
    "key-events",
    "key-prober",
    "outbox",
    "provisioner",
    "reencryption-planner",
    "reencryption-worker",
    "restorer",
    "suspender",
)

REALMS: dict[str, tuple[str, ...]] = {
    "europe": ("eu-central-1", "eu-west-1"),
    "usa": ("us-east-1", "us-west-2"),
    "australia": ("ap-southeast-2",),
    "canada": ("ca-central-1",),
    "germany": ("eu-central-1",),
    "india": ("ap-south-1",),
    "japan": ("ap-northeast-1",),
    "south-korea": ("ap-northeast-2",),
    "singapore": ("ap-southeast-1",),
    "united-kingdom": ("eu-west-2",),
}
ALL_REGIONS = tuple(sorted({region for regions in REALMS.values() for region in regions}))


@dataclass(frozen=True)
class Customer:
    """A customer of the vendor, as the story and a person at the prompt meet it."""

    org: str
    account: str
    realm: str
    site: str

    @property
    def regions(self) -> tuple[str, ...]:
        return REALMS[self.realm]


ACME = Customer("acme", "222222222222", "europe", "acme-eng")
GLOBEX = Customer("globex", "333333333333", "usa", "globex-eng")
INITECH = Customer("initech", "444444444444", "canada", "initech-eng")
HOOLI = Customer("hooli", "666666666666", "japan", "hooli-eng")
CUSTOMERS = (ACME, GLOBEX, INITECH, HOOLI)

# On AWS 60, 30, 5 and 60 s: template.yaml. The published sums are made of these.
PROBE_PHASE_S = 2
LEASE_S = 3
POLL_MS = 500
AMBIGUITY_S = 4
WATCH_SLACK_S = 10
IN_TRANSIT_S = 5
USAGE_FLUSH_S = 2
PROOF_REUSE_S = 10
KEY_CALL_TIMEOUT_S = 2

TIMINGS = {
    "ProbePhaseSeconds": PROBE_PHASE_S,
    "LeaseSeconds": LEASE_S,
    "LeasePollMillis": POLL_MS,
    "AmbiguitySeconds": AMBIGUITY_S,
    "WatchSlackSeconds": WATCH_SLACK_S,
    "ProofReuseSeconds": PROOF_REUSE_S,
    "KeyCallTimeoutSeconds": KEY_CALL_TIMEOUT_S,
    "Shards": 2,
    "FenceCopies": 2,
    "RecordShards": 2,
    "InTransitSeconds": IN_TRANSIT_S,
    "UsageFlushSeconds": USAGE_FLUSH_S,
    "FunctionTimeoutSeconds": 10,
    "VisibilitySeconds": 60,
    "LogLevel": "info",
}


def _port(variable: str, default: int) -> int:
    return int(os.environ.get(variable, default))


VENDOR_PORT = _port("CLAVIGER_VENDOR_PORT", 4566)
CUSTOMER_PORT = _port("CLAVIGER_CUSTOMER_PORT", 4600)
NOTES_PORT = _port("CLAVIGER_NOTES_PORT", 4700)
PORTS = {
    "CLAVIGER_VENDOR_PORT": VENDOR_PORT,
    "CLAVIGER_CUSTOMER_PORT": CUSTOMER_PORT,
    "CLAVIGER_NOTES_PORT": NOTES_PORT,
}
VENDOR_AWS = f"http://127.0.0.1:{VENDOR_PORT}"
CUSTOMER_AWS = f"http://127.0.0.1:{CUSTOMER_PORT}"
NOTES_APP = f"http://127.0.0.1:{NOTES_PORT}"


def clean_environment(**extra: str) -> dict[str, str]:
    """What a server of the local cloud inherits: nothing of the person's own AWS or proxy settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
    return kept | {"TMPDIR": str(LOCAL / "tmp"), "AWS_EC2_METADATA_DISABLED": "true"} | extra
