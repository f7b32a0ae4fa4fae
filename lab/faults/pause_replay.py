"""A replica stops replaying: SIGSTOP of the process that replays. It receives on; its readers see the past.

Not ``pg_wal_replay_pause``: Patroni resumes such a pause in its next loop (it takes it for a parameter that
is smaller than the primary's), so that it would last a second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import FIND_POSTMASTER, NodeFault, must_run, postmaster, psql, shell, stopped, timed

_STARTUP = 'pgrep -P "$1" -f "postgres: .*startup"'
# Where it waits for more WAL it holds no lock of a page, for which readers would wait in vain.
_WAITING = "SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE backend_type = 'startup'"
_STOP = f"""
for i in $(seq 100); do
  kill -STOP "$2" || exit 1
  case $(chpst -u postgres psql -X -q -t -A -h /run/postgresql -d postgres -c "{_WAITING}") in
    RecoveryWalStream) break;;
  esac
  kill -CONT "$2"
  [ "$i" -lt 100 ] || {{ echo "it never waited for WAL: it may hold what readers need" >&2; exit 1; }}
done
"""
_RESUME = f"""
set -- $({FIND_POSTMASTER}
); [ -z "$1" ] || kill -CONT $({_STARTUP}) 2>/dev/null; true
"""


def _startup(lab: Lab, node: str) -> int | None:
    """The process that replays, None on a primary."""
    pid, _ = must_run(postmaster(lab, node), "postmaster", node)
    found = shell(lab, node, f"{_STARTUP} || true", str(pid)).split()
    return int(found[0]) if found else None


@dataclass(frozen=True)
class PauseReplay(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        pid = _startup(lab, node)
        if pid is None:
            raise LabError(f"{node} is no replica, so it replays nothing")
        return {"pid": pid}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, _STOP, "", str(seen["pid"]))

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The kernel says so, and what it has replayed stands still for half a second."""
        node, pid = str(effect.node), effect.seen["pid"]

        def look() -> Evidence:
            sql = "SELECT pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()"
            (first, _) = psql(lab, node, sql)[0]
            time.sleep(0.5)
            (second, received) = psql(lab, node, sql)[0]
            frozen = stopped(lab, node, pid)
            how = (
                f"{node}: process {pid}, which replays, is {'stopped' if frozen else 'not stopped'} "
                f"at {second}, received up to {received}"
            )
            return Evidence(frozen and first == second, how)

        return first_true(look, 10, lambda: None)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """It replays, or is no replica any more."""
        node = str(instructions["node"])

        def look() -> Evidence:
            pid = _startup(lab, node)
            if pid is None:
                return Evidence(True, f"{node}: nothing replays, it is a primary")
            frozen = stopped(lab, node, pid)
            return Evidence(not frozen, f"{node}: replay is {'stopped' if frozen else 'running'}")

        return first_true(look, 20, lambda: time.sleep(0.3))


FAULT = PauseReplay(
    name="pause-replay",
    summary="the replica receives WAL and replays none of it, so that its readers see the past",
    colour="#00897b",
    kind="pause",
    moves_leader="no",
    lasts_s=30,
    undo=_RESUME,
)
