#!/bin/sh
# Installs Debian's container engine and what makes base images without a registry, where they are
# missing and this user may. Where not, the tests that need them are skipped and say so.
set -eu
PATH=$PATH:/usr/sbin
packages=
[ -x /usr/sbin/dockerd ] && [ -x /usr/bin/docker ] || packages=" docker.io"
command -v iptables >/dev/null || packages="$packages iptables"
[ -x /usr/bin/docker-init ] || command -v tini-static >/dev/null || packages="$packages tini"
command -v mmdebstrap >/dev/null || packages="$packages mmdebstrap"
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed, and this user cannot install:$packages (make container-test skips)"
    exit 0
fi
echo "Installing for the container test:$packages"
# The test starts an engine of its own: no engine for the machine.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null
