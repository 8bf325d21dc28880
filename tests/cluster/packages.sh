#!/bin/sh
# Installs the servers and the browser that the tests start, from the distribution's packages, where they are
# missing and this user may. Where not, the tests that need them are skipped and say so.
set -eu
PATH=$PATH:/usr/sbin
packages=
[ -n "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null || command -v postgres)" ] || packages=" postgresql"
command -v valkey-server >/dev/null || command -v redis-server >/dev/null || packages="$packages redis-server"
command -v nginx >/dev/null || packages="$packages nginx"
command -v chromium >/dev/null || packages="$packages chromium fonts-noto-core"
command -v prometheus >/dev/null || packages="$packages prometheus"
command -v prometheus-alertmanager >/dev/null || packages="$packages prometheus-alertmanager"
command -v faketime >/dev/null || packages="$packages faketime"
command -v ip >/dev/null || packages="$packages iproute2"
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed, and this user cannot install:$packages (the tests that need them are skipped)"
    exit 0
fi
echo "Installing for the tests:$packages"
# The tests start servers of their own: no database for the machine, and no service is started.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
fi
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null
