#!/bin/bash
# Installs secrets and runs Redis or Sentinel (`redis`, `sentinel`) as redis; any other command as it is.
#
# Both rewrite their configuration while they run (who is primary, epochs), so it is made once and kept when the
# node starts again.
set -euo pipefail

kind=${1:-}
[[ $kind == redis || $kind == sentinel ]] || exec "$@"

# Secrets come as one file of "@name" lines and values: taken apart once, for root only, but for the CA.
if [[ -f /etc/lab/secrets ]]; then
    install -d -m 0755 /run/secrets
    (umask 077 && awk '/^@/ {file = "/run/secrets/" substr($0, 2); line = ""; next}
        {printf "%s%s", line, $0 > file; line = "\n"}' /etc/lab/secrets)
    [[ ! -f /run/secrets/ca.crt ]] || chmod 0444 /run/secrets/ca.crt
    rm /etc/lab/secrets
fi
ulimit -n "$(ulimit -Hn)"
install -d -m 0700 -o redis -g redis /run/lab /var/lib/redis
for file in /run/secrets/*.crt /run/secrets/*.key; do
    [[ ! -f $file ]] || install -m 0400 -o redis -g redis "$file" "/run/lab/${file##*/}"
done

config=/var/lib/redis/$kind.conf
if [[ ! -s $config ]]; then
    password=$(</run/secrets/password_redis)
    install -m 0600 -o redis -g redis /dev/null "$config"
    {
        cat "/etc/lab/$kind.conf"
        printf 'requirepass "%s"\n' "$password"
        if [[ $kind == redis ]]; then
            printf 'masterauth "%s"\n' "$password"
        else
            service=$(awk '$1 == "sentinel" && $2 == "monitor" {print $3}' "/etc/lab/$kind.conf")
            printf 'sentinel auth-pass %s "%s"\nsentinel sentinel-pass "%s"\n' "$service" "$password" "$password"
        fi
    } >"$config"
fi
run=(setpriv --reuid redis --regid redis --init-groups)
if [[ $kind == redis ]]; then
    exec "${run[@]}" redis-server "$config"
fi
exec "${run[@]}" redis-sentinel "$config"
