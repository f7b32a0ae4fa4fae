"""An operator hands the lead over, as ``patronictl switchover`` does: planned, in good order.

The old leader shuts down so that its WAL has reached its successor, which Patroni chooses (with synchronous
replication: the synchronous standby). The moment is that of the operator's request; clients are cut off a
little later, in Patroni's next loop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults import _patroni
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import NodeFault


@dataclass(frozen=True)
class Switchover(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        if (leads := _patroni.leader(lab)) != node:
            raise LabError(f"{node} does not lead ({leads or 'nobody'} does), so it cannot hand over")
        return {}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        reply = _patroni.order(lab, node, "/switchover", {"leader": node})
        return reply.sent_before, reply.sent_after

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The other members see another leader."""
        others = tuple(n.name for n in lab.topology.postgres.nodes if n.name != effect.node)

        def look() -> Evidence:
            now = _patroni.leader(lab, others)
            return Evidence(now not in (None, effect.node), f"{effect.node} led, now {now or 'nobody'} leads")

        return first_true(look, 100, lambda: time.sleep(0.2))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """The node that handed over follows: it streams."""
        node = str(instructions["node"])

        def look() -> Evidence:
            state = _patroni.members(lab).get(node, {})
            text = f"{node} is {state.get('role', 'no member')}, {state.get('state', 'unknown')}"
            return Evidence(state.get("state") in ("streaming", "running"), text)

        return first_true(look, 150, lambda: time.sleep(0.3))


FAULT = Switchover(
    name="switchover",
    summary="Patroni hands the lead over to a standby, as `patronictl switchover` does",
    colour="#1967d2",
    kind="operator",
    needs=("patroni", "standby"),
    moves_leader="yes",
    ends_itself=True,
)
