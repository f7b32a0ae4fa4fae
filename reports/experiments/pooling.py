"""What the pools are worth: figures of the experiment ``pooling``, from its cells.

*Connection overhead* = mean time of a transaction with a connection for it − mean time of the same
transaction on an open connection, on one path, in one repeat. *Reduction* = 1 − overhead through the pool ÷
overhead direct, in one repeat. Judged is the median over the repeats, with its interval from 6 repeats on.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from lab.record.reader import RecordReader
from reports.analysis.metrics import Metrics, total
from reports.analysis.pool_cells import Figures, cells
from reports.analysis.trials import median_interval
from reports.experiments import Experiment, Outcome
from reports.experiments import _pooling_sections as sections
from reports.experiments._pooling_groups import (
    DIRECT,
    MODES,
    STORED,
    Group,
    Overhead,
    grouped,
    judged,
    overheads,
    prepared_gain,
)
from reports.experiments._pooling_sections import EVIDENCE
from reports.findings import Finding
from reports.view import Headline, figure, number

LEAST_EFFICIENCY = 90.0
"""Percent; what the control has to fail: the target of the risk platform's document."""
UPKEEP_S = 1 / 3
"""PgBouncer looks for what has to be closed three times a second."""


def analyse(record: RecordReader) -> Outcome:
    found = cells(record)
    groups = grouped(found)
    over = overheads(groups)
    findings = [
        _reduction(over),
        *_efficiency(groups, record),
        *_connections(record, groups),
        _prepared(groups),
        *_timeouts(record),
        _counts(found),
    ]
    return Outcome(
        tuple(findings),
        _lead(groups, over),
        _headlines(findings),
        (
            sections.overhead_section(over),
            sections.cpu_section(groups),
            sections.rates(groups),
            sections.modes(groups),
            sections.prepared(groups),
            sections.memory(record),
            sections.gates(found, findings[-1]),
        ),
    )


def _share(metric: str, values: Sequence[float], why: str, **detail: object) -> Finding:
    """A finding of a share in percent: the median over the repeats."""
    if not values:
        return Finding(
            metric=metric,
            unit="%",
            value=None,
            status="not run",
            why="no cells that can be compared were run",
        )
    interval = median_interval(values)
    few = "fewer than 3 repeats could be compared" if len(values) < 3 else ""
    return Finding(
        metric=metric,
        unit="%",
        value=median(values),
        samples=tuple(values),
        interval=interval[0] if interval else None,
        confidence=interval[1] if interval else None,
        status="inconclusive" if few else None,
        why=few or why,
        evidence=EVIDENCE,
        detail={"repeats": len(values), **detail},
    )


def _reduction(over: Sequence[Overhead]) -> Finding:
    """With several clients; with one where the generator was what several of them waited for."""
    several, alone = judged(over), judged(over, 1)
    mine, said = several, ""
    if several is not None and several.limited:
        said = (
            f"; with {several.clients} clients at least {number(median(several.reduction))} %: the load's "
            "own process used more than 80 % of its core"
        )
        mine = alone if alone is not None and not alone.limited else several
    count = f"{mine.clients} client{'s' if mine.clients > 1 else ''}" if mine else "no client"
    why = f"transaction pool, {count}, SCRAM with stored secrets; median over repeats, paired{said}"
    found = _share("pool.overhead_reduction", mine.reduction if mine else (), why)
    if mine is not None and mine.limited and not found.status:
        return found.model_copy(update={"status": "inconclusive", "why": why})
    return found


def _efficiency(groups: Sequence[Group], record: RecordReader) -> list[Finding]:
    """The worst of the lab's own poolers over its cells, with clients that come and go; and its control."""
    metric = "pool.efficiency"
    share = {}
    for mode in MODES:
        mine = [
            c
            for g in groups
            if g.path == mode and g.authentication == STORED
            for c in g.valid.values()
            if c.assignments and c.new_connections is not None
        ]
        coming = [c for c in mine if c.parameters["connections"] == "per-request"]
        assigned = sum(c.assignments or 0 for c in mine)
        if coming and assigned >= 100:
            share[mode] = 100 * (1 - sum(c.new_connections or 0 for c in mine) / assigned)
    control = _control(record)
    if not share:
        why = "no pool served clients that come and go"
        return [Finding(metric=metric, unit="%", value=None, status="not run", why=why), control]
    blind = control.value is not None and control.value >= LEAST_EFFICIENCY
    why = "the worst pool, over all cells, with clients that come and go"
    if blind:
        why = f"a pool that keeps no connection scored {number(control.value)} %: the figure cannot fail"
    found = Finding(
        metric=metric,
        unit="%",
        value=min(share.values()),
        status="invalid" if blind else None,
        why=why,
        evidence=("cells.parquet", "logs/"),
        detail={"pools": share},
    )
    return [found, control]


