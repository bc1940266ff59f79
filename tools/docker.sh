#!/bin/sh
# Sees to it that a Docker Engine answers: uses the one that does, starts the one that is installed, or installs one.
#
# Leaves the engine running: stopping it is up to whoever owns the machine.
set -eu

cd "$(dirname -- "$0")/.."
. tools/lib.sh

#: Seconds that a started engine may take to answer.
limit=60
log=.cache/dockerd.log

answers() {
    have docker && docker info >/dev/null 2>&1
}

# Whether it answers before the limit; gives up at once when process $1 (if given) has ended.
wait_for_engine() {
    waited=0
    while ! answers; do
        [ "$waited" -lt "$limit" ] || return 1
        [ -z "${1:-}" ] || kill -0 "$1" 2>/dev/null || return 1
        sleep 1
        waited=$((waited + 1))
    done
}

# Only what is missing: an engine from another source stays as it is.
install_engine() {
    apt_install docker.io iptables ca-certificates ||
        die "apt-get could not install docker.io" "install Docker Engine by hand, then run make again"
    # From Debian 13 on the client is a package of its own.
    have docker || apt_install docker-cli || die "apt-get could not install docker-cli" "install the docker command by hand"
}

# The machines' base image is made by debootstrap where no registry can be reached.
ensure_debootstrap() {
    have debootstrap || ! can_apt || apt_install debootstrap || say "debootstrap could not be installed; images will come from a registry"
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting docker.service"
        systemctl start docker && wait_for_engine && return 0
        die "docker.service did not come up (it may take $limit s)" "journalctl -u docker tells why"
    fi
    say "starting dockerd (log: $log)"
    mkdir -p .cache
    # A session of its own, and none of our descriptors: it must outlive make, and not keep a pipe of make's open.
    setsid dockerd >"$log" 2>&1 </dev/null &
    wait_for_engine $! && return 0
    tail -n 20 "$log" >&2
    die "dockerd did not come up (it may take $limit s)" "the lines above are the end of $log"
}

if answers; then
    ensure_debootstrap
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    die "no Docker Engine answers, and this user may not start one" "start it (sudo systemctl start docker), join the group 'docker', or run this as root"
fi
if ! { have dockerd && have docker; }; then
    can_apt || die "Docker Engine is not installed, and this is not a Debian or Ubuntu machine" "install Docker Engine by hand, then run make again"
    install_engine
fi
ensure_debootstrap
start_engine
say "Docker Engine $(docker version --format '{{.Server.Version}}') answers"
