"""A promise that nothing acknowledged is lost needs a standby that confirms each write.

With ``synchronous: on`` Patroni lets the primary go on alone while no standby is there (Patroni's
documentation, replication modes), so that a second failure may then lose writes; ``strict`` stops writes
instead.
"""

from __future__ import annotations

from reports.findings import Verdict
from reports.paper import Paper, Rule, figure, implied

METRIC = "synchronous.standbys"
PROMISES = ("rpo.rows", "ledger.lost")


def run(paper: Paper) -> list[Verdict]:
    postgres = paper.topology.postgres
    able = [node.name for node in postgres.promotable if node.role != "primary"]
    if postgres.synchronous == "off":
        finding = figure(
            METRIC, "1", 0, "synchronous: off, a write is acknowledged before any standby has it"
        )
    else:
        said = f"synchronous: {postgres.synchronous}, standbys that may confirm: {', '.join(able) or 'none'}"
        if len(able) == 1:
            said += {
                "on": "; while it is away writes go on without it, and a second failure may lose them",
                "strict": "; while it is away every write waits",
            }[postgres.synchronous]
        finding = figure(METRIC, "1", len(able), said)
    return [
        implied(target.model_copy(update={"comparison": ">=", "limit": 1.0}), finding)
        for target in paper.promised(*PROMISES)
        if target.limit == 0 and target.comparison in ("==", "<=")
    ]


RULE = Rule("synchronous", "standbys behind a promise that nothing is lost", {METRIC: "1"}, run)
