"""The table of rules and tests is what the tests say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import rules  # noqa: E402


def test_the_table_of_rules_is_current() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "tools" / "rules.py", "--check"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_there_are_as_many_rules_as_the_specification_has() -> None:
    counts = {"E": 12, "A": 10, "K": 4, "R": 9, "S": 7, "X": 6, "I": 8}
    wanted = {f"{letter.lower()}{number}" for letter, most in counts.items() for number in range(1, most + 1)}
    assert wanted == rules.IDS


@pytest.mark.parametrize(
    ("name", "proves"),
    [
        ("e4_of_fifty_enrolments_one_wins", ["E4"]),
        ("e1_and_a1_the_plan_allows_it", ["E1", "A1"]),
        ("the_e4_rule_is_named_too_late", []),
        ("e40_is_no_rule", []),
        ("and_e4_begins_with_a_word", []),
    ],
)
def test_a_test_proves_the_rules_that_its_name_begins_with(name: str, proves: list[str]) -> None:
    assert rules.rules_of(name) == proves


RUST = """
#[test]
fn i1_is_proven() {}

fn i2_is_a_helper() {}

// #[test]
// fn i3_is_commented_out() {}

#[rstest]
#[case::e5_eleven_digits("1")]
#[case::missing(
    "2")]
#[tokio::test(flavor = "multi_thread")]
async fn i4_has_cases<T>(#[case] text: &str) {}

#[test]
#[ignore = "it takes an hour"]
fn i6_is_slow() {}
"""


def test_rust_tests_and_cases_are_found_and_helpers_are_not() -> None:
    assert sorted(set(rules.tests_of_rust(RUST))) == [
        ("E5", "`i4_has_cases::e5_eleven_digits`"),
        ("I1", "`i1_is_proven`"),
        ("I4", "`i4_has_cases`"),
        ("I6", "`i6_is_slow` (ignored)"),
    ]


def test_python_tests_are_found() -> None:
    text = "def test_r2_a_dead_watcher() -> None: ...\ndef r3_no_test(): ...\n    async def test_r8_x(self): ...\n"
    assert list(rules.tests_of_python(text)) == [
        ("R2", "`test_r2_a_dead_watcher`"),
        ("R8", "`test_r8_x`"),
    ]
