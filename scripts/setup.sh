# shellcheck shell=bash
# Sourced by scripts/test and scripts/demo: the virtual environment .venv and what is installed in it.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

# An environment that the caller has set up for another Python must not reach ours.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

heading() { printf '\n== %s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit "${2:-1}"
}

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer on PATH (python3 is $(python3 --version 2>&1 || true)): install one"
}

# Its Python runs, and it was made in this place: the commands in it hold their own absolute path.
venv_is_usable() {
    "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        grep -qsF "$venv/bin/python" "$venv/bin/pip"
}

make_venv() {
    # `venv --clear` would empty what it points to.
    [[ ! -L $venv ]] || fail "$venv is a symbolic link: remove it first"
    local python
    if ! venv_is_usable; then
        python=$(find_python)
        heading "making .venv with $("$python" --version)"
        "$python" -m venv --clear "$venv" ||
            fail "cannot make .venv: Python's venv module is incomplete (Debian, Ubuntu: apt-get install python3-venv)"
    fi
}

# install_package EXTRA [REQUIREMENT...]: the package, editable, with one of its extras, unless pyproject.toml is what
# it was when that was done last. `dev` holds all the other extras.
install_package() {
    local extra=$1 checksum stamp
    shift
    make_venv
    checksum=$(sha256sum <"$root/pyproject.toml")
    for stamp in "$venv/installed-$extra" "$venv/installed-dev"; do
        if [[ -f $stamp && $(<"$stamp") == "$checksum" ]]; then
            return
        fi
    done
    heading "installing jararaca-ws[$extra] into .venv"
    (cd -- "$root" && "$venv/bin/python" -m pip install -qq --editable ".[$extra]" "$@") ||
        fail "pip could not install jararaca-ws[$extra]: see above"
    printf '%s\n' "$checksum" >"$venv/installed-$extra"
}
