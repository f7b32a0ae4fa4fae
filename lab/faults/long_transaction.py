"""A forgotten transaction holds a table's lock: whoever writes to that table waits behind it.

As a migration or a person's session left open does it. It locks the table that is written most (the lab's own
ledger is spared, so that the ledger shows whether others suffer with those who wait). The server itself ends
it at the deadline: nothing on the client's side has to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, first_true, node_of
from lab.faults._shell import NodeFault, psql, shell

APPLICATION = "lab-long-transaction"
_PSQL = "psql -X -q -t -A -v ON_ERROR_STOP=1 -h /run/postgresql -d"
_OUT = "/run/postgresql/lab-long-transaction"
_BUSIEST = """
SELECT format('%I.%I', schemaname, relname) FROM pg_stat_user_tables WHERE schemaname <> 'lab'
ORDER BY n_tup_upd DESC, n_live_tup DESC, relname LIMIT 1"""
_NOW = "SELECT extract(epoch FROM clock_timestamp())"
# $1: database, $2: table, $3: seconds. Its last statement is what keeps it open; it cannot outlive it.
_HOLD = f"""
export PGAPPNAME={APPLICATION}
setsid {_PSQL} "$1" -c "SET lock_timeout = '10s'" -c BEGIN -c "{_NOW}" -c "LOCK TABLE $2 IN EXCLUSIVE MODE" \\
  -c "{_NOW}" -c "SELECT pg_sleep($3)" >{_OUT} 2>{_OUT}.err </dev/null &
for i in $(seq 120); do
  [ "$(wc -l < {_OUT})" -ge 2 ] && exec head -n 2 {_OUT}
  kill -0 $! 2>/dev/null || break
  sleep 0.1
done
cat {_OUT}.err >&2; exit 1
"""
_END = f"""
chpst -u postgres {_PSQL} postgres -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE application_name = '{APPLICATION}'" >/dev/null
"""
_LOOK = f"""
SELECT l.relation::regclass, l.granted, 
  (SELECT count(*) FROM pg_locks w WHERE NOT w.granted AND w.relation = l.relation)
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE a.application_name = '{APPLICATION}' AND l.mode = 'ExclusiveLock' AND l.locktype = 'relation'"""
LONGEST_S = 600.0


@dataclass(frozen=True)
class LongTransaction(NodeFault):
    def plan(self, lab: Lab, node: str) -> Instructions:
        rows = psql(lab, node_of(lab, node).name, _BUSIEST)
        if not rows:
            raise LabError(f"{node} has no table that could be locked")
        return {"node": node, "table": rows[0][0]}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        database, longest = lab.topology.postgres.database, plan.get("deadline_s") or LONGEST_S
        said = shell(lab, node, _HOLD, database, plan["table"], f"{longest:g}", user="postgres")
        try:
            earliest, latest = (float(line) for line in said.split())
        except ValueError as error:
            raise LabError(f"{node} did not tell when the lock was taken: {said!r}") from error
        return earliest, latest

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The server's own list of locks says who holds it, and how many wait."""
        node = str(effect.node)
        rows = psql(lab, node, _LOOK)
        if not rows:
            return Evidence(False, f"{node}: {APPLICATION} holds no lock on a table")
        table, granted, waiting = rows[0]
        does = "holds" if granted == "t" else "waits for"
        how = f"{node}: {APPLICATION} {does} {table}, {waiting} wait for it"
        return Evidence(granted == "t", how)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])

        def look() -> Evidence:
            rows = psql(lab, node, f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{APPLICATION}'")
            return Evidence(not rows, f"{node}: {APPLICATION} {'is still there' if rows else 'has ended'}")

        return first_true(look, 20, lambda: time.sleep(0.3))


FAULT = LongTransaction(
    name="long-transaction",
    summary="a forgotten transaction keeps the busiest table locked against writes",
    colour="#ea4335",
    kind="resource",
    moves_leader="no",
    lasts_s=30,
    undo=_END,
)
