"""An operator restarts PostgreSQL through Patroni, as ``patronictl restart`` does.

Patroni writes a checkpoint, stops PostgreSQL in good order and starts it where it is; it keeps the leader
key. The moment is that of the operator's request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import POSTGRES_PORT
from lab.driver import Lab
from lab.faults import _patroni
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import NodeFault, answers_again, must_run, postmaster


@dataclass(frozen=True)
class RestartPostgres(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        pid, started = must_run(postmaster(lab, node), "postmaster", node)
        return {"pid": pid, "started": started}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        reply = _patroni.order(lab, node, "/restart", {})
        return reply.sent_before, reply.sent_after

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """Another postmaster runs."""
        node, before = str(effect.node), (effect.seen["pid"], effect.seen["started"])

        def look() -> Evidence:
            now = postmaster(lab, node)
            seen = "no postmaster runs" if now is None else f"postmaster {now[0]} runs"
            return Evidence(
                now is not None and now != before, f"{node}: postmaster was {before[0]}, now {seen}"
            )

        return first_true(look, 200, lambda: time.sleep(0.1))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), POSTGRES_PORT)


FAULT = RestartPostgres(
    name="restart-postgres",
    summary="Patroni restarts PostgreSQL on the node, as `patronictl restart` does",
    colour="#1a73e8",
    kind="operator",
    needs=("patroni",),
    ends_itself=True,
)
