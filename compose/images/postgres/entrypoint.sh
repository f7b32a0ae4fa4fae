#!/bin/bash
# Installs secrets for postgres, then runs runit's services until it is told to stop.
#
# PID 1 is the engine's init; runsvdir below it outlives Patroni and PostgreSQL, so that either can be killed or
# stopped alone (`sv down patroni`). SIGTERM stops Patroni, which stops PostgreSQL, before the node goes.
set -euo pipefail

(($# == 0)) || exec "$@"

# Secrets come as one file of "@name" lines and values: taken apart once, for root only, but for the CA.
if [[ -f /etc/lab/secrets ]]; then
    install -d -m 0755 /run/secrets
    (umask 077 && awk '/^@/ {file = "/run/secrets/" substr($0, 2); line = ""; next}
        {printf "%s%s", line, $0 > file; line = "\n"}' /etc/lab/secrets)
    [[ ! -f /run/secrets/ca.crt ]] || chmod 0444 /run/secrets/ca.crt
    rm /etc/lab/secrets
fi
ulimit -n "$(ulimit -Hn)"

install -d -m 0700 -o postgres -g postgres /run/lab /var/lib/postgresql/evidence
install -d -m 2775 -o postgres -g postgres /run/postgresql
for file in /run/secrets/*; do
    [[ ! -f $file ]] || install -m 0400 -o postgres -g postgres "$file" "/run/lab/${file##*/}"
done

install -d /opt/lab/bin
for file in pg_rewind bootstrap.sh; do
    [[ ! -f /etc/lab/$file ]] || install -m 0555 "/etc/lab/$file" "/opt/lab/bin/$file"
done
# One service: `patroni`, or where nothing manages PostgreSQL `postgres`, with a way to stop it of its own.
for file in /etc/lab/*.run; do
    service=/etc/service/$(basename "$file" .run)
    install -D -m 0555 "$file" "$service/run"
    [[ ! -f ${file%.run}.stop ]] || install -D -m 0555 "${file%.run}.stop" "$service/control/t"
done

export SVDIR=/etc/service
runsvdir -P "$SVDIR" &
runsvdir=$!
trap 'sv -w 25 force-stop "$SVDIR"/* || true; kill "$runsvdir"' TERM INT
wait "$runsvdir" || true
wait
