#!/bin/sh
# Installs the servers and the browser that the tests start, from the distribution's packages, where they are
# missing and this user may. Where not, the tests that need them are skipped and say so.
. "$(dirname "$0")/../packages.sh"
needs postgresql postgres /usr/lib/postgresql/*/bin/postgres
needs redis-server valkey-server redis-server
needs nginx nginx
needs "chromium fonts-noto-core" chromium
needs prometheus prometheus
needs prometheus-alertmanager prometheus-alertmanager
needs faketime faketime
needs iproute2 ip
install_missing "the tests that need them are skipped"
