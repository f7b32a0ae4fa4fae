"""A node, or a whole zone, is lost the hard way: cut off in silence first, and dead a moment later.

A SIGKILL alone is the easy failure: the kernel of a node that dies closes its sockets, and peers are told.
Here packets are dropped first, and only once peers were seen to hear nothing is everything on the node
killed, so that nobody is ever told. The moment of the effect is that of the cut. Nodes hit together (a zone)
are cut off from the rest and not from each other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults import isolate, kill_node
from lab.faults._base import Chain, Effect, Evidence, Instructions, Kind, Moves, first_true
from lab.faults._packets import LOOKS, look_all, looks_at, told

CUT, KILL = isolate.FAULT, kill_node.FAULT
FEW = 3
"""Peers that are asked, of those of ``isolate``: a whole zone is looked at in one go, and must die soon."""


@dataclass(frozen=True)
class LoseNode:
    name: str = "lose-node"
    summary: str = "cut off in silence, then SIGKILL of everything on it: no peer is ever told"
    needs: tuple[str, ...] = CUT.needs
    colour: str = "#4a148c"
    kind: Kind = "partition"
    moves_leader: Moves = "yes"
    chain: Chain = "lease"

    def plan(self, lab: Lab, node: str) -> Instructions:
        return self.plan_among(lab, node, (node,))

    def plan_among(self, lab: Lab, node: str, nodes: tuple[str, ...]) -> Instructions:
        """Nodes that are hit together stay together until they die."""
        return CUT.plan_among(lab, node, nodes)

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        """Cut off, look, kill. LabError, and the cut mended, where peers still hear the node."""
        cut = CUT.inject(lab, node, plan)
        seen = self._cut_off(lab, node, plan)
        if not seen.found:
            CUT.heal(lab, plan)
            raise LabError(f"{node} was not killed, for it was not cut off before: {seen.how}")
        KILL.inject(lab, node, plan)
        return Effect(node, cut.wall_earliest, cut.wall_latest, plan, {"cut": seen.how})

    def _cut_off(self, lab: Lab, node: str, plan: Instructions) -> Evidence:
        """Peers of several kinds hear nothing."""
        looks = looks_at(lab, node, plan["peers"], ("silent",))[:FEW]

        def look() -> Evidence:
            answers = look_all(lab, looks)
            silent = bool(answers) and all(got in one.expected for one, got in answers)
            return Evidence(silent, told(answers))

        return first_true(look, LOOKS, lambda: time.sleep(0.1))

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """It does not run; that it was cut off before, peers have told at the injection."""
        dead = KILL.verify(lab, effect)
        return Evidence(dead.found, f"{effect.seen['cut']}; then {dead.how}")

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        # A node that died has lost its filters; one that was not killed yet has them.
        CUT.heal(lab, instructions)
        KILL.heal(lab, instructions)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        back = KILL.verify_healed(lab, instructions)
        if not back.found:
            return back
        whole = CUT.verify_healed(lab, {**instructions, "peers": instructions["peers"][:FEW]})
        return Evidence(whole.found, f"{back.how}; {whole.how}")


FAULT = LoseNode()
