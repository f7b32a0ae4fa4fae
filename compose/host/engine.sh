#!/usr/bin/env bash
# Makes sure that a container engine and Compose v2 answer.
#
# Where an engine answers already, nothing on the system is touched: a missing Compose goes into the
# user's own folder of Docker plug-ins. Where none answers, Debian's or Ubuntu's packages are installed
# (root or sudo), after saying so; LAB_NO_INSTALL=1 forbids that and says what to install by hand.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

COMPOSE_MIN=2.23.1 # first with inline `configs:` content
COMPOSE_SUITE=trixie # the first Debian release that packages Compose v2
PID_FILE=${LAB_DOCKER_PID_FILE:-/var/run/docker.pid}
DAEMON_LOG=${LAB_DOCKERD_LOG:-/var/log/dockerd.log}
START_LIMIT_S=60

engine_answers() { command -v docker >/dev/null && limited 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Captured first: in a pipe, docker's own failure would hide what grep found.
access_denied() {
    local text
    text=$(limited 20 docker version 2>&1 || true)
    [[ "$text" == *[Pp]"ermission denied"* ]]
}

compose_version() { limited 20 docker compose version --short 2>/dev/null | sed 's/^v//' || true; }

compose_suffices() {
    local version
    version=$(compose_version)
    [[ -n "$version" ]] && printf '%s\n' "$COMPOSE_MIN" "$version" | sort -V -C
}

# Reasons for which installing an engine would be wrong.
refuse_to_install() {
    if [[ -n "${DOCKER_HOST:-}" ]]; then
        die "the engine at DOCKER_HOST=$DOCKER_HOST does not answer" "start it, or unset DOCKER_HOST"
    fi
    local context
    context=$(docker context show 2>/dev/null || echo default)
    if [[ "$context" != default ]]; then
        die "the engine of the Docker context '$context' does not answer" \
            "start it (Docker Desktop, colima, …), or: docker context use default"
    fi
    if access_denied; then
        die "an engine is running, but this user may not use it" \
            "sudo usermod -aG docker $(id -un), then log in again"
    fi
}

install_engine() {
    local -a packages=(docker.io iptables)
    # Newer releases split the client off.
    if [[ -n "$(apt-cache show docker-cli 2>/dev/null)" ]] && ! command -v docker >/dev/null; then
        packages+=(docker-cli)
    fi
    if ! may_install; then
        die "no container engine answers, and LAB_NO_INSTALL=1 forbids installing one" \
            "install by hand: apt-get install ${packages[*]}" \
            "and Docker Compose >= $COMPOSE_MIN: docker-compose (Debian 13), docker-compose-v2 (Ubuntu)"
    fi
    apt_install "no container engine answers" "${packages[@]}"
}

# A pid file that a killed daemon (or a copied disk) left behind keeps dockerd from starting.
drop_stale_pid_file() {
    local pid
    [[ -e "$PID_FILE" ]] || return 0
    pid=$(cat "$PID_FILE" 2>/dev/null || true)
    if [[ -n "$pid" && "$(cat "/proc/$pid/comm" 2>/dev/null)" == dockerd ]]; then return 0; fi
    say "removing the stale $PID_FILE"
    as_root rm -f "$PID_FILE"
}

start_engine() {
    drop_stale_pid_file
    if [[ -d /run/systemd/system ]]; then
        say "starting docker with systemd"
        as_root systemctl start docker || true
    elif [[ -e "$PID_FILE" ]]; then
        say "a dockerd is running already: waiting for it"
    else
        say "starting dockerd (log: $DAEMON_LOG)"
        # shellcheck disable=SC2016  # expanded by the inner shell
        as_root bash -c 'setsid dockerd >>"$0" 2>&1 </dev/null &' "$DAEMON_LOG"
    fi
    local waited=0
    until engine_answers; do
        if ((waited >= START_LIMIT_S)); then
            as_root tail -n 10 "$DAEMON_LOG" >&2 2>/dev/null || true
            die "dockerd did not answer within $START_LIMIT_S s" "see $DAEMON_LOG, or: journalctl -u docker"
        fi
        open_socket
        sleep 1
        waited=$((waited + 1))
    done
}

# A group membership takes effect at the next login; until then, this user gets the socket's group.
open_socket() {
    [[ $(id -u) != 0 && -S /var/run/docker.sock ]] || return 0
    if access_denied; then
        say "giving $(id -un) access to the engine just installed"
        as_root usermod -aG docker "$(id -un)"
        as_root chown ":$(id -gn)" /var/run/docker.sock
    fi
}

# Fetches the package that holds Compose v2 into the current folder.
fetch_compose() {
    local package=docker-compose
    [[ $(os_id) == ubuntu ]] && package=docker-compose-v2
    if [[ $(os_id) == ubuntu ]] || newest_in_archive docker-compose; then
        apt-get -o Acquire::Retries=5 download -qq "$package" 2>/dev/null && return 0
        as_root apt-get -o Acquire::Retries=5 update -qq && apt-get -o Acquire::Retries=5 download -qq "$package" && return 0
        [[ $(os_id) == debian ]] || return 1
    fi
    # An older Debian: the same archive carries the release that has it.
    local uri
    uri=$(archive_uri main)
    [[ -n "$uri" ]] || return 1
    mkdir -p lists/partial cache/archives/partial
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$uri" "$COMPOSE_SUITE" >sources.list
    local -a options=(-qq -o Acquire::Retries=5 -o "Dir::Etc::SourceList=$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$PWD/lists" -o "Dir::Cache=$PWD/cache" -o APT::Sandbox::User=
        -o APT::Update::Post-Invoke-Success= -o APT::Update::Post-Invoke=)
    apt-get "${options[@]}" update && apt-get "${options[@]}" download "$package"
}

newest_in_archive() { # does this release's own package suffice?
    local candidate
    candidate=$(apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ {print $2}')
    [[ -n "$candidate" && "$candidate" != "(none)" ]] && printf '%s\n' "$COMPOSE_MIN" "${candidate#*:}" | sort -V -C
}

# Argument: system (installed as a package) or user (into the user's own plug-in folder).
get_compose() {
    local where=$1 by_hand="install Docker Compose >= $COMPOSE_MIN as a Docker CLI plug-in (docker-compose-plugin, docker-compose-v2)"
    may_install || die "Docker Compose >= $COMPOSE_MIN is missing, and LAB_NO_INSTALL=1 forbids installing" "$by_hand"
    case $(os_id) in debian | ubuntu) ;; *) die "Docker Compose >= $COMPOSE_MIN is missing" "$by_hand" ;; esac
    local scratch
    scratch=$(mktemp -d)
    # shellcheck disable=SC2064  # expanded now on purpose: the variable is local
    trap "rm -rf '$scratch'" EXIT
    say "Docker Compose >= $COMPOSE_MIN is missing: fetching it from this machine's package archive"
    (cd "$scratch" && fetch_compose) >"$scratch/log" 2>&1 || {
        tail -n 10 "$scratch/log" >&2
        die "Docker Compose could not be fetched" "$by_hand"
    }
    local -a debs=("$scratch"/*.deb)
    if [[ $where == system ]]; then
        say "installing it as a package"
        as_root dpkg -i "${debs[0]}" >"$scratch/log" 2>&1 || {
            tail -n 10 "$scratch/log" >&2
            die "dpkg could not install Docker Compose" "$by_hand"
        }
    else
        local plugins="${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins"
        say "placing it in $plugins (nothing else on the system is touched)"
        dpkg-deb -x "${debs[0]}" "$scratch/tree"
        mkdir -p "$plugins"
        find "$scratch/tree" -path '*/cli-plugins/docker-compose' -exec install -m 0755 {} "$plugins/docker-compose" \;
    fi
    compose_suffices || die "Docker Compose still does not answer: found '$(compose_version)'" "$by_hand"
}

main() {
    local where=user
    if ! engine_answers; then
        where=system
        refuse_to_install
        if ! command -v dockerd >/dev/null; then install_engine; fi
        if ! engine_answers; then
            may_install || die "no container engine answers, and LAB_NO_INSTALL=1 forbids starting one" \
                "start it by hand: sudo systemctl start docker"
            start_engine
        fi
    fi
    if ! compose_suffices; then get_compose "$where"; fi
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then main "$@"; fi
