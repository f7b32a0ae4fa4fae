#!/bin/bash
# Runs HAProxy, which drops its privileges itself; a command, where one is given, instead.
set -euo pipefail

(($# == 0)) || exec "$@"

ulimit -n "$(ulimit -Hn)"
install -d -m 0755 -o haproxy -g haproxy /run/haproxy
# While it runs, HAProxy prints on standard error what it logs anyway: kept out, so that nothing stands twice.
exec haproxy -W -db -f /etc/lab/haproxy.cfg 2> >(exec grep --line-buffered -v '^\[\(WARNING\|NOTICE\)\]' >&2)
