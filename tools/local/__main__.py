"""`python tools/local <command>`: the local cloud. See docs/LOCAL-CLOUD.md."""

import signal
import sys


def _too_early(_signal: int, _frame: object) -> None:
    sys.exit("ended before anything was started")


# Before the imports: they take long enough for somebody to change their mind.
for _name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(_name, _too_early)

from claviger_local.cli import main  # noqa: E402

sys.exit(main())