def _control(record: RecordReader) -> Finding:
    """With server_lifetime=1; beside it a pooler as the lab's under the same load."""
    share = {}
    for cell in record.cells():
        if cell["name"].startswith("control/"):
            assigned = cell["result"]["pooler"].get("total_server_assignment_count", 0)
            if assigned >= 100:
                lifetime = cell["parameters"]["server_lifetime"]
                share[lifetime] = 100 * (1 - cell["result"]["new_connections"] / assigned)
    metric = "pool.efficiency_control"
    if share.get(1) is None:
        return Finding(metric=metric, unit="%", value=None, status="not run", why="it was not tried")
    own = f"; with the lab's own settings {number(share[None])} %" if share.get(None) is not None else ""
    return Finding(
        metric=metric,
        unit="%",
        value=share[1],
        why=f"server_lifetime=1, clients that come and go slowly: it must fail the target of "
        f"{LEAST_EFFICIENCY:g} %{own}",
        evidence=("cells.parquet",),
        detail={"as_designed": share.get(None)},
    )


def _connections(record: RecordReader, groups: Sequence[Group]) -> list[Finding]:
    """The greatest number of server connections of each mode's pooler at any sample."""
    metrics = Metrics(record)
    found = []
    for mode in MODES:
        used = [c for g in groups if g.path == mode for c in g.cells if c.assignments]
        metric = f"pool.server_connections.{mode}"
        node = used[0].parameters["pooler"] if used else None
        _, held = total(
            [s for s in metrics.find("pgb_sv_total", node) if not (s.label or "").startswith("pgbouncer/")]
        )
        if node is None or not len(held):
            why = "no cell used a pool of this mode"
            found.append(Finding(metric=metric, unit="1", value=None, status="not run", why=why))
            continue
        most = max(g.clients for g in groups if g.path == mode)
        why = f"the greatest number held at a time, with up to {most} clients"
        found.append(
            Finding(metric=metric, unit="1", value=float(held.max()), why=why, evidence=("metrics.parquet",))
        )
    return found


def _prepared(groups: Sequence[Group]) -> Finding:
    gains = {path: prepared_gain(groups, path) for path in (DIRECT, *MODES)}
    shown = {path: median(values) for path, values in gains.items() if values}
    return _share(
        "prepared.saved",
        gains.get("transaction", ()),
        "transaction pool: what preparing saves of the mean time of one statement",
        paths=shown,
    )


