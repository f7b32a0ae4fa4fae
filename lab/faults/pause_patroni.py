"""Patroni hangs, PostgreSQL runs: SIGSTOP of Patroni alone.

The leader key expires and another node is promoted, while the old PostgreSQL goes on accepting writes of
whoever reaches it: with no watchdog on the machine nothing stops it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.deploy.endpoints import PATRONI_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions
from lab.faults._shell import (
    RESUME_PATRONI,
    NodeFault,
    answers_again,
    greets,
    must_run,
    patroni,
    stopped,
    timed,
)


@dataclass(frozen=True)
class PausePatroni(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        return {"pid": must_run(patroni(lab, node), "Patroni", node)[0]}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, 'kill -STOP "$1"', str(seen["pid"]))

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The kernel says so, and its port connects but does not answer."""
        node = str(effect.node)
        frozen, answers = stopped(lab, node, effect.seen["pid"]), greets(lab, node, PATRONI_PORT, "http")
        how = (
            f"{node}: Patroni {effect.seen['pid']} is {'stopped' if frozen else 'not stopped'}, "
            f"its port {'answers' if answers else 'is silent'}"
        )
        return Evidence(frozen and not answers, how)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), PATRONI_PORT, "http")


FAULT = PausePatroni(
    name="pause-patroni",
    summary="SIGSTOP of Patroni alone: PostgreSQL goes on while nobody renews its leader key",
    colour="#c58af9",
    kind="pause",
    needs=("patroni",),
    moves_leader="yes",
    lasts_s=40,
    undo=RESUME_PATRONI,
)
