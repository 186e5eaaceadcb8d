"""The DynamoDB store against the one in memory, once on ministack as well as on the embedded DynamoDB."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from claviger_local import settings
from emulators import kept_in, ministack


def test_the_store_behaves_on_ministack_as_in_memory(tmp_path: Path) -> None:
    with kept_in(tmp_path), ministack(tmp_path, "111111111111") as endpoint:
        command = ["cargo", "nextest", "run", "--workspace", "--locked", "--no-fail-fast"]
        only = ["-E", "package(claviger-aws) and test(memory_and_dynamodb_behave_alike)"]
        ran = subprocess.run(
            [*command, *only],
            cwd=settings.ROOT,
            env=os.environ | {"CLAVIGER_TEST_DYNAMODB": endpoint, "PROPTEST_CASES": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert "1 test run: 1 passed" in ran.stderr, ran.stderr[-2000:]
