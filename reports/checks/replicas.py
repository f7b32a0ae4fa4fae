"""Where the load's reads ran, by every node's own count of statements (pg_stat_statements).

The load leads each statement with a comment: the service, and the route that it took. So each node tells what
it served, whatever routers and poolers did in between.

- ``reads.replica_share``: of the calls of statements that the load sent to a reader, the percentage that ran
  on replicas of the topology (the standby is none).
- ``analytics.on_primary``: calls of the service ``analytics`` that ran on a node that accepted writes at any
  time of the run. Without one on any node there is nothing to tell.
- ``batch.direct``: of the calls of the service ``batch``, the percentage that went past the poolers and ran
  on such a node.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

EVIDENCE = ("statements.json", "topology.yaml")
SHARE, ANALYTICS, BATCH = "reads.replica_share", "analytics.on_primary", "batch.direct"
UNITS = {SHARE: "%", ANALYTICS: "1", BATCH: "%"}
TAG = re.compile(r"^/\* (?P<service>[a-z-]+) (?P<route>[a-z.]+) \*/")
LEAST = 20
"""Calls that a share needs."""


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    calls = tagged(analysis.statements)
    roles = _roles(record)
    missing = sorted(set(roles) - set(analysis.statements))
    if not analysis.statements or missing:
        why = f"the statements of {', '.join(missing) or 'the nodes'} were not collected"
        return [nothing(metric, unit, "not run", why) for metric, unit in UNITS.items()]
    primaries = _primaries(record, roles)
    return [_share(calls, roles), _on_primary(calls, roles, primaries), _direct(calls, primaries)]


def tagged(statements: dict[str, tuple[dict[str, Any], ...]]) -> Counter[tuple[str, str, str]]:
    """(node, service, route) → calls of the statements that the load tagged."""
    calls: Counter[tuple[str, str, str]] = Counter()
    for node, rows in statements.items():
        for row in rows:
            found = TAG.match(str(row.get("query", "")))
            if found:
                calls[node, found["service"], found["route"]] += int(row.get("calls") or 0)
    return calls


def reads_by_node(calls: Counter[tuple[str, str, str]]) -> dict[str, int]:
    """Node → calls of what was sent to a reader."""
    found: Counter[str] = Counter()
    for (node, _, route), count in calls.items():
        if route.rpartition(".")[2] == "reader":
            found[node] += count
    return dict(found)


def _share(calls: Counter[tuple[str, str, str]], roles: dict[str, str]) -> Finding:
    reads = reads_by_node(calls)
    every = sum(reads.values())
    if "replica" not in roles.values():
        return nothing(SHARE, "%", "not run", "the topology has no replica")
    if every < LEAST:
        return nothing(SHARE, "%", "not run", f"the load sent {every} statements to a reader")
    on_replicas = sum(count for node, count in reads.items() if roles.get(node) == "replica")
    shares = {node: round(100 * count / every, 2) for node, count in sorted(reads.items())}
    return Finding(
        metric=SHARE,
        unit="%",
        value=100 * on_replicas / every,
        evidence=EVIDENCE,
        why=", ".join(f"{node} ({roles.get(node, '?')}) {share:g} %" for node, share in shares.items()),
        detail={"nodes": shares, "reads": every},
    )


def _on_primary(calls: Counter[tuple[str, str, str]], roles: dict[str, str], primaries: set[str]) -> Finding:
    mine: Counter[str] = Counter()
    for (node, service, route), count in calls.items():
        # What the generator looks up before it begins is no query of the service.
        if service == "analytics" and route != "prepare":
            mine[node] += count
    if not mine:
        return nothing(ANALYTICS, "1", "not run", "the load ran no analytics")
    return Finding(
        metric=ANALYTICS,
        unit="1",
        value=float(sum(mine[node] for node in primaries)),
        evidence=EVIDENCE,
        why=", ".join(f"{node} ({roles.get(node, '?')}): {count:,}" for node, count in sorted(mine.items())),
        detail={"calls": dict(mine), "primaries": sorted(primaries)},
    )


def _direct(calls: Counter[tuple[str, str, str]], primaries: set[str]) -> Finding:
    mine = {
        (node, route): n
        for (node, service, route), n in calls.items()
        if service == "batch" and route != "prepare"
    }
    if not mine:
        return nothing(BATCH, "%", "not run", "the load ran no batch jobs")
    good = sum(n for (node, route), n in mine.items() if route == "direct" and node in primaries)
    return Finding(
        metric=BATCH,
        unit="%",
        value=100 * good / sum(mine.values()),
        evidence=EVIDENCE,
        why=", ".join(f"{node} by {route}: {n:,}" for (node, route), n in sorted(mine.items())),
    )


def _roles(record: RecordReader) -> dict[str, str]:
    """Database node → its role on paper."""
    try:
        paper = yaml.safe_load(record.text("topology.yaml") or "") or {}
        return {str(node["name"]): str(node["role"]) for node in paper["postgres"]["nodes"]}
    except (yaml.YAMLError, KeyError, TypeError):
        return {}


def _primaries(record: RecordReader, roles: dict[str, str]) -> set[str]:
    """Nodes that accepted writes at some time; those on paper where nobody looked."""
    nodes = record.table("nodes", ["node", "accepts_writes"]).to_pandas()
    seen = set(nodes.loc[nodes["accepts_writes"].fillna(value=False).astype(bool), "node"].astype(str))
    return seen or {node for node, role in roles.items() if role == "primary"}


CHECK = Check("replicas", tuple(UNITS), run)
