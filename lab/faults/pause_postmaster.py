"""PostgreSQL hangs: SIGSTOP of the postmaster and all of its children. Its sockets stay open."""

from __future__ import annotations

from dataclasses import dataclass

from lab.deploy.endpoints import POSTGRES_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions
from lab.faults._shell import (
    RESUME_POSTGRES,
    STOP_POSTGRES,
    NodeFault,
    answers_again,
    greets,
    must_run,
    postmaster,
    stopped,
    timed,
)


@dataclass(frozen=True)
class PausePostmaster(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        return {"pid": must_run(postmaster(lab, node), "postmaster", node)[0]}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, STOP_POSTGRES, str(seen["pid"]))

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The kernel says so of the postmaster, and a new connection is not answered."""
        node = str(effect.node)
        frozen, answers = stopped(lab, node, effect.seen["pid"]), greets(lab, node, POSTGRES_PORT)
        how = (
            f"{node}: postmaster {effect.seen['pid']} is {'stopped' if frozen else 'not stopped'}, "
            f"a new connection is {'answered' if answers else 'not answered'}"
        )
        return Evidence(frozen and not answers, how)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), POSTGRES_PORT)


FAULT = PausePostmaster(
    name="pause-postmaster",
    summary="SIGSTOP of the postmaster and all of its children: PostgreSQL hangs, its sockets stay open",
    colour="#e8710a",
    kind="pause",
    moves_leader="yes",
    lasts_s=40,
    undo=RESUME_POSTGRES,
)
