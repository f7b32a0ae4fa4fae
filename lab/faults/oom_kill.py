"""The kernel kills a PostgreSQL process for want of memory: a query grows until the node's limit is reached.

The kernel chooses the victim by its own rules, and takes the one that grew. PostgreSQL then ends every
session and recovers, as after any SIGKILL of a backend. The growth lasts some seconds; the moment of the
effect is that of the kill, read from the control group's own counter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import POSTGRES_PORT
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._memory import memory_of, too_little
from lab.faults._shell import NodeFault, answers_again, must_run, postmaster, psql, timed

APPLICATION = "lab-oom"
WITHIN_S = 120
_PSQL = "psql -X -q -t -A -h /run/postgresql -d postgres"
# A sort that is allowed any amount of memory keeps all its rows there; each row differs, so that none of it
# is worked out beforehand.
_GROW = (
    "SELECT count(t) FROM "
    "(SELECT repeat('x', 200000 + g % 9) AS t FROM generate_series(1, 10000000) g ORDER BY g DESC) s"
)
_SCRIPT = f"""
f=/sys/fs/cgroup/memory.events; [ -e $f ] || f=/sys/fs/cgroup/memory/memory.oom_control
kills() {{ while read -r k v; do [ "$k" = oom_kill ] && n=$v; done < $f; }}
kills; first=$n
export PGAPPNAME={APPLICATION} PGOPTIONS="-c work_mem=1TB -c statement_timeout={WITHIN_S}s"
setsid {_PSQL} -c "{_GROW}" >/dev/null 2>&1 </dev/null &
end=$((SECONDS + {WITHIN_S}))
while kills; [ "$n" = "$first" ]; do
  a=$EPOCHREALTIME
  [ $SECONDS -lt $end ] || exit 1
  read -r -t 0.005 <> <(:)
done
true  # the loop's own status is that of its pause
"""


@dataclass(frozen=True)
class OomKill(NodeFault):
    def lacks(self, lab: Lab, node: str) -> str:
        """Why this machine cannot perform it, "" where it can."""
        return too_little(lab, node)

    def before(self, lab: Lab, node: str) -> dict[str, int]:
        memory = memory_of(lab, node)
        pid, _ = must_run(postmaster(lab, node), "postmaster", node)
        return {"kills": memory.oom_kills if memory else 0, "postmaster": pid}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, _SCRIPT, user="postgres", timeout_s=WITHIN_S + 10)

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The kernel counted a kill, and PostgreSQL ended the session that grew."""
        node, before = str(effect.node), effect.seen["kills"]
        memory = memory_of(lab, node)
        kills = memory.oom_kills - before if memory else 0
        return Evidence(kills > 0, f"{node}: the kernel killed {kills} process(es) for want of memory")

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])
        answers = answers_again(lab, node, POSTGRES_PORT)

        def look() -> Evidence:
            try:
                rows = psql(
                    lab, node, f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{APPLICATION}'"
                )
            except LabError:
                return Evidence(False, f"{answers.how}; it still recovers")
            return Evidence(not rows, f"{answers.how}; {len(rows)} growing queries left")

        return first_true(look, 60, lambda: time.sleep(0.5)) if answers.found else answers


FAULT = OomKill(
    name="oom-kill",
    summary="a query grows until the kernel kills it for want of memory; PostgreSQL recovers",
    colour="#a50e0e",
    kind="kill",
    ends_itself=True,
)
