"""A node whose plug is pulled: it is off the application and data networks, until it is plugged in again.

Neither dropped nor refused packets: the interface and its routes are gone, so that the node itself is told at
once (no route), and its peers only when their address resolution gives up. The engine does it, so that no
deadline inside the node can undo it: what is left after a killed runner, the journal heals.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab, Network
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves, first_true, node_of
from lab.faults._packets import CUT, LOOKS, Answer, control_look, everyone, look_all, looks_at, told

GONE: tuple[Answer, ...] = ("silent", "unreachable")


@dataclass(frozen=True)
class Disconnect:
    name: str = "disconnect"
    summary: str = "unplugged from the application and data networks"
    needs: tuple[str, ...] = ()
    colour: str = "#ad1457"
    kind: Kind = "partition"
    moves_leader: Moves = "yes"
    chain: str = "lease"

    def plan(self, lab: Lab, node: str) -> Instructions:
        on = [network for network in CUT if network in node_of(lab, node).attached()]
        if not on:
            raise LabError(f"{node} is on no network that faults may touch")
        return {"node": node, "networks": on}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        moments = [node_of(lab, node).detach(network) for network in plan["networks"]]
        return Effect(node, moments[0][0], moments[-1][1], plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """No peer gets an answer, and the observer does over the control network."""
        assert effect.node is not None
        node = effect.node
        looks = looks_at(lab, node, everyone(lab.topology, node), GONE)
        looks += control_look(lab.topology, node)

        def look() -> Evidence:
            answers = look_all(lab, looks)
            return Evidence(all(got in one.expected for one, got in answers), told(answers))

        return first_true(look, LOOKS, lambda: time.sleep(0.1))

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        node = node_of(lab, instructions["node"])
        for network in _networks(instructions):
            node.attach(network)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """It is on its networks again, and a peer gets through (others may be hidden by another fault)."""
        name = instructions["node"]
        node = node_of(lab, name)
        if not node.state().running:
            return Evidence(set(_networks(instructions)) <= set(node.attached()), f"{name} does not run")
        looks = looks_at(lab, name, everyone(lab.topology, name), ("open", "refused"))

        def look() -> Evidence:
            on = node.attached()
            answers = look_all(lab, looks)
            through = any(got in one.expected for one, got in answers)
            how = f"{name} is on {', '.join(on)}; {told(answers)}"
            return Evidence(through and set(_networks(instructions)) <= set(on), how)

        return first_true(look, LOOKS, lambda: time.sleep(0.2))


def _networks(instructions: Instructions) -> list[Network]:
    return [network for network in CUT if network in instructions["networks"]]


FAULT = Disconnect()
