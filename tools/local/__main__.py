"""`python tools/local <command>`: the local cloud. See docs/LOCAL-CLOUD.md."""

import sys

from claviger_local.cli import main

sys.exit(main())
