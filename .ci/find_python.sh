#!/bin/sh
# Usage: find_python.sh VERSION...        (for instance: find_python.sh 3.11 3.9)
#
# Prints the path of an interpreter of the first VERSION that really runs and can
# make a virtual environment. It looks on PATH and among pyenv's versions; where
# there is none, it has uv (https://docs.astral.sh/uv) download the first VERSION
# into .venv-uv. Where that fails too, it says so in one line and exits with 1.

uv_directory=$(dirname "$0")/../.venv-uv

say() {
    printf '%s\n' "$*" >&2
}

# candidates VERSION: where an interpreter of VERSION may lie, one path a line.
candidates() {
    printf '%s\n' "$PATH" | tr ':' '\n' | while IFS= read -r directory; do
        printf '%s\n' "$directory/python$1" "$directory/python3"
    done
    printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python
}

# usable PYTHON VERSION: prints the interpreter behind PYTHON if it runs, is of
# VERSION and can make a virtual environment. It is resolved, so that neither a
# shim nor an environment about to be remade becomes the base of a new one.
usable() {
    [ -x "$1" ] || return 1
    found=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || {
        say "passing over $1: it does not run"
        return 1
    }
    [ "$found" = "$2" ] || return 1
    "$1" -c 'import ensurepip, os, sys, venv
print(os.path.realpath(sys.executable))' 2>/dev/null || {
        say "passing over $1: it lacks venv or ensurepip (on Debian: python$2-venv)"
        return 1
    }
}

# download VERSION: has uv download an interpreter and prints its path.
download() {
    command -v uv >/dev/null || {
        python3 -m venv "$uv_directory" &&
            "$uv_directory/bin/python" -m pip install --quiet uv
    } >/dev/null 2>&1 || return 1
    PATH=$PATH:$uv_directory/bin
    # Nothing outside the repository is touched: no link in ~/.local/bin either.
    export UV_PYTHON_INSTALL_DIR="$uv_directory/pythons" UV_PYTHON_INSTALL_BIN=0
    export UV_PYTHON_PREFERENCE=only-managed
    uv python install --quiet "$1" 2>/dev/null && uv python find "$1"
}

for version; do
    candidates "$version" | while IFS= read -r candidate; do
        usable "$candidate" "$version" </dev/null && break
    done | grep . && exit
done
say "found no Python $* that runs; asking uv for Python $1"
download "$1" && exit
say "error: no Python $* runs here and uv could not download $1 (is there a" \
    "network?); install one of them with its venv module and run this again"
exit 1
