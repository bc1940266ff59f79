# Shared by the scripts in this directory; sourced, never run. POSIX sh.

# One line to the person at the terminal.
say() {
    printf '%s\n' "vmrun setup: $*" >&2
}

# The last line, and the end: what is wrong, then what to do about it.
die() {
    say "$1"
    [ $# -lt 2 ] || say "  -> $2"
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Whether this user may become root without being stuck at a prompt that nobody sees.
can_be_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    have sudo || return 1
    sudo -n true 2>/dev/null || [ -t 0 ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -- "$@"
    fi
}

can_apt() {
    have apt-get && can_be_root
}

# Installs Debian packages; the index is fetched only when the first attempt does not find what it needs.
apt_install() {
    say "installing from the distribution: $*"
    apt_get install "$@" >/dev/null 2>&1 && return 0
    apt_get update >/dev/null || say "apt-get update failed; trying with the index that is there"
    apt_get install "$@" >/dev/null
}

apt_get() {
    verb=$1
    shift
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends "$verb" "$@"
}
