"""What there is: databases by role, zones, cache nodes, settings that a document names as such."""

from __future__ import annotations

from collections.abc import Sequence

from reports.findings import Finding, Verdict
from reports.paper import Paper, Rule, figure, holds

METRICS = {
    "topology.databases": "1",
    "topology.primaries": "1",
    "topology.standbys": "1",
    "topology.replicas": "1",
    "topology.zones": "1",
    "topology.cache_nodes": "1",
    "topology.sentinels": "1",
    "topology.cache_ttl": "s",
    "topology.tls_min_version": "1",
}


def run(paper: Paper) -> list[Verdict]:
    return [verdict for finding in _findings(paper) for verdict in holds(paper, finding)]


def _findings(paper: Paper) -> list[Finding]:
    topology = paper.topology
    nodes = topology.postgres.nodes
    cache = topology.cache
    zones = sorted({node.zone for node in nodes})
    found = [
        _count("topology.databases", [node.name for node in nodes]),
        _count("topology.primaries", [n.name for n in nodes if n.role == "primary"]),
        _count("topology.standbys", [n.name for n in nodes if n.role == "standby"]),
        _count("topology.replicas", [n.name for n in nodes if n.role not in ("primary", "standby")]),
        figure("topology.zones", "1", len(zones), f"zones of the databases: {', '.join(zones)}"),
        _count("topology.cache_nodes", [node.name for node in cache.nodes] if cache else []),
        _count("topology.sentinels", [node.name for node in cache.sentinels] if cache else []),
    ]
    if cache:
        found.append(figure("topology.cache_ttl", "s", cache.ttl, "cache.ttl"))
    version = float(topology.tls.min_version) if topology.tls.enabled else 0.0
    said = f"tls.min_version {topology.tls.min_version}" if topology.tls.enabled else "TLS is off"
    return [*found, figure("topology.tls_min_version", "1", version, said)]


def _count(metric: str, names: Sequence[str]) -> Finding:
    return figure(metric, "1", len(names), ", ".join(names) or "none")


RULE = Rule("inventory", "what a document says that there is", METRICS, run)
