#!/bin/sh
# Makes an environment: the core with all its extras and every plugin of the workspace, editable from their own pyproject.toml, and
# the development tools, all in one resolution, so that torch and what is compiled against it always fit together.
#   sh scripts/setup.sh          .venv, with the versions of constraints.txt
#   sh scripts/setup.sh lowest   .cache/lowest, with the lowest Python at hand and the lowest versions of what pyproject.toml names
#   sh scripts/setup.sh newest   .cache/newest, with the newest Python at hand and the newest versions of everything
# Further arguments go to the installer: sh scripts/setup.sh --group bench
set -eu
cd "$(dirname "$0")/.."

end=
venv=.venv
case "${1:-}" in
lowest | newest)
    end=$1
    venv=.cache/$1
    shift
    ;;
esac

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

# The supported Pythons at hand, the newest first. uv looks on PATH, where pyenv shows no more than its active versions.
pythons() {
    for bin in "$(dirname "$interpreter")" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin; do
        PATH=$PATH:$bin
    done
    "$uv" python list --only-installed '>=3.10' 2>/dev/null | awk '/^cpython-3[.][0-9.]+-/ && !/shims/ { print $2 }'
}

case "$end" in
lowest)
    interpreter=$(pythons | tail -n 1)
    set -- --resolution lowest-direct "$@"
    ;;
newest) interpreter=$(pythons | head -n 1) ;;
*) set -- --constraints constraints.txt "$@" ;;
esac

# Made anew each time: what an earlier resolution left could stand in for a requirement that nobody declares.
[ -z "$end" ] || rm -rf "$venv"
if ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    "$uv" venv --quiet --python "$interpreter" "$venv"
fi

python=$("$venv/bin/python" --version)
case "$end/$python" in
lowest/"Python 3.10."*) ;;
lowest/*) echo "setup: Python 3.10, the lowest supported one, is not at hand: $python stands in for it, which proves less" ;;
esac

# Where Python is told to keep no compiled modules, each start would compile torch's and timm's anew, for seconds.
[ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || set -- --compile-bytecode "$@"

set -- --editable ".[audit,datasets,lora,multitask,plots,slurm,tables,tune]" "$@"
for project in plugins/*/pyproject.toml; do
    [ -f "$project" ] && set -- --editable "$(dirname "$project")" "$@"
done
echo "setup: installing into $venv with $python (once; torch alone is several gigabytes on Linux)"
"$uv" pip install --python "$venv/bin/python" --group dev "$@"
