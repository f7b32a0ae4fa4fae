#!/bin/bash
# Installs secrets, makes the list of users from their SCRAM secrets and runs PgBouncer as postgres; a command,
# where one is given, instead.
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
install -d -m 0700 -o postgres -g postgres /run/lab
for file in /run/secrets/*.crt /run/secrets/*.key; do
    [[ ! -f $file ]] || install -m 0400 -o postgres -g postgres "$file" "/run/lab/${file##*/}"
done
install -m 0600 -o postgres -g postgres /dev/null /run/lab/userlist.txt
for file in /run/secrets/verifier_*; do
    printf '"%s" "%s"\n' "${file##*/verifier_}" "$(<"$file")"
done >/run/lab/userlist.txt
exec setpriv --reuid postgres --regid postgres --init-groups pgbouncer /etc/lab/pgbouncer.ini
