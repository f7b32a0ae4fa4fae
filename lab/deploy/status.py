"""What a lab looks like now: every node with its role, and the endpoints. Works when parts are dead."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lab.deploy import state
from lab.deploy.allocation import Endpoint
from lab.deploy.docker_driver import DockerLab
from lab.deploy.endpoints import endpoints
from lab.deploy.readiness import inside_config, put_inside
from lab.driver import NodeState
from lab.errors import LabError
from lab.topology.models import DatabaseNode, Topology

Health = Literal["up", "degraded", "down"]
_LIMIT_S = 10.0


@dataclass(frozen=True)
class NodeStatus:
    """One node, now."""

    name: str
    kind: str
    """database, etcd, router, pooler, cache, sentinel, proxy, client, observer."""
    role: str
    """What it is at this moment (primary, synchronous standby, replica, …), or what it is for."""
    configured_role: str
    """What the topology says."""
    state: str
    """running, paused, exited (code), missing; for a running database also what Patroni says."""
    timeline: int | None
    lag_bytes: int | None
    """How far a standby or replica is behind the primary; None where it is not known or leads."""
    zone: str
    instance_class: str | None
    label: str | None
    cpus: float | None
    memory_bytes: int | None
    addresses: dict[str, str]


@dataclass(frozen=True)
class LabStatus:
    """A lab, now."""

    lab: str
    topology: str
    health: Health
    scale: float
    nodes: tuple[NodeStatus, ...]
    endpoints: tuple[Endpoint, ...]
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        made = asdict(self)
        made["endpoints"] = [endpoint.model_dump() for endpoint in self.endpoints]
        return made


def kinds(topology: Topology) -> dict[str, tuple[str, str]]:
    """Node → (kind, configured role)."""
    found: dict[str, tuple[str, str]] = {n.name: ("database", n.role) for n in topology.postgres.nodes}
    found |= {n.name: ("etcd", "etcd member") for n in topology.etcd}
    found |= {n.name: ("router", "router") for n in topology.routers}
    found |= {n.name: ("pooler", f"{n.mode} pool, ≤ {n.max_server_connections}") for n in topology.poolers}
    if topology.cache:
        for index, node in enumerate(topology.cache.nodes):
            found[node.name] = ("cache", "replica" if index else "primary")
        found |= {n.name: ("sentinel", "sentinel") for n in topology.cache.sentinels}
    if topology.proxy:
        found[topology.proxy.name] = ("proxy", "link proxy")
    found |= {n.name: ("client", "load") for n in topology.clients}
    found[topology.observer.name] = ("observer", "probes")
    return found


def status(name: str) -> LabStatus:
    """Look at a lab.

    Raises:
        UsageError: there is no such lab.
        LabError: it is only half there.
    """
    lab = DockerLab.open(name)
    warnings: list[str] = []
    if not (lab.state_dir / state.READY).exists():
        warnings.append("the lab is unfinished: a `lab up` still works on it, or was killed")
    with ThreadPoolExecutor(8) as threads:
        states = dict(zip(lab.nodes, threads.map(lambda node: node.state(), lab.nodes.values()), strict=True))
    seen = _look(lab, states, warnings)
    nodes = tuple(_node(lab, member, states.get(member.name), seen) for member in lab.expected())
    wrong = [n.name for n in nodes if n.state not in ("running", "streaming")]
    health: Health = "up" if not wrong and not warnings else "degraded"
    if all(not s.running for s in states.values()):
        health = "down"
    return LabStatus(
        lab=name,
        topology=lab.topology.name,
        health=health,
        scale=lab.allocation.scale,
        nodes=nodes,
        endpoints=tuple(endpoints(lab.topology, lab.allocation).values()),
        warnings=tuple(warnings),
    )


def _look(lab: DockerLab, states: dict[str, NodeState], warnings: list[str]) -> dict[str, Any]:
    """Roles as the services themselves tell them, asked from the observer."""
    empty: dict[str, Any] = {"cluster": [], "patroni": {}, "redis": {}}
    observer = lab.nodes[lab.topology.observer.name]
    now = states[observer.name]
    if not now.running or now.paused:
        warnings.append("the observer does not run: roles, timelines and lag are not known")
        return empty
    try:
        argv = put_inside(observer, inside_config(lab, _LIMIT_S), "status")
        document: dict[str, Any] = json.loads(observer.run(argv, timeout_s=_LIMIT_S).stdout)
    except (LabError, ValueError) as error:
        warnings.append(f"the observer could not look at the lab: {error}")
        return empty
    if not document["cluster"]:
        patroni = lab.topology.postgres.high_availability == "patroni"
        warnings.append(f"no database node{'’s Patroni' if patroni else ''} answers")
    elif document["cluster"] and not any(m["role"] in _LEADER for m in document["cluster"]):
        warnings.append("there is no primary at this moment")
    return document


_LEADER = ("leader", "master", "primary")
_ROLES = {
    "leader": "primary",
    "master": "primary",
    "sync_standby": "synchronous standby",
    "quorum_standby": "synchronous standby",
    "standby_leader": "standby leader",
}


def _node(lab: DockerLab, member: Any, now: NodeState | None, seen: dict[str, Any]) -> NodeStatus:
    kind, configured = kinds(lab.topology)[member.name]
    word, role, timeline, lag = _state_word(now), configured, None, None
    if kind == "database":
        role = f"was {configured}" if word != "running" else "not known"
        mine = next((m for m in seen["cluster"] if m["name"] == member.name), None)
        own = seen["patroni"].get(member.name) or {}
        if mine is not None and word == "running":
            waits = mine["role"] == "replica"
            # A primary that was demoted is what its place in the topology makes of it.
            role = _ROLES.get(mine["role"], mine["role"])
            if waits and configured != "primary":
                role = configured
            timeline = mine.get("timeline") or own.get("timeline")
            found = mine.get("lag", mine.get("replay_lag"))
            lag = found if isinstance(found, int) and role != "primary" else None
            word = mine["state"]
    elif kind == "cache" and word == "running":
        info = seen["redis"].get(member.name)
        role = (
            "not known" if info is None else {"master": "primary", "slave": "replica"}.get(info["role"], "?")
        )
        if info and info["role"] == "slave" and info.get("master_link_status") != "up":
            word = "link down"
    limits = lab.allocation.resources.get(member.name)
    database = member if isinstance(member, DatabaseNode) else None
    return NodeStatus(
        name=member.name,
        kind=kind,
        role=role,
        configured_role=configured,
        state=word,
        timeline=timeline,
        lag_bytes=lag,
        zone=member.zone,
        instance_class=database.instance_class if database else None,
        label=database.label if database else None,
        cpus=limits.cpus if limits else None,
        memory_bytes=limits.memory_bytes if limits else None,
        addresses=dict(lab.allocation.addresses.get(member.name, {})),
    )


def _state_word(now: NodeState | None) -> str:
    if now is None:
        return "missing"
    if now.paused:
        return "paused"
    if now.running:
        return "running"
    return "out of memory" if now.oom_killed else f"exited ({now.exit_code})"
