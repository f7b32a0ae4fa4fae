"""Patroni dies and stays away, PostgreSQL lives: SIGKILL, and its supervisor does not start it again.

So does a host whose unit says ``Restart=no``, or one on which Patroni cannot start any more. The leader key
expires and another node is promoted, while the old PostgreSQL goes on as a primary that nobody governs: with
no watchdog on the machine nothing stops it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.deploy.endpoints import PATRONI_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions
from lab.faults._shell import NodeFault, answers_again, greets, must_run, patroni, timed


@dataclass(frozen=True)
class LosePatroni(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        return {"pid": must_run(patroni(lab, node), "Patroni", node)[0]}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        # runit: "once" keeps it from being started again; "down" would stop it in good order first.
        return timed(
            lab, node, 'SVDIR=/etc/service sv once patroni >/dev/null && kill -9 "$1"', str(seen["pid"])
        )

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """No Patroni runs, and its port is silent."""
        node = str(effect.node)
        runs, answers = patroni(lab, node) is not None, greets(lab, node, PATRONI_PORT, "http")
        process, port = "runs" if runs else "does not run", "answers" if answers else "is silent"
        how = f"{node}: Patroni {process}, its port {port}"
        return Evidence(not runs and not answers, how)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), PATRONI_PORT, "http")


FAULT = LosePatroni(
    name="lose-patroni",
    summary="SIGKILL of Patroni alone, which stays away; PostgreSQL goes on without it",
    colour="#8430ce",
    kind="kill",
    needs=("patroni",),
    moves_leader="yes",
    chain="lease",
    mute=False,
    lasts_s=40,
    undo="SVDIR=/etc/service sv up patroni >/dev/null",
)
