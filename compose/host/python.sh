#!/usr/bin/env bash
# Makes the virtual environment from the lock: python.sh <venv> <lock>
#
# Every package is checked against the lock's hashes. Does nothing where the environment was made from
# this very lock already.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [[ -n "$candidate" ]] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

make_venv() { # folder
    local python
    if ! python=$(find_python); then
        apt_install "Python >= 3.11 is missing" python3 python3-venv
        python=$(find_python) || die "Python >= 3.11 is missing, this release has an older one" \
            "install a newer Python and set PYTHON=/path/to/python3"
    fi
    # Debian splits ensurepip off into python3-venv.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        apt_install "Python's venv module is missing" python3-venv
    fi
    "$python" -m venv "$1"
}

hash_of() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }

main() {
    local venv=${1:?usage: python.sh <venv> <lock>} lock=${2:?usage: python.sh <venv> <lock>} here stamp
    here=$(dirname "${BASH_SOURCE[0]}")
    stamp=$(cat "$lock" "$here/uv.lock" pyproject.toml | hash_of)
    if [[ -x "$venv/bin/lab" && "$(cat "$venv/.lock" 2>/dev/null)" == "$stamp" ]]; then return 0; fi
    if [[ ! -x "$venv/bin/pip" ]] || ! "$venv/bin/python" -c '' 2>/dev/null; then
        say "making $venv"
        rm -rf "$venv"
        make_venv "$venv"
    fi
    say "installing the Python packages of $lock"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    # Compiled once here: else every command compiles for seconds where Python may not write next to its modules.
    # uv is ten times faster, but knows nothing of pip's configuration (private indexes): pip is the way out.
    if ! { "$venv/bin/pip" install -q --retries 5 --require-hashes -r "$here/uv.lock" &&
        VIRTUAL_ENV="$PWD/$venv" "$venv/bin/uv" pip install -q --compile-bytecode --require-hashes -r "$lock"; } 2>/dev/null; then
        "$venv/bin/pip" install -q --retries 5 --require-hashes -r "$lock" ||
            die "pip could not install the packages of $lock" "see above; behind a proxy set HTTPS_PROXY, with own certificates PIP_CERT"
    fi
    "$venv/bin/pip" install -q --retries 5 --no-deps --editable .
    printf '%s\n' "$stamp" >"$venv/.lock"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then main "$@"; fi
