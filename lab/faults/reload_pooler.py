"""PgBouncer reads its configuration again, as after a change (SIGHUP, the same as RELOAD on its console)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import POOLER_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, first_true, node_of
from lab.faults._console import PID
from lab.faults._shell import NodeFault, answers_again, timed


@dataclass(frozen=True)
class ReloadPooler(NodeFault):
    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, f'kill -HUP "$({PID})"')

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """Its log says so."""
        node = str(effect.node)

        def look() -> Evidence:
            lines = node_of(lab, node).log(since=effect.wall_earliest - 0.05).splitlines()
            said = next((line for line in lines if "re-reading config" in line), None)
            return Evidence(said is not None, f"{node}: {said or 'its log says nothing of it'}")

        return first_true(look, 20, lambda: time.sleep(0.2))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), POOLER_PORT)


FAULT = ReloadPooler(
    name="reload-pooler",
    summary="PgBouncer reads its configuration again (RELOAD)",
    colour="#9334e6",
    kind="operator",
    moves_leader="no",
    on=("pooler",),
    ends_itself=True,
)
