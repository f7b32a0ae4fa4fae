"""Cost of a month against the promised one: the least that the database instances can cost.

A month is 730 h. A serverless instance is billed for its least capacity at least, unless it pauses; any other
one for its class. Prices are those of ``lab/topology/instances.py``, of one region, each with its source and
date, or *not verified*. Storage, I/O, backups, the proxy and the cache come on top, so that a promise that
fails here fails all the more.
"""

from __future__ import annotations

from lab.topology.instances import ACU_PRICE, PRICE_REGION, SERVERLESS, price_source
from lab.topology.models import DatabaseNode, Topology
from lab.topology.sizing import size_of
from reports.findings import Finding, Verdict
from reports.paper import Paper, Rule, figure, holds
from reports.paper.auto_pause import obstacles

METRIC = "cost.month"
HOURS = 730.0


def run(paper: Paper) -> list[Verdict]:
    return holds(paper, _least(paper)) if paper.promised(METRIC) else []


def _least(paper: Paper) -> Finding:
    topology = paper.topology
    paused = paper.stated.auto_pause_s is not None and not obstacles(paper)
    parts = [_of(node, topology) for node in topology.postgres.nodes]
    unknown = [
        node.name for node, (cost, _) in zip(topology.postgres.nodes, parts, strict=True) if cost is None
    ]
    if unknown:
        return Finding(
            metric=METRIC, unit="$", value=None, status="not run",
            why=f"the price table has nothing for {', '.join(unknown)}",
        )  # fmt: skip
    total = round(sum(cost or 0.0 for cost, _ in parts), 2)
    terms = list(dict.fromkeys(text for _, text in parts))
    said = "; ".join(terms) if len(parts) == 1 else f"{len(parts)} instances, each {'; '.join(terms)}"
    sources = ", ".join(dict.fromkeys(_source(node, topology) for node in topology.postgres.nodes))
    said += f" ({PRICE_REGION}; price: {sources}; storage, I/O and all else on top)"
    if paused:
        hours = "it pauses when idle, so that it is billed for the hours in use only"
        return Finding(metric=METRIC, unit="$", value=None, status="inconclusive", why=f"{hours}: {said}")
    return figure(METRIC, "$", total, said)


def _of(node: DatabaseNode, topology: Topology) -> tuple[float | None, str]:
    """($ a month, the arithmetic)."""
    if node.acu is not None:
        cost = node.acu.minimum * ACU_PRICE * HOURS
        return cost, f"{node.acu.minimum:g} ACU × {ACU_PRICE:g} $/h × {HOURS:g} h = {cost:.2f} $"
    size = size_of(node)
    price = size.aurora_price if topology.postgres.service == "aurora" else size.price
    if price is None:
        return None, ""
    return price * HOURS, f"{node.instance_class} {price:g} $/h × {HOURS:g} h = {price * HOURS:.2f} $"


def _source(node: DatabaseNode, topology: Topology) -> str:
    name = SERVERLESS if node.acu is not None else node.instance_class
    return price_source(name, aurora=topology.postgres.service == "aurora")


RULE = Rule("cost", "cost of a month", {METRIC: "$"}, run)
