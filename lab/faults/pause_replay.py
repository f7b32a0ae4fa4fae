"""A replica stops replaying (``pg_wal_replay_pause``). It goes on receiving; its readers see the past."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import NodeFault, psql, timed

_QUERY = 'psql -X -q -t -A -v ON_ERROR_STOP=1 -h /run/postgresql -d postgres -c "%s"'
_RESUME = f"""
chpst -u postgres {_QUERY % "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()"} >/dev/null
"""


@dataclass(frozen=True)
class PauseReplay(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        if psql(lab, node, "SELECT pg_is_in_recovery()") != [["t"]]:
            raise LabError(f"{node} is no replica, so it replays nothing")
        return {}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        act = (_QUERY % "SELECT pg_wal_replay_pause()") + " >/dev/null"
        return timed(lab, node, act, user="postgres")

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """It is paused (not only asked to), and what it has replayed stands still for half a second."""
        node = str(effect.node)

        def look() -> Evidence:
            sql = (
                "SELECT pg_get_wal_replay_pause_state(), pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()"
            )
            (_, first, _) = psql(lab, node, sql)[0]
            time.sleep(0.5)
            (state, second, received) = psql(lab, node, sql)[0]
            how = f"{node}: replay is {state} at {second}, received up to {received}"
            return Evidence(state == "paused" and first == second, how)

        return first_true(look, 10, lambda: None)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """It replays, or is no replica any more."""
        node = str(instructions["node"])
        sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() ELSE 'primary' END"

        def look() -> Evidence:
            state = psql(lab, node, sql)[0][0]
            return Evidence(state in ("not paused", "primary"), f"{node}: replay is {state}")

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
