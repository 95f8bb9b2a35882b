#!/bin/sh
# Makes .venv: the core and every plugin of the workspace, editable from their own pyproject.toml, and the development tools,
# all in one resolution within constraints.txt, so that torch and what is compiled against it always fit together.
# Further arguments go to the installer: sh scripts/setup.sh --group bench
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $1" >&2
    exit 1
}

# The path of a real interpreter: a version manager's shim confuses uv.
interpreter=$("${PYTHON:-python3}" -c '
import sys
if sys.version_info < (3, 10):
    sys.exit("setup: zoo needs Python 3.10 or newer and %s is %s; name another one, for example: make PYTHON=python3.12 demo" % (sys.executable, sys.version.split()[0]))
print(sys.executable)') || fail "no usable Python behind '${PYTHON:-python3}'"

# uv from PATH if it is new enough for what is asked of it below, else a private one.
usable() {
    "$1" pip install --help 2>/dev/null | grep -q -e --group
}
uv=uv
if ! usable "$uv"; then
    uv=.cache/uv/bin/uv
    if ! usable "$uv"; then
        echo "setup: installing uv into .cache/uv"
        rm -rf .cache/uv
        # Some distributions split venv or pip off their Python; either one is enough.
        if "$interpreter" -m venv .cache/uv >/dev/null 2>&1; then
            .cache/uv/bin/python -m pip install --quiet uv || fail "uv could not be installed; is the package index reachable?"
        else
            rm -rf .cache/uv
            "$interpreter" -m pip install --quiet --target .cache/uv uv ||
                fail "this Python has neither 'venv' nor 'pip'; install one of them (on Debian: apt install python3-venv) or put uv on PATH"
        fi
    fi
fi

if ! .venv/bin/python -c '' 2>/dev/null; then
    rm -rf .venv
    "$uv" venv --quiet --python "$interpreter" .venv
fi

set -- --editable . "$@"
for project in plugins/*/pyproject.toml; do
    [ -f "$project" ] && set -- --editable "$(dirname "$project")" "$@"
done
echo "setup: installing into .venv (once; torch alone is several gigabytes on Linux)"
"$uv" pip install --python .venv/bin/python --constraints constraints.txt --group dev "$@"
