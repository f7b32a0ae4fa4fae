"""An operator changes PostgreSQL's configuration for the whole cluster through Patroni, without a restart.

``work_mem`` is set; Patroni writes it to every node in its next loop and reloads. The moment is that of the
operator's request.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from lab.deploy.endpoints import PATRONI_PORT
from lab.driver import Lab
from lab.faults import _patroni
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves, On, arm, disarm, first_true, node_of
from lab.faults._shell import psql

VALUE = "11MB"
"""Nobody's default, so that it can be told from what was there."""

_BACK = (
    "exec 3<>/dev/tcp/127.0.0.1/%d && printf 'PATCH /config HTTP/1.0\\r\\n"
    "Content-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%%s' '%s' >&3 && head -n 1 <&3"
)


def _body(value: str | None) -> dict[str, Any]:
    return {"postgresql": {"parameters": {"work_mem": value}}}


@dataclass(frozen=True)
class ChangeConfiguration:
    name: str = "change-configuration"
    summary: str = "work_mem is changed for the whole cluster through Patroni, and reloaded"
    needs: tuple[str, ...] = ("patroni",)
    colour: str = "#4285f4"
    kind: Kind = "operator"
    moves_leader: Moves = "no"
    on: tuple[On, ...] = ("database",)

    def plan(self, lab: Lab, node: str) -> Instructions:
        """``before`` is the cluster's own setting (None: it has none); ``shown``: each node's."""
        config = _patroni.call(lab, node_of(lab, node).name, "GET", "/config").json()
        before = ((config.get("postgresql") or {}).get("parameters") or {}).get("work_mem")
        shown = {member.name: _shown(lab, member.name) for member in lab.topology.postgres.nodes}
        return {"node": node, "before": None if before == VALUE else before, "shown": shown}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        body = json.dumps(_body(plan["before"]))
        arm(lab, node, self.name, _BACK % (PATRONI_PORT, len(body), body), plan.get("deadline_s"))
        reply = _patroni.call(lab, node, "PATCH", "/config", _body(VALUE))
        return Effect(node, reply.sent_before, reply.sent_after, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """Every node's PostgreSQL runs with it."""
        return _all_show(lab, dict.fromkeys(effect.heal["shown"], VALUE))

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        node = str(instructions["node"])
        disarm(lab, node, self.name)
        _patroni.call(lab, node, "PATCH", "/config", _body(instructions["before"]))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        return _all_show(lab, instructions["shown"])


def _shown(lab: Lab, node: str) -> str:
    return psql(lab, node, "SHOW work_mem")[0][0]


def _all_show(lab: Lab, wanted: dict[str, str]) -> Evidence:
    def look() -> Evidence:
        found = {node: _shown(lab, node) for node in wanted}
        how = "work_mem is " + ", ".join(f"{value} on {node}" for node, value in found.items())
        return Evidence(found == wanted, how)

    return first_true(look, 60, lambda: time.sleep(0.5))


FAULT = ChangeConfiguration()
