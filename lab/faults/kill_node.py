"""The whole machine is gone: SIGKILL of everything on the node at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import PATRONI_PORT, POSTGRES_PORT
from lab.driver import Lab
from lab.faults._base import (
    Chain,
    Effect,
    Evidence,
    Instructions,
    Kind,
    Moves,
    answering_ports,
    first_true,
    node_of,
)
from lab.faults._services import service_of

ANSWER_ATTEMPTS = 50


@dataclass(frozen=True)
class KillNode:
    name: str = "kill-node"
    summary: str = "SIGKILL of everything on the node at once, as when its machine is lost"
    needs: tuple[str, ...] = ()
    colour: str = "#d93025"
    kind: Kind = "kill"
    moves_leader: Moves = "yes"
    chain: Chain = "lease"

    def plan(self, lab: Lab, node: str) -> Instructions:
        return {"node": node_of(lab, node).name}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        earliest, latest = node_of(lab, node).kill()
        return Effect(node, earliest, latest, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The driver says that it does not run, and none of its ports answers the observer."""
        assert effect.node is not None
        state = node_of(lab, effect.node).state()
        ports = answering_ports(lab, effect.node, _ports(lab, effect.node))
        how = (
            f"{effect.node}: {'running' if state.running else f'ended with exit code {state.exit_code}'}, "
            f"ports that answer: {', '.join(map(str, ports)) or 'none'}"
        )
        return Evidence(not state.running and not ports, how)

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        node = node_of(lab, instructions["node"])
        if not node.state().running:
            node.start()

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """It runs, and its service answers (a database's Patroni: PostgreSQL may still be replaying)."""
        name = str(instructions["node"])
        wanted = _ports(lab, name)[:1]

        def look() -> Evidence:
            running = node_of(lab, name).state().running
            ports = answering_ports(lab, name, wanted) if running else []
            how = f"{name}: {'running' if running else 'down'}"
            if wanted:
                how += f", port {wanted[0]} {'answers' if ports else 'is silent'}"
            return Evidence(running and len(ports) == len(wanted), how)

        return first_true(look, ANSWER_ATTEMPTS, lambda: time.sleep(0.4))


def _ports(lab: Lab, node: str) -> tuple[int, ...]:
    """Ports of a node, that of its main service first; none for a client."""
    service = service_of(lab, node)
    if service is None:
        return ()
    return (PATRONI_PORT, POSTGRES_PORT) if service[0] == PATRONI_PORT else (service[0],)


FAULT = KillNode()
