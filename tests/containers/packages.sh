#!/bin/sh
# Installs Debian's container engine and what makes base images without a registry, where they are
# missing and this user may. Where not, the tests that need them are skipped and say so.
. "$(dirname "$0")/../packages.sh"
# The distribution's own: others' engines may lie in front of them in PATH.
needs docker.io /usr/sbin/dockerd
needs docker.io /usr/bin/docker
needs iptables iptables
needs tini /usr/bin/docker-init tini-static
needs mmdebstrap mmdebstrap
install_missing "make container-test skips"
