"""Which tests prove which rule of the specification.

A test that proves a rule carries the rule's id at the start of its name, in Rust as in Python, or at the start of the
name of an rstest case. This writes the table of them, docs/RULES.md; `--check` only says whether it is current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "RULES.md"
REMEDY = "python3 tools/rules.py"
FOLDERS = ("functions", "shared", "examples", "tests", "tools", "bench", "onboarding")
SKIPPED = {"target", "node_modules", "__pycache__"}

# Each rule in one sentence of our own.
RULES = {
    "Eligibility and enrolment": {
        "E1": "What decides whether an app can be encrypted is that app's own plan: Enterprise, or its trial.",
        "E2": "The government cloud is left out.",
        "E3": "Org admins ask, support agents provision; admins are whoever the feed names at that moment.",
        "E4": "An organisation enrols once, also when requests race.",
        "E5": "An account id is 12 ASCII digits; an account for BYOK serves one organisation.",
        "E6": "Each realm has its fixed regions, by their right names.",
        "E7": "There is one proper key for each region of the realm, no more and no fewer.",
        "E8": "An organisation is either BYOK or CMK, each with its own terms and titles.",
        "E9": "The context tag is short, typed twice, never changed, and tells no organisations apart.",
        "E10": "What is asked for after enrolment has a due date in business days, and lateness is noticed.",
        "E11": "Leaving for the vendor's keys or for another realm is refused, each in its own words.",
        "E12": "Keys are proven, and proven to be the organisation's, before anything is kept; a dry run exists.",
    },
    "App instances": {
        "A1": "Jira, Jira Service Management and Confluence can be encrypted, nothing else.",
        "A2": "Encryption is for one app on one site, not for the site.",
        "A3": "An instance is encrypted from its first day to its last, or never.",
        "A4": "A site is new, or belongs to the same organisation and has an encrypted app; its name is a slug.",
        "A5": "What was added without a request shows as not encrypted.",
        "A6": "The family of an encrypted app is partly covered, and stops together with it.",
        "A7": "An instance stays in its realm, and every regional key wraps its data keys.",
        "A8": "An org admin sees the organisation's apps and where each stands.",
        "A9": "What is covered is shown by app and type of data.",
        "A10": "Apps do not feel the encryption.",
    },
    "Key access while active": {
        "K1": "A new key-policy template asks each customer for consent, and old templates look like no revocation.",
        "K2": "Rotating a key in AWS needs nobody and breaks nothing.",
        "K3": "Every use of a key has an explanation, and the audit log shows when it was tampered with.",
        "K4": "A coming deletion or expiry is counted down and warned of.",
    },
    "Revocation and suspension": {
        "R1": "A customer revokes in its own account, without us, and was told what that does.",
        "R2": "A revocation is found without events, and a dead watcher leaves nobody reading.",
        "R3": "Only a definite refusal suspends; outages and our own faults heal by themselves.",
        "R4": "A refusal that may mean something else has to last while our control probes are well.",
        "R5": "In a realm of two regions, every region has to refuse; one alone is degraded.",
        "R6": "A cut-off reaches every instance within the bound that was published.",
        "R7": "After the bound nothing is given out, cached keys and work under way included.",
        "R8": "The org admins get a ticket that says what happened and how to come back.",
        "R9": "Late, doubled, reordered, forged or lost messages change no outcome.",
    },
    "Restoration": {
        "S1": "Only an org admin asks for restoration, on the ticket of the revocation.",
        "S2": "What still refuses is named by region; a realm that lost a key for good can come back degraded.",
        "S3": "The windows count from the cut-off and are shown; a lapse deletes nothing.",
        "S4": "Access comes back for everybody, and the ticket ends with what was lost.",
        "S5": "A restoration has a due date, and takes minutes.",
        "S6": "A key that is lost again on the way back means suspended again.",
        "S7": "A mistake is undone by two agents together; each cause is lifted by its own rule.",
    },
    "Re-encryption": {
        "X1": "On request everything moves to new keys, and the old ones open none of it.",
        "X2": "A job shows how far it is, pauses, resumes and, for a while, can be called off.",
        "X3": "No loss in the middle leaves anything unreadable or in doubt.",
        "X4": "A ledger says what still needs the old key, backups included.",
        "X5": "Each stage of a job is told of.",
        "X6": "A BYOK organisation can become a CMK one.",
    },
    "Invariants": {
        "I1": "After a fence closed, no key of the organisation is used later than the bound, in any process.",
        "I2": "Throttling, timeouts, outages and our faults suspend nobody.",
        "I3": "A refusal everywhere ends in suspended whatever becomes of events; nothing unwatched stays readable.",
        "I4": "A decision leaves one fact, and its effects have the outcome of having happened once.",
        "I5": "A fence opens only when every cause was lifted by the one who may.",
        "I6": "At every instant each record has a known data key under a known regional key.",
        "I7": "Nothing of one organisation is reached by another, and no key is enrolled that is not its own.",
        "I8": "A write that was acknowledged stays.",
    },
}
IDS = {rule.lower() for rules in RULES.values() for rule in rules}

RUST_MARK = re.compile(r"#\[(?:\w+::)*(?:test|rstest)\b")
RUST_CASE = re.compile(r"#\[case::(\w+)")
RUST_FN = re.compile(r"\bfn\s+(\w+)\s*[(<]")
RUST_COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
PYTHON_TEST = re.compile(r"^\s*(?:async\s+)?def\s+test_(\w+)\s*\(", re.MULTILINE)


def rules_of(name: str) -> list[str]:
    """The rules that a name begins with: `e1_and_a1_the_plan...` begins with two."""
    found: list[str] = []
    for word in name.split("_"):
        if word in IDS:
            found.append(word.upper())
        elif word != "and" or not found:
            break
    return found


def tests_of_rust(text: str) -> Iterator[tuple[str, str]]:
    """Rule and name of every test and every named case that proves one."""
    text = RUST_COMMENT.sub("", text)
    for mark in RUST_MARK.finditer(text):
        function = RUST_FN.search(text, mark.end())
        if function is None:
            continue
        name = function.group(1)
        ignored = " (ignored)" if "#[ignore" in text[mark.start() : function.start()] else ""
        for rule in rules_of(name):
            yield rule, f"`{name}`{ignored}"
        for case in RUST_CASE.finditer(text, mark.end(), function.start()):
            for rule in set(rules_of(case.group(1))) - set(rules_of(name)):
                yield rule, f"`{name}::{case.group(1)}`{ignored}"


def tests_of_python(text: str) -> Iterator[tuple[str, str]]:
    for test in PYTHON_TEST.finditer(text):
        for rule in rules_of(test.group(1)):
            yield rule, f"`test_{test.group(1)}`"


def files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            parts = path.relative_to(root).parts
            if path.suffix in (".rs", ".py") and not any(part in SKIPPED or part[0] == "." for part in parts):
                yield path


def proofs(root: Path) -> dict[str, dict[str, list[str]]]:
    """Rule to file to tests."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in files(root):
        tests_of = tests_of_rust if path.suffix == ".rs" else tests_of_python
        for rule, test in tests_of(path.read_text(encoding="utf-8")):
            tests = found.setdefault(rule, {}).setdefault(path.relative_to(root).as_posix(), [])
            # A test has several marks: `#[rstest]` and `#[tokio::test]`.
            if test not in tests:
                tests.append(test)
    return found


