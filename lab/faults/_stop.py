"""PostgreSQL stopped by hand, in either mode."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import POSTGRES_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import DATA, NodeFault, answers_again, must_run, postmaster, timed


@dataclass(frozen=True)
class Stop(NodeFault):
    mode: str = "fast"

    def before(self, lab: Lab, node: str) -> dict[str, int]:
        pid, started = must_run(postmaster(lab, node), "postmaster", node)
        return {"pid": pid, "started": started}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        # Without waiting: sessions end when the postmaster hears of it, however long the rest may take.
        act = 'pg_ctl stop -D "$1" -m "$2" -W >/dev/null'
        return timed(lab, node, act, DATA, self.mode, user="postgres")

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The postmaster of before is gone, or another one runs."""
        node, before = str(effect.node), (effect.seen["pid"], effect.seen["started"])

        def look() -> Evidence:
            now = postmaster(lab, node)
            seen = "no postmaster runs" if now is None else f"postmaster {now[0]} runs"
            return Evidence(now != before, f"{node}: postmaster {before[0]} was stopped, now {seen}")

        return first_true(look, 100, lambda: time.sleep(0.1))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return answers_again(lab, str(instructions["node"]), POSTGRES_PORT, wait_s=90)
