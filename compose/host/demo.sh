#!/usr/bin/env bash
# From a fresh machine to a measured failover report: demo.sh <topology> <scenario> <trials>
#
# Ends with the path of the HTML report, and exits 0 once that exists, whatever its verdicts are. The lab
# is taken down on the way out, also after a failure or Ctrl-C; KEEP=1 leaves it up.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

LAB=.venv/bin/lab
LAB_NAME=demo # its own, so that no other lab of this topology is touched

# Minutes that the whole will take, by what this machine has already. Measured on 2 cores.
estimate() {
    local images
    if [[ ! -x "$LAB" ]] || ! command -v docker >/dev/null || ! images=$(limited 20 docker images -q 'pglab/postgres' 2>/dev/null) ||
        [[ -z "$images" ]]; then
        printf 'about 10 minutes: this machine has to be prepared first (next time: 4)'
    else
        printf 'about 4 minutes: this machine is prepared'
    fi
}

take_down() {
    local code=$?
    trap '' INT TERM # a second Ctrl-C must not leave half a lab
    trap - EXIT
    if [[ "${KEEP:-0}" == 1 ]]; then
        say "the lab stays up (KEEP=1): $LAB status --name $LAB_NAME; remove it with: $LAB down --name $LAB_NAME"
    elif [[ -x "$LAB" ]]; then
        say "taking the lab down"
        "$LAB" down --name "$LAB_NAME" >&2 || say "it could not be taken down: $LAB down --name $LAB_NAME"
    fi
    finish "$code"
}

REPORT=
finish() {
    if [[ -n "$REPORT" && -s "$REPORT" ]]; then
        printf '%s\n' "$REPORT"
        exit 0
    fi
    [[ "$1" != 0 ]] || exit 4
    exit "$1"
}

main() {
    local topology=${1:?usage: demo.sh <topology> <scenario> <trials>} scenario=${2:?} trials=${3:?} began code=0 before
    began=$SECONDS
    say "demo: $(basename "$scenario" .yaml) on $topology, $trials trials; $(estimate)"
    make setup
    before=$(readlink -f runs/latest 2>/dev/null || true)
    trap take_down EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    "$LAB" up "$topology" --name "$LAB_NAME"
    "$LAB" run "$scenario" --topology "$topology" --name "$LAB_NAME" --trials "$trials" || code=$?
    # 0 met, 1 not met, 2 undecided: each has a report. Anything else is no run.
    if ((code > 2)); then exit "$code"; fi
    local run
    run=$(readlink -f runs/latest 2>/dev/null || true)
    if [[ -z "$run" || "$run" == "$before" ]]; then die "the run left no record in runs/"; fi
    if [[ ! -s "$run/report/report.html" ]]; then "$LAB" report "$run" || code=$?; fi
    REPORT="$run/report/report.html"
    [[ -s "$REPORT" ]] || die "there is no report at $REPORT"
    say "done in $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
}

main "$@"