def table(root: Path = ROOT) -> str:
    found = proofs(root)
    missing = [rule for rules in RULES.values() for rule in rules if rule not in found]
    count = sum(len(rules) for rules in RULES.values())
    lines = [
        "# Rules and the tests that prove them",
        "",
        f"Written by `{REMEDY}` from the names of the tests: one that proves a rule begins with the rule's id. Do not",
        "edit it. The sentences only remind of a rule; they do not replace it.",
        "",
        f"{count - len(missing)} of {count} rules have a test."
        + (f" None yet: {', '.join(missing)}." if missing else ""),
    ]
    for title, rules in RULES.items():
        lines += ["", f"## {title}", "", "| rule | in short | tests |", "|---|---|---|"]
        for rule, sentence in rules.items():
            tests = "<br>".join(
                f"[{path}](../{path}): {', '.join(names)}" for path, names in sorted(found.get(rule, {}).items())
            )
            lines.append(f"| {rule} | {sentence} | {tests or 'none yet'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="writes docs/RULES.md, the table of rules and tests")
    parser.add_argument("--check", action="store_true", help="only say whether the table is current")
    asked = parser.parse_args()
    wanted = table()
    if not asked.check:
        TABLE.write_text(wanted, encoding="utf-8")
        return 0
    if TABLE.exists() and TABLE.read_text(encoding="utf-8") == wanted:
        return 0
    print(f"error: docs/RULES.md is not what the tests say\n  help: run `{REMEDY}`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
