#!/bin/sh
# What a machine must bring: says which of it is missing and how to get it, one line each.
python=${1:-python3}
failed=0

missing() {
    echo "error: $1 is missing" >&2
    echo "  help: $2" >&2
    failed=1
}

command -v cargo >/dev/null 2>&1 || missing "Rust" "install rustup; rust-toolchain.toml then chooses the version"
command -v cc >/dev/null 2>&1 || missing "a C compiler" "Debian: apt-get install gcc"
command -v strip >/dev/null 2>&1 || missing "\`strip\`" "Debian: apt-get install binutils"
if ! command -v "$python" >/dev/null 2>&1; then
    missing "Python" "Debian: apt-get install python3 python3-venv; or PYTHON=... make ..."
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    missing "Python 3.11 or later (\`$python\` is older)" "name a newer one: PYTHON=python3.11 make ..."
elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    missing "Python's venv" "Debian: apt-get install python3-venv"
fi
exit $failed
