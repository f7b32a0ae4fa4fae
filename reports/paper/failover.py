"""Promised recovery times and automatic failover against what the settings can give.

The worst case is that of the chains of ``lab/scenario/predict.py``, since the worst trial decides. A database
that nothing takes over for has no automatic failover.
"""

from __future__ import annotations

from lab.scenario.predict import PARTS, predict_chain
from reports.findings import Verdict
from reports.paper import Paper, Rule, figure, implied

PREDICTED = "rto.predicted"
SUCCESSORS = "failover.successors"
CHAINS = {"lease": "its machine is lost", "release": "its PostgreSQL is lost"}


def run(paper: Paper) -> list[Verdict]:
    return [*_recovery(paper), *_automatic(paper)]


def _recovery(paper: Paper) -> list[Verdict]:
    if paper.topology.postgres.high_availability != "patroni" or not _successors(paper):
        return []
    by_chain = {chain: predict_chain(paper.topology, chain) for chain in ("lease", "release")}
    chain, worst = max(by_chain.items(), key=lambda item: item[1]["worst"])
    terms = " + ".join(f"{part} {worst[f'{part}_worst']:g}" for part in PARTS)
    said = (
        f"worst case where {CHAINS[chain]}: {terms} = {worst['worst']:g} s "
        f"(best {min(one['best'] for one in by_chain.values()):g} s)"
    )
    finding = figure(PREDICTED, "s", worst["worst"], said)
    limits = {(target.comparison, target.limit): target for target in reversed(paper.promised("rto.write"))}
    return [implied(target, finding) for target in limits.values()]


def _automatic(paper: Paper) -> list[Verdict]:
    names = _successors(paper)
    said = ", ".join(names) or "no other node may be promoted, so there is no failover"
    finding = figure(SUCCESSORS, "1", len(names), said)
    return [
        implied(target.model_copy(update={"comparison": ">=", "limit": 1.0}), finding)
        for target in paper.promised("failover.automatic")[:1]
    ]


def _successors(paper: Paper) -> list[str]:
    """Nodes that may take the primary's place by themselves."""
    postgres = paper.topology.postgres
    if postgres.high_availability != "patroni":
        return []
    return [node.name for node in postgres.promotable if node.role != "primary"]


RULE = Rule(
    "failover", "recovery times and failover against the settings", {PREDICTED: "s", SUCCESSORS: "1"}, run
)
