"""The whole machine hangs, as a virtual machine that is suspended: processes stop, sockets stay open.

The kernel goes on accepting connections for it, so that its peers wait instead of being refused. Nothing on a
machine that hangs can wake it: this fault has no deadline of its own, the journal heals it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves, node_of
from lab.faults._services import service_of
from lab.faults._shell import answers_again, greets


@dataclass(frozen=True)
class PauseNode:
    name: str = "pause-node"
    summary: str = "every process of the node is frozen, as on a machine that hangs; its sockets stay open"
    needs: tuple[str, ...] = ()
    colour: str = "#fbbc04"
    kind: Kind = "pause"
    moves_leader: Moves = "yes"
    lasts_s: float = 40

    def plan(self, lab: Lab, node: str) -> Instructions:
        if node == lab.topology.observer.name:
            raise LabError("the observer cannot be paused: nobody would see anything")
        return {"node": node_of(lab, node).name}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        earliest, latest = node_of(lab, node).pause()
        return Effect(node, earliest, latest, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The driver says so, and its service connects but does not answer."""
        node = str(effect.node)
        paused, service = node_of(lab, node).state().paused, service_of(lab, node)
        answers = service is not None and greets(lab, node, *service)
        how = f"{node}: {'frozen' if paused else 'not frozen'}"
        if service:
            how += f", port {service[0]} {'answers' if answers else 'is silent'}"
        return Evidence(paused and not answers, how)

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        node = node_of(lab, str(instructions["node"]))
        node.unpause()
        if not node.state().running:
            node.start()

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])
        state, service = node_of(lab, node).state(), service_of(lab, node)
        if state.paused or not state.running:
            return Evidence(False, f"{node}: {'frozen' if state.paused else 'down'}")
        if service is None:
            return Evidence(True, f"{node}: runs")
        return answers_again(lab, node, *service)


FAULT = PauseNode()
