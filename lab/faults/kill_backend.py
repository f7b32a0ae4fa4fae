"""One server process of a client dies of SIGKILL: PostgreSQL ends every session and recovers.

Shared memory may have been damaged, so that the postmaster cannot do less.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import POSTGRES_PORT
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import NodeFault, answers_again, must_run, postmaster, shell, timed

# A client's process names its address and port ("… 172.20.0.5(40212) idle"), and is no WAL sender.
_FIND = r"""
ps -o pid=,args= --ppid "$1" | grep -E '[0-9a-f.:]+\([0-9]+\) ' | grep -v walsender |
  sort -k 2 | awk '{print $1; exit}'
pgrep -P "$1" -f 'postgres: .*checkpointer' || echo 0
"""


@dataclass(frozen=True)
class KillBackend(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        pid, _ = must_run(postmaster(lab, node), "postmaster", node)
        found = shell(lab, node, _FIND, str(pid)).split()
        if len(found) != 2:
            raise LabError(f"no client is connected to {node}, so no backend of one can be killed")
        return {"postmaster": pid, "backend": int(found[0]), "checkpointer": int(found[1])}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, 'kill -9 "$1"', str(seen["backend"]))

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """PostgreSQL ended all of its processes: the checkpointer is another one, or gone."""
        node, before = str(effect.node), effect.seen["checkpointer"]

        def look() -> Evidence:
            now = postmaster(lab, node)
            script = "pgrep -P \"$1\" -f 'postgres: .*checkpointer' || echo 0"
            checkpointer = int(shell(lab, node, script, str(now[0])).split()[0]) if now else 0
            killed = f"{node}: backend {effect.seen['backend']} was killed"
            how = f"{killed}; checkpointer was {before}, is {checkpointer}"
            return Evidence(checkpointer != before, how)

        return first_true(look, 25, lambda: time.sleep(0.2))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), POSTGRES_PORT)


FAULT = KillBackend(
    name="kill-backend",
    summary="SIGKILL of one client's server process, so that PostgreSQL ends all sessions and recovers",
    colour="#f29900",
    kind="kill",
    ends_itself=True,
)
