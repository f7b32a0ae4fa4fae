#!/bin/bash
# Runs Toxiproxy as its own user, with the options given; a command, where one is given, as it is.
set -euo pipefail

[[ ${1:-} == -* ]] || exec "$@"
exec setpriv --reuid toxiproxy --regid toxiproxy --init-groups toxiproxy-server "$@"
