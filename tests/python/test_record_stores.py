"""The stores of re-encryption on ministack: tables of DynamoDB, and buckets of S3, which nothing here embeds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from claviger_local import settings
from emulators import kept_in, ministack


def test_i8_tables_and_buckets_are_rewritten_conditionally_on_ministack(tmp_path: Path) -> None:
    with kept_in(tmp_path), ministack(tmp_path, "111111111111") as endpoint:
        command = ["cargo", "nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--test", "stores"]
        ran = subprocess.run(
            [*command, "--run-ignored", "all"],
            cwd=settings.ROOT,
            env=os.environ | {"CLAVIGER_TEST_DYNAMODB": endpoint, "CLAVIGER_TEST_S3": endpoint},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert "8 tests run: 8 passed" in ran.stderr, ran.stderr[-2000:]
