# Shared by the scripts of this folder; sourced, not run.
# shellcheck shell=bash

say() { printf '%s\n' "==> $*" >&2; }

die() { # message, then what to do about it
    printf '%s\n' "error: $1" >&2
    shift
    local line
    for line in "$@"; do printf '%s\n' "hint:  $line" >&2; done
    exit 4
}

# Runs a command with a limit of seconds, where this system has the means (macOS has none).
limited() {
    if command -v timeout >/dev/null; then timeout "$@"; else shift && "$@"; fi
}

os_id() { # debian, ubuntu, or what else the machine says of itself
    (. /etc/os-release 2>/dev/null && printf '%s' "${ID:-unknown}") || printf 'unknown'
}

os_codename() {
    (. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}") || true
}

may_install() { [[ "${LAB_NO_INSTALL:-0}" != 1 ]]; }

# Runs a command as root: as it is, or with sudo.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed to run: $*" "run this as root, or install sudo"
    fi
}

# Installs packages after saying so. Arguments: why, packages …
apt_install() {
    local why=$1
    shift
    local by_hand="apt-get install $*"
    command -v apt-get >/dev/null || die "$why, and this is not Debian or Ubuntu" "install the equivalent of: $by_hand"
    may_install || die "$why, and LAB_NO_INSTALL=1 forbids installing" "install by hand: $by_hand"
    if [[ $(id -u) != 0 ]] && ! command -v sudo >/dev/null; then
        die "$why, and installing needs root" "as root: $by_hand"
    fi
    say "$why: installing with apt: $*"
    local log
    log=$(mktemp)
    if ! { as_root apt-get -o Acquire::Retries=5 update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=5 install -y -qq \
            --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        die "apt could not install: $*" "see the lines above; by hand: $by_hand"
    fi
    rm -f "$log"
}

# The machine's own package archive, read from what apt is configured with: "<URI>" of the main
# archive (argument "main") or of the security archive ("security"). Prints nothing where there is none.
archive_uri() {
    local codename suite
    codename=$(os_codename)
    suite=$codename
    [[ "${1:-}" == security ]] && suite="$codename-security"
    command -v apt-get >/dev/null && [[ -n "$codename" ]] || return 0
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite="$suite" '$2 == suite && $3 == "main" && $1 ~ /^https?:/ {sub("/$", "", $1); print $1; exit}'
}
