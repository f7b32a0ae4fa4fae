#!/bin/bash
# Runs etcd as its own user; a command, where one is given, instead.
set -euo pipefail

(($# == 0)) || exec "$@"

install -d -m 0700 -o etcd -g etcd /var/lib/etcd /var/lib/etcd/lab
exec setpriv --reuid etcd --regid etcd --init-groups etcd --config-file /etc/lab/etcd.yml
