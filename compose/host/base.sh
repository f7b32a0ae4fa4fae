#!/usr/bin/env bash
# Makes sure that the engine has a base image: base.sh <suite> [<image>]
#
# Pulled where a registry answers; else made by mmdebstrap from the machine's own package archive and
# imported under the same name, so that the Dockerfiles are the same either way.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PULL_LIMIT_S=300

# The lines of sources.list for a Debian suite; empty where this machine knows no Debian archive, in
# which case mmdebstrap takes its own default.
sources() {
    local suite=$1 main security
    [[ $(os_id) == debian ]] || return 0
    main=$(archive_uri main)
    [[ -n "$main" ]] || return 0
    printf 'deb %s %s main\n' "$main" "$suite"
    security=$(archive_uri security)
    if [[ -n "$security" ]]; then printf 'deb %s %s-security main\n' "$security" "$suite"; fi
}

make_base() {
    local suite=$1 image=$2 lines tar log
    local -a options=(--variant=minbase --mode=auto --aptopt='Acquire::Retries "5"'
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*/LC_MESSAGES/*.mo'
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright')
    lines=$(sources "$suite")
    if [[ "$lines" == *https:* ]]; then
        # Packages over HTTPS need certificates in the image too; the host's bundle may hold a company's.
        options+=(--include=ca-certificates)
        local bundle
        for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt; do
            if [[ -n "$bundle" && -s "$bundle" ]]; then
                options+=("--customize-hook=upload $bundle /etc/ssl/certs/ca-certificates.crt")
                break
            fi
        done
    fi
    if [[ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || ! command -v mmdebstrap >/dev/null; then
        local -a missing=(mmdebstrap)
        [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || missing+=(debian-archive-keyring)
        apt_install "no registry answers, so the base image has to be made here" "${missing[@]}"
    fi
    say "making $image with mmdebstrap"
    tar=$(mktemp --suffix=.tar)
    log=$(mktemp)
    # shellcheck disable=SC2064  # expanded now on purpose: the variables are local
    trap "rm -f '$tar' '$log'" EXIT
    if [[ -n "$lines" ]]; then
        as_root mmdebstrap "${options[@]}" "$suite" - - <<<"$lines" >"$tar" 2>"$log" || failed "$suite" "$log"
    else
        as_root mmdebstrap "${options[@]}" "$suite" >"$tar" 2>"$log" || failed "$suite" "$log"
    fi
    docker import --change 'CMD ["bash"]' "$tar" "$image" >/dev/null
}

failed() { # suite, log
    tail -n 15 "$2" >&2
    die "mmdebstrap could not make Debian $1" \
        "check that this machine's package archive carries Debian $1, or that the engine reaches a registry"
}

main() {
    local suite=${1:?usage: base.sh <suite> [<image>]} image=${2:-debian:$1-slim}
    if docker image inspect "$image" >/dev/null 2>&1; then return 0; fi
    say "pulling $image"
    if limited "$PULL_LIMIT_S" docker pull -q "$image" >/dev/null 2>&1; then return 0; fi
    say "no registry gave $image"
    make_base "$suite" "$image"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then main "$@"; fi
