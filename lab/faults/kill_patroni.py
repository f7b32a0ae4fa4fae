"""Patroni dies, PostgreSQL lives: SIGKILL of Patroni alone. Its supervisor starts it again at once.

So does a host whose unit says ``Restart=on-failure``, as in Patroni's own systemd unit today (older copies
say ``Restart=no``: that is ``lose-patroni``). ``KillMode=process`` there, and here, leaves PostgreSQL alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import PATRONI_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import NodeFault, answers_again, must_run, patroni, postmaster, timed


@dataclass(frozen=True)
class KillPatroni(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        pid, started = must_run(patroni(lab, node), "Patroni", node)
        database, _ = must_run(postmaster(lab, node), "postmaster", node)
        return {"pid": pid, "started": started, "postmaster": database}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, 'kill -9 "$1"', str(seen["pid"]))

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The process that was killed is not Patroni any more: gone, or another one."""
        node, killed = str(effect.node), (effect.seen["pid"], effect.seen["started"])

        def look() -> Evidence:
            now, database = patroni(lab, node), postmaster(lab, node)
            seen = "no Patroni runs" if now is None else f"Patroni {now[0]} runs"
            same = "the same" if database and database[0] == effect.seen["postmaster"] else "another or no"
            return Evidence(
                now != killed, f"{node}: Patroni {killed[0]} was killed, now {seen}, with {same} postmaster"
            )

        return first_true(look, 5, lambda: time.sleep(0.05))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), PATRONI_PORT, "http")


FAULT = KillPatroni(
    name="kill-patroni",
    summary="SIGKILL of Patroni alone, which its supervisor starts again at once",
    colour="#a142f4",
    kind="kill",
    needs=("patroni",),
    moves_leader="no",
    ends_itself=True,
)
