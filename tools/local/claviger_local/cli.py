"""The commands: run, stop."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from types import FrameType

from claviger_local import cloud as local_cloud
from claviger_local import guard, settings, surroundings
from claviger_local.trouble import Trouble


class Interrupted(BaseException):
    """A signal asked us to end. Not an Exception: no step of the story may take it for its own failure."""


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # Once only: a second signal must not break off the cleaning up.
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise Interrupted


def run(stay: bool, story: bool) -> int:
    began = time.monotonic()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, _interrupt)
    guard.prctl(guard.PR_SET_PDEATHSIG, signal.SIGTERM)
    cloud = None
    try:
        cloud = local_cloud.up()
        failures = 0
        if story:
            from story import play

            failures = play(cloud)
        print(f"\n{'the story was played' if story else 'up'} in {time.monotonic() - began:.0f} s", flush=True)
        if stay:
            _stay(cloud)
        return 1 if failures else 0
    except Interrupted:
        print("\nending the local cloud", flush=True)
        return 130
    finally:
        if cloud is not None:
            cloud.down()


def _stay(cloud: local_cloud.Cloud) -> None:
    print(
        f"\n  API            {cloud.api}\n"
        f"  console        {cloud.api}/console\n"
        f"  notes app      {settings.NOTES_APP}\n"
        f"  customers' AWS {settings.CUSTOMER_AWS}\n"
        f"  vendor's AWS   {settings.VENDOR_AWS}\n"
        f"  all of it      . .local/env\n\n"
        f"up until Ctrl-C or `make stop`",
        flush=True,
    )
    while True:
        for service in cloud.services:
            if not service.alive():
                raise Trouble(f"{service.name} has ended", f"read {service.log}, then `make run` again")
        time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/local", description="The local cloud: docs/LOCAL-CLOUD.md.")
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="bring it up, play the story, stay up")
    runner.add_argument("--stay", choices=["0", "1"], default="1", help="0: end after the story")
    runner.add_argument("--story", choices=["0", "1"], default="1", help="0: only bring it up")
    commands.add_parser("stop", help="end the local cloud that is up")
    arguments = parser.parse_args()
    try:
        if arguments.command == "run":
            return run(arguments.stay == "1", arguments.story == "1")
        print("ended" if surroundings.stop_running() else "nothing was up")
        return 0
    except Trouble as trouble:
        print(f"error: {trouble}\n  help: {trouble.remedy}", file=sys.stderr)
        return 1
