#!/bin/bash
# Waits until load or probes are started in it; a command, where one is given, instead.
set -euo pipefail

# Secrets come as one file of "@name" lines and values: taken apart once, for root only, but for the CA.
if [[ -f /etc/lab/secrets ]]; then
    install -d -m 0755 /run/secrets
    (umask 077 && awk '/^@/ {file = "/run/secrets/" substr($0, 2); line = ""; next}
        {printf "%s%s", line, $0 > file; line = "\n"}' /etc/lab/secrets)
    [[ ! -f /run/secrets/ca.crt ]] || chmod 0444 /run/secrets/ca.crt
    rm /etc/lab/secrets
fi
ulimit -n "$(ulimit -Hn)"

(($# == 0)) || exec "$@"
exec sleep infinity
