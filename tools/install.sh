#!/usr/bin/env bash
# Makes the environment that every target runs in: a virtual environment with the hash-locked packages of
# requirements/, and this repository's own packages installed in place. Needs python3 >= 3.11 with its venv module.
# Nothing is done, and no network is touched, when the environment already matches the locks.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=${PYTHON:-python3}
stamp=$venv/.installed

say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$@" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is not on the PATH; install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; Python 3.11 or newer is needed (choose one with PYTHON=/path/to/python3.12)"

# One installation at a time: two targets started together would otherwise write the same environment.
if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock 9
fi

packages=$(find libs services gateway deploy -mindepth 2 -maxdepth 2 -name pyproject.toml -exec dirname {} \; 2>/dev/null | sort)
[ -n "$packages" ] || fail "no package with a pyproject.toml below libs, services, gateway and deploy"

# The interpreter and the place decide whether the environment can be kept; the locks and our package files whether it is up to date.
place="$PWD $("$python" -c 'import os, sys; print(os.path.realpath(sys.base_prefix), sys.version.split()[0])')"
content=$(for file in requirements/bootstrap.lock requirements/dev.lock $(printf '%s/pyproject.toml\n' $packages); do
    printf '%s\n' "$file"; cat "$file"; done | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')

compile_own() {
    # Written even where PYTHONDONTWRITEBYTECODE is set: seven processes that each compile at start take three times as long to come up.
    local sources=()
    for package in $packages; do if [ -d "$package/src" ]; then sources+=("$package/src"); fi; done
    PYTHONDONTWRITEBYTECODE='' "$venv/bin/python" -m compileall -q -j 0 "${sources[@]}"
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$place"$'\n'"$content" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    compile_own
    exit 0
fi

if [ ! -f "$stamp" ] || [ "$(head -n 1 "$stamp")" != "$place" ] || [ ! -x "$venv/bin/uv" ]; then
    say "creating $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
        "this Python has no venv or ensurepip module; install it first:" \
        "  Debian, Ubuntu:  apt-get install python3-venv" \
        "  or choose another Python:  make install PYTHON=/path/to/python3"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-input --require-hashes -r requirements/bootstrap.lock
fi
rm -f "$stamp"

say "installing the locked packages"
uv=$venv/bin/uv
export VIRTUAL_ENV="$PWD/$venv"
case $venv in /*) VIRTUAL_ENV=$venv ;; esac
"$uv" pip sync --quiet --require-hashes --compile-bytecode requirements/bootstrap.lock requirements/dev.lock

say "installing our own packages in place"
editables=()
for package in $packages; do editables+=(-e "$package"); done
"$uv" pip install --quiet --offline --no-deps --no-build-isolation "${editables[@]}"
compile_own
printf '%s\n%s\n' "$place" "$content" >"$stamp"
say "done: $venv"