def _timeouts(record: RecordReader) -> list[Finding]:
    idle = [c for c in record.cells() if c["name"] == "idle-timeout"]
    # When it was due: after the last look at which it was open, less one round of the pooler's upkeep
    # (which no clock scales), and before it was seen gone.
    due = [
        ((c["result"]["open_until_s"] - UPKEEP_S) * c["parameters"]["factor"],
         c["result"]["gone_at_s"] * c["parameters"]["factor"])
        for c in idle
        if c["result"].get("gone_at_s")
    ]  # fmt: skip
    early = [
        c
        for c in idle
        if c["result"].get("open_until_s", 0) * c["parameters"]["factor"] < 0.8 * c["parameters"]["timeout_s"]
    ]
    factor = idle[0]["parameters"]["factor"] if idle else 0
    if not idle:
        first = Finding(
            metric="pool.idle_timeout", unit="s", value=None, status="not run", why="it was not tried"
        )
    elif len(due) < len(idle) or early:
        why = "a connection outlived the wait for it, or went long before its time"
        first = Finding(metric="pool.idle_timeout", unit="s", value=None, status="invalid", why=why)
    else:
        low, high = min(a for a, _ in due), max(b for _, b in due)
        first = Finding(
            metric="pool.idle_timeout",
            unit="s",
            value=median(a for a, _ in due),
            samples=tuple(a for a, _ in due),
            why=f"all times divided by {factor:g}: a connection nobody used was closed after "
            f"{low:.0f} to {high:.0f} s; judged is the earliest moment at which it can have been due",
            evidence=("cells.parquet",),
            detail={"trials": len(due), "promised_s": idle[0]["parameters"]["timeout_s"]},
        )
    waits = [c for c in record.cells() if c["name"] == "query-wait-timeout"]
    told = [c["result"]["waited_s"] for c in waits if "query_wait_timeout" in c["result"].get("said", "")]
    second = Finding(
        metric="pool.query_wait",
        unit="s",
        value=median(told) if told and len(told) == len(waits) else None,
        samples=tuple(told),
        status=None if told and len(told) == len(waits) else "not run" if not waits else "invalid",
        why=f"query_wait_timeout = {waits[0]['parameters']['timeout_s']:g} s; the client was told so"
        if waits
        else "it was not tried",
        evidence=("cells.parquet",) if waits else (),
    )
    return [first, second]


def _counts(found: Sequence[Figures]) -> Finding:
    told = [c.counted for c in found if c.counted is not None]
    wrong = sum(abs(clients - pooler) for clients, pooler in told)
    return Finding(
        metric="pool.counts",
        unit="transactions",
        value=float(wrong) if told else None,
        status=None if told else "not run",
        why=f"{sum(c for c, _ in told):,} transactions by the clients, {sum(p for _, p in told):,} by the "
        f"poolers, "
        f"in {len(told)} cells without a prepared statement or a failure"
        if told
        else "no cell has counts that can be compared",
        evidence=("cells.parquet", "requests.parquet"),
    )


def _lead(groups: Sequence[Group], over: Sequence[Overhead]) -> str:
    mine = judged(over)
    if mine is None:
        return "What pooling saves could not be told: no pair of cells could be compared."
    text = f"The transaction pool takes {number(median(mine.reduction))} % off what connecting costs"
    others = [
        f"{number(median(o.reduction))} % with {o.authentication}"
        for o in over
        if o.authentication != STORED and o.reduction and o.clients == mine.clients
    ]
    text += f" {mine.clients} clients" + (
        f" (SCRAM with stored secrets; {', '.join(others)})" if others else ""
    )
    alone = judged(over, 1)
    text += f", and {number(median(alone.reduction))} % where one comes alone." if alone else "."
    lasting = [
        (g.path, g.middle(lambda c: c.per_s)) for g in groups if _is_base(g) and g.connections == "lasting"
    ]
    best = max((x for x in lasting if x[1] is not None), key=lambda x: x[1] or 0, default=None)
    return text + (
        f" Clients that keep their connections get the most transactions {_by(best[0])}." if best else ""
    )


def _by(path: str) -> str:
    return "without a pool" if path == DIRECT else f"from the {path} pool"


def _is_base(group: Group) -> bool:
    return group.workload == "limit-check" and group.prepared and group.authentication == STORED


def _headlines(findings: Sequence[Finding]) -> tuple[Headline, ...]:
    words = {
        "pool.overhead_reduction": "Connection overhead saved",
        "pool.efficiency": "Transactions on an open connection",
        "pool.efficiency_control": "The same with a pool that keeps none",
        "prepared.saved": "Time saved by preparing",
        "pool.counts": "Transactions that one side did not count",
    }
    found = []
    for one in findings:
        if one.metric in words:
            low = one.interval
            detail = (
                f"{figure(low[0], one.unit)} to {figure(low[1], one.unit)}; {one.why}" if low else one.why
            )
            found.append(Headline(words[one.metric], figure(one.value, one.unit), detail))
    return tuple(found)


EXPERIMENT = Experiment(
    "pooling",
    (
        "pool.overhead_reduction",
        "pool.efficiency",
        "pool.efficiency_control",
        *(f"pool.server_connections.{mode}" for mode in MODES),
        "prepared.saved",
        "pool.idle_timeout",
        "pool.query_wait",
        "pool.counts",
    ),
    analyse,
)
