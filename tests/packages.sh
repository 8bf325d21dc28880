# Sourced by the packages.sh of a folder of tests: notes which of the distribution's packages are missing,
# and installs them where this user may.
set -eu
PATH=$PATH:/usr/sbin
packages=

# needs PACKAGES COMMAND...: unless one of the commands is there
needs() {
    wanted=$1
    shift
    for one; do
        if command -v "$one" >/dev/null; then return; fi
    done
    packages="$packages $wanted"
}

# install_missing OTHERWISE: what becomes of the tests where this user may not
install_missing() {
    [ -n "$packages" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Not installed, and this user cannot install:$packages ($1)"
        return 0
    fi
    echo "Installing for the tests:$packages"
    # The tests start servers of their own: neither a database nor any service for the machine.
    case $packages in *postgresql*)
        if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            mkdir -p /etc/postgresql-common
            echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
        fi ;;
    esac
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $packages >/dev/null
}
