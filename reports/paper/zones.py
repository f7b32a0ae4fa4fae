"""The loss of any one availability zone: what is left must be able to lead, and to decide who does.

Of the databases a promotable one has to remain, of etcd a majority, of the Sentinels a majority, of the cache
a node. Pooler, router and clients are left out: the document's are services of a region.
"""

from __future__ import annotations

from collections.abc import Sequence

from reports.findings import Verdict
from reports.paper import Paper, Rule, figure, holds, implied

METRIC = "topology.survives_zone"
IMPLIED_BY = ("failover.automatic",)
"""Promises that need it, where the databases stand in several zones."""


def run(paper: Paper) -> list[Verdict]:
    topology = paper.topology
    zones = sorted({node.zone for node in topology.postgres.nodes})
    wrong = {zone: missing for zone in zones if (missing := _missing(paper, zone))}
    said = "; ".join(
        f"without zone {zone} there is no {' and no '.join(missing)}" for zone, missing in wrong.items()
    )
    value = 100 * (len(zones) - len(wrong)) / len(zones)
    finding = figure(METRIC, "%", value, said or f"each of {', '.join(zones)} can be lost")
    found = holds(paper, finding)
    if not found and len(zones) > 1:
        found = [implied(target, finding) for target in paper.promised(*IMPLIED_BY)[:1]]
    return found


def _missing(paper: Paper, zone: str) -> list[str]:
    """What is not left without a zone."""
    topology = paper.topology
    missing = []
    if all(node.zone == zone for node in topology.postgres.promotable):
        missing.append("promotable database")
    for name, members in (
        ("majority of etcd", topology.etcd),
        ("majority of the Sentinels", topology.cache.sentinels if topology.cache else ()),
    ):
        if members and not _majority([member.zone for member in members], zone):
            missing.append(name)
    cache = topology.cache.nodes if topology.cache else ()
    if len(cache) > 1 and all(node.zone == zone for node in cache):
        missing.append("cache node")
    return missing


def _majority(zones: Sequence[str], lost: str) -> bool:
    return sum(zone != lost for zone in zones) * 2 > len(zones)


RULE = Rule("zones", "what is left when a zone is lost", {METRIC: "%"}, run)
