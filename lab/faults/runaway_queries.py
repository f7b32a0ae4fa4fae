"""Queries that never end take the processor: a report gone wrong, several times at once.

The server itself ends them at the deadline (``statement_timeout``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import NodeFault, psql, timed

SESSIONS = 8
APPLICATION = "lab-runaway"
_PSQL = "psql -X -q -t -A -h /run/postgresql"
_QUERY = (
    "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE (a * b) % 7 = 1"
)
# $1: database, $2: milliseconds after which the server ends them.
_START = f"""
export PGAPPNAME={APPLICATION} PGOPTIONS="-c statement_timeout=$2 -c max_parallel_workers_per_gather=0"
for i in $(seq {SESSIONS}); do
  setsid {_PSQL} -d "$1" -c "{_QUERY}" >/dev/null 2>&1 </dev/null &
done
"""
_END = f"""
chpst -u postgres {_PSQL} -d postgres -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE application_name = '{APPLICATION}'" >/dev/null
"""
_LOOK = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{APPLICATION}' AND state = 'active'"
LONGEST_S = 600.0


@dataclass(frozen=True)
class RunawayQueries(NodeFault):
    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        longest = round((plan.get("deadline_s") or LONGEST_S) * 1000)
        return timed(lab, node, _START, lab.topology.postgres.database, str(longest), user="postgres")

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The server says that all of them run."""
        node = str(effect.node)

        def look() -> Evidence:
            found = psql(lab, node, _LOOK)
            return Evidence(len(found) == SESSIONS, f"{node}: {len(found)} of {SESSIONS} runaway queries run")

        return first_true(look, 20, lambda: time.sleep(0.3))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])

        def look() -> Evidence:
            found = psql(
                lab, node, f"SELECT pid FROM pg_stat_activity WHERE application_name = '{APPLICATION}'"
            )
            return Evidence(not found, f"{node}: {len(found)} runaway queries run")

        return first_true(look, 20, lambda: time.sleep(0.3))


FAULT = RunawayQueries(
    name="runaway-queries",
    summary=f"{SESSIONS} queries that never end compete for the node's processor",
    colour="#fa7b17",
    kind="resource",
    lasts_s=30,
    undo=_END,
)
