"""PgBouncer is told to PAUSE: it lets what runs end, and keeps everybody else waiting until RESUME.

By its signals USR1 and USR2, which do what the console's words do, so that the node itself can resume it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import POOLER_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._console import PID, ask
from lab.faults._shell import NodeFault, answers_again, timed


def _state(lab: Lab, node: str) -> dict[str, str]:
    return {row["key"]: row["value"] for row in ask(lab, node, "SHOW STATE")}


@dataclass(frozen=True)
class PausePool(NodeFault):
    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, f'kill -USR1 "$({PID})"')

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The console says so."""
        node = str(effect.node)

        def look() -> Evidence:
            paused = _state(lab, node).get("paused") == "yes"
            return Evidence(paused, f"{node}: SHOW STATE says that it is {'' if paused else 'not '}paused")

        return first_true(look, 10, lambda: time.sleep(0.2))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])
        answers = answers_again(lab, node, POOLER_PORT)
        active = answers.found and _state(lab, node).get("active") == "yes"
        return Evidence(active, f"{answers.how}; SHOW STATE: {'active' if active else 'not active'}")


FAULT = PausePool(
    name="pause-pool",
    summary="PgBouncer keeps every client waiting (PAUSE) until it is resumed",
    colour="#af5cf7",
    kind="operator",
    moves_leader="no",
    on=("pooler",),
    lasts_s=20,
    undo=f'p=$({PID}) && kill -USR2 "$p"; true',
)
