"""The null fault: changes nothing. What a trial looks like without a fault, for controls."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves


@dataclass(frozen=True)
class Nothing:
    name: str = "none"
    summary: str = "nothing is done (a control: no outage may be found)"
    needs: tuple[str, ...] = ()
    colour: str = "#9aa0a6"
    kind: Kind = "none"
    moves_leader: Moves = "no"

    def plan(self, lab: Lab, node: str) -> Instructions:  # noqa: ARG002
        return {}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:  # noqa: ARG002
        now = time.time()
        return Effect(None, now, now, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:  # noqa: ARG002
        return Evidence(True, "nothing was to be done")

    def heal(self, lab: Lab, instructions: Instructions) -> None: ...

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:  # noqa: ARG002
        return Evidence(True, "nothing was to be undone")


FAULT = Nothing()
