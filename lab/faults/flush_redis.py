"""Everything in Redis is gone at once: FLUSHALL. What was cached comes from PostgreSQL."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.deploy.endpoints import REDIS_PORT
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._shell import NodeFault, answers_again, shell, timed


def _cli(lab: Lab) -> str:
    tls = "--tls --cacert /run/secrets/ca.crt" if lab.topology.tls.enabled else ""
    return f'REDISCLI_AUTH="$(</run/secrets/password_redis)" redis-cli {tls} -h 127.0.0.1 -p {REDIS_PORT}'


def _calls(lab: Lab, node: str) -> int:
    """How often the node has flushed everything since it started."""
    said = shell(lab, node, f"{_cli(lab)} INFO commandstats")
    line = next((line for line in said.splitlines() if line.startswith("cmdstat_flushall:")), "")
    return int(line.partition("calls=")[2].partition(",")[0] or 0)


@dataclass(frozen=True)
class FlushRedis(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        if "role:master" not in shell(lab, node, f"{_cli(lab)} INFO replication"):
            raise LabError(f"{node} is no Redis primary, so it cannot be flushed")
        return {"calls": _calls(lab, node)}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return timed(lab, node, f'[ "$({_cli(lab)} FLUSHALL)" = OK ]')

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The server counts it (its keys may be back already)."""
        node, before = str(effect.node), effect.seen["calls"]

        def look() -> Evidence:
            now = _calls(lab, node)
            return Evidence(now > before, f"{node}: flushed {now} times since it started, {before} before")

        return first_true(look, 3, lambda: time.sleep(0.2))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """Nothing is to be undone: a cache fills by itself."""
        return answers_again(lab, str(instructions["node"]), REDIS_PORT, "http")


FAULT = FlushRedis(
    name="flush-redis",
    summary="everything in Redis is gone at once (FLUSHALL)",
    colour="#c2185b",
    kind="resource",
    moves_leader="no",
    on=("redis",),
    lasts_s=20,
    ends_itself=True,
)
