"""PostgreSQL is gone, its machine and its Patroni live: SIGKILL of the postmaster alone."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Chain, Effect, Evidence, Instructions, Kind, Moves, On, first_true, node_of
from lab.faults._shell import postmaster

# The moment is read by the very shell that kills, on both sides of the kill.
_KILL = 'a=$EPOCHREALTIME; kill -9 "$1"; c=$?; b=$EPOCHREALTIME; echo "${a/,/.} ${b/,/.}"; exit $c'


@dataclass(frozen=True)
class KillPostmaster:
    name: str = "kill-postmaster"
    summary: str = "SIGKILL of the postmaster alone, as when the kernel runs out of memory"
    needs: tuple[str, ...] = ()
    colour: str = "#e37400"
    kind: Kind = "kill"
    moves_leader: Moves = "yes"
    chain: Chain = "release"
    on: tuple[On, ...] = ("database",)

    def plan(self, lab: Lab, node: str) -> Instructions:
        return {"node": node_of(lab, node).name}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        found = postmaster(lab, node)
        if found is None:
            raise LabError(f"no postmaster runs on {node}, so it cannot be killed")
        done = node_of(lab, node).run(["bash", "-c", _KILL, "bash", str(found[0])])
        earliest, latest = (float(word) for word in done.stdout.split())
        return Effect(node, earliest, latest, plan, {"pid": found[0], "started": found[1]})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The process that was killed is not the postmaster any more: gone, or another one."""
        assert effect.node is not None
        before = (effect.seen["pid"], effect.seen["started"])

        def look() -> Evidence:
            now = postmaster(lab, str(effect.node))
            seen = "no postmaster runs" if now is None else f"postmaster {now[0]} runs"
            return Evidence(now != before, f"{effect.node}: postmaster {before[0]} was killed, now {seen}")

        # A process that was killed lingers until its parent has reaped it.
        return first_true(look, 5, lambda: time.sleep(0.05))

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        """Patroni brings PostgreSQL back by itself; only a node that does not run has to be started."""
        node = node_of(lab, instructions["node"])
        if not node.state().running:
            node.start()

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        def look() -> Evidence:
            now = postmaster(lab, instructions["node"])
            seen = "no postmaster runs" if now is None else f"postmaster {now[0]} runs"
            return Evidence(now is not None, f"{instructions['node']}: {seen}")

        return first_true(look, 150, lambda: time.sleep(0.3))


FAULT = KillPostmaster()
