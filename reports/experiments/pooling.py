"""What the pools are worth: figures of the experiment ``pooling``, from its cells.

*Connection overhead* = mean time of a transaction with a connection for it − mean time of the same
transaction on an open connection, on one path, in one repeat. *Reduction* = 1 − overhead through the pool ÷
overhead direct, in one repeat. Judged is the median over the repeats, with its interval from 6 repeats on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lab.record.reader import RecordReader
from reports.analysis.metrics import Metrics, total
from reports.analysis.pool_cells import Figures, cells
from reports.analysis.trials import median_interval
from reports.experiments import Experiment, Outcome, Section, Table
from reports.experiments._pooling_charts import (
    cpu_chart,
    mode_chart,
    overhead_chart,
    rate_chart,
)
from reports.findings import Finding
from reports.view import Headline, figure, number

MODES = ("transaction", "session", "statement")
DIRECT = "direct"
UPKEEP_S = 1 / 3
"""PgBouncer looks for what has to be closed three times a second."""
EVIDENCE = ("cells.parquet", "requests.parquet")


@dataclass(frozen=True)
class Group:
    """All repeats of one kind of cell."""

    path: str
    workload: str
    connections: str
    clients: int
    prepared: bool
    authentication: str
    cells: tuple[Figures, ...]

    @property
    def valid(self) -> dict[int, Figures]:
        """Repeat → cell, of those that may be compared."""
        return {c.repeat: c for c in self.cells if not c.invalid and not c.not_run}

    def middle(self, pick: Callable[[Figures], float | None]) -> float | None:
        known = [value for cell in self.valid.values() if (value := pick(cell)) is not None]
        return median(known) if known else None


@dataclass(frozen=True)
class Overhead:
    """What connecting costs on one path; one value a repeat."""

    path: str
    authentication: str
    clients: int
    ms: dict[int, float]
    reduction: tuple[float, ...]
    """Percent against direct, paired by repeat; empty for direct itself."""

    @property
    def label(self) -> str:
        return self.path if self.authentication == "stored secrets" else f"{self.path}, {self.authentication}"


def grouped(found: Sequence[Figures]) -> list[Group]:
    """Cells by kind, in the order in which kinds first came; without the generator's own."""
    kinds: dict[tuple[Any, ...], list[Figures]] = {}
    names = ("path", "workload", "connections", "clients", "prepared", "authentication")
    for cell in found:
        if cell.parameters["group"] != "ceiling":
            kinds.setdefault(tuple(cell.parameters[name] for name in names), []).append(cell)
    order = (DIRECT, *MODES)
    groups = [
        Group(**dict(zip(names, kind, strict=True)), cells=tuple(members)) for kind, members in kinds.items()
    ]
    return sorted(
        groups, key=lambda g: (g.workload, g.clients, order.index(g.path), g.authentication, g.connections)
    )


def overheads(groups: Sequence[Group], workload: str = "limit-check") -> list[Overhead]:
    """Per path, way to log in and number of clients; direct leads."""
    found: list[Overhead] = []
    direct: dict[int, dict[int, float]] = {}
    for group in groups:
        if group.workload != workload or group.connections != "per-request" or not group.prepared:
            continue
        lasting = _one(groups, group.path, workload, group.clients)
        if lasting is None:
            continue
        ms = {
            repeat: cell.mean_ms - lasting.valid[repeat].mean_ms
            for repeat, cell in group.valid.items()
            if repeat in lasting.valid
        }
        if group.path == DIRECT:
            direct[group.clients] = ms
        base = direct.get(group.clients, {})
        shares = tuple(
            100 * (1 - ms[r] / base[r]) for r in sorted(ms) if group.path != DIRECT and base.get(r, 0) > 0
        )
        found.append(Overhead(group.path, group.authentication, group.clients, ms, shares))
    return found


def _one(groups: Sequence[Group], path: str, workload: str, clients: int) -> Group | None:
    """The lasting clients on a path, as the lab's own pooler serves them."""
    return next(
        (
            g
            for g in groups
            if (g.path, g.workload, g.clients, g.connections) == (path, workload, clients, "lasting")
            and g.prepared
            and g.authentication == "stored secrets"
        ),
        None,
    )


def analyse(record: RecordReader) -> Outcome:
    found = cells(record)
    groups = grouped(found)
    over = overheads(groups)
    judged = next(
        (o for o in over if o.path == "transaction" and o.authentication == "stored secrets" and o.reduction),
        None,
    )
    findings = [
        _reduction(judged),
        _efficiency(groups),
        *_connections(record, groups),
        _prepared(groups),
        *_timeouts(record),
        _counts(found),
    ]
    return Outcome(
        tuple(findings),
        _lead(groups, over, judged),
        _headlines(findings),
        (
            _overhead_section(over),
            _cpu_section(groups),
            _rates(groups, over),
            _modes(groups),
            _memory(record),
            _gates(found, findings[-1]),
        ),
    )


def _share(metric: str, values: Sequence[float], why: str, **detail: object) -> Finding:
    """A finding of a share in percent: the median over the repeats."""
    if not values:
        return Finding(
            metric=metric, unit="%", value=None, status="not run", why=why or "no repeat gave a figure"
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


def _reduction(judged: Overhead | None) -> Finding:
    values = judged.reduction if judged else ()
    clients = judged.clients if judged else 0
    return _share(
        "pool.overhead_reduction",
        values,
        f"transaction pool, {clients} clients, SCRAM with stored secrets; median over repeats, paired",
    )


def _efficiency(groups: Sequence[Group]) -> Finding:
    """Over the cells of the lab's own poolers, with clients that come and go; the worst pooler."""
    metric = "pool.efficiency"
    share = {}
    for mode in MODES:
        mine = [
            c
            for g in groups
            if g.path == mode and g.authentication == "stored secrets"
            for c in g.valid.values()
            if c.assignments and c.new_connections is not None
        ]
        coming = [c for c in mine if c.parameters["connections"] == "per-request"]
        assigned = sum(c.assignments or 0 for c in mine)
        if coming and assigned >= 100:
            share[mode] = 100 * (1 - sum(c.new_connections or 0 for c in mine) / assigned)
    if not share:
        return Finding(
            metric=metric,
            unit="%",
            value=None,
            status="not run",
            why="no pool served clients that come and go",
        )
    return Finding(
        metric=metric,
        unit="%",
        value=min(share.values()),
        why="the worst pool, over all cells, with clients that come and go",
        evidence=("cells.parquet", "logs/"),
        detail={"pools": share},
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


def prepared_gain(groups: Sequence[Group], path: str) -> tuple[float, ...]:
    """Percent of the mean time that preparing saves on a path, one value a repeat."""
    off = next((g for g in groups if g.path == path and not g.prepared), None)
    on = _one(groups, path, off.workload, off.clients) if off else None
    if off is None or on is None:
        return ()
    return tuple(
        100 * (1 - on.valid[r].mean_ms / off.valid[r].mean_ms) for r in sorted(off.valid) if r in on.valid
    )


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


def _lead(groups: Sequence[Group], over: Sequence[Overhead], judged: Overhead | None) -> str:
    if judged is None:
        return "What pooling saves could not be told: no pair of cells could be compared."
    said = [f"The transaction pool takes {number(median(judged.reduction))} % off what connecting costs"]
    others = [
        f"{number(median(o.reduction))} % with {o.authentication}"
        for o in over
        if o.authentication != "stored secrets" and o.reduction
    ]
    text = said[0] + (f" (SCRAM with stored secrets; {', '.join(others)})." if others else ".")
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
    return group.workload == "limit-check" and group.prepared and group.authentication == "stored secrets"


def _headlines(findings: Sequence[Finding]) -> tuple[Headline, ...]:
    words = {
        "pool.overhead_reduction": "Connection overhead saved",
        "pool.efficiency": "Transactions on an open connection",
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


def _overhead_section(over: Sequence[Overhead]) -> Section:
    rows = []
    for one in over:
        interval = median_interval(one.reduction) if one.reduction else None
        rows.append(
            (
                str(one.clients),
                one.label,
                figure(median(one.ms.values()), "ms") if one.ms else "–",
                figure(median(one.reduction), "%") if one.reduction else "–",
                f"{number(interval[0][0])} to {number(interval[0][1])}" if interval else "–",
                str(len(one.ms)),
            )
        )
    text = (
        "Overhead: mean time of a transaction with a connection of its own, less that of the same "
        "transaction on an "
        "open connection, both on the same path and in the same repeat. Reduction: against the overhead "
        "without a "
        "pool. All clients connect with TLS, and nothing but the pool and the way to log in differs.",
        "Where the saving comes from: a pool spares the server the fork of a backend, its start and its "
        "caches, and "
        "its own TLS handshake. It spares the client nothing: that still makes a TLS handshake and "
        "proves its "
        "password. With SCRAM both sides of a proof hash 4,096 times. Where the pooler holds the stored "
        "secret, "
        "only the client does that; where it holds the plain password, the pooler, one process on one core, "
        "derives the secret anew at every login. md5 costs next to nothing on either side, and is weak: "
        "it shows "
        "how much of the rest is the proof, and is no advice.",
    )
    head = ("clients", "path", "overhead", "reduction", "95 % interval", "repeats")
    return Section("overhead", "What a connection costs", text, overhead_chart(over),
                   (Table(head, tuple(rows), frozenset({0, 2, 3, 4, 5})),), EVIDENCE)  # fmt: skip


def _cpu_section(groups: Sequence[Group]) -> Section:
    chosen = [
        g for g in groups if g.workload == "limit-check" and g.prepared and g.connections == "per-request"
    ]
    return Section(
        "cpu",
        "Who works for a connection",
        ("CPU time a transaction with a connection of its own, by node. What the pool takes off the database "
         "is "
         "what it saves; what stays with the client, no pool can save.",),
        cpu_chart(chosen),
        (),
        ("metrics.parquet", "cells.parquet"),
    )  # fmt: skip


def _rates(groups: Sequence[Group], over: Sequence[Overhead]) -> Section:
    assert over is not None
    rows, tones = [], []
    for g in groups:
        valid = list(g.valid.values())
        limited = any(c.limited for c in valid)
        why = next((c.not_run or "; ".join(c.invalid) for c in g.cells if c.not_run or c.invalid), "")
        note = "; ".join(x for x in ("generator" if limited else "", why if not valid else "") if x)
        if valid and len(valid) < len(g.cells):
            note = "; ".join(x for x in (note, f"{len(g.cells) - len(valid)} of {len(g.cells)} invalid") if x)
        how = [] if g.prepared else ["unprepared"]
        how += [] if g.authentication == "stored secrets" else [g.authentication]
        rows.append(
            (
                g.workload,
                str(g.clients),
                ", ".join([g.path, *how]),
                g.connections,
                number(g.middle(lambda c: c.per_s)),
                figure(g.middle(lambda c: c.mean_ms), "ms"),
                figure(g.middle(lambda c: c.percentiles.get("p50")), "ms"),
                figure(g.middle(lambda c: c.percentiles.get("p99")), "ms"),
                note,
            )
        )
        tones.append(("",) * 8 + ("unsure" if note else "",))
    head = ("workload", "clients", "path", "connections", "per s", "mean", "p50", "p99", "note")
    text = (
        "Median over the repeats. Closed loop: every client sends its next transaction when the last one is "
        "answered, so percentiles are of the service time and hold coordinated omission; compare means "
        "and rates. "
        "“generator”: the load's own process used more than 80 % of its core, so that the system can do "
        "more. "
        "Statement pooling refuses transactions: trade-booking is compared between the modes that can "
        "run it.",
    )
    table = Table(head, tuple(rows), frozenset({1, 4, 5, 6, 7}), tones=tuple(tones))
    return Section("rates", "Transactions per second", text, rate_chart(groups), (table,), EVIDENCE)


def _modes(groups: Sequence[Group]) -> Section:
    rows = []
    for g in groups:
        if g.path == DIRECT or not g.valid or g.authentication != "stored secrets" or not g.prepared:
            continue
        rows.append(
            (
                g.workload,
                str(g.clients),
                g.path,
                g.connections,
                figure(g.middle(lambda c: c.efficiency), "%"),
                figure(g.middle(lambda c: c.utilisation), "%"),
                figure(g.middle(lambda c: c.wait_ms), "ms"),
                number(g.middle(lambda c: c.multiplexing)),
            )
        )
    head = (
        "workload",
        "clients",
        "pool",
        "connections",
        "efficiency",
        "utilisation",
        "wait",
        "clients a connection",
    )
    text = (
        "Efficiency: transactions that found a server connection open. Utilisation: server connections "
        "in use ÷ the "
        "writer's share of the pool. Wait: what a client waited for a server connection, on average. Lasting "
        "clients alone score an efficiency near 100 % whatever the pool, so the judged one holds clients "
        "that come "
        "and go.",
    )
    gains = {path: prepared_gain(groups, path) for path in (DIRECT, *MODES)}
    prepared = tuple(
        (path, figure(median(values), "%"), str(len(values))) for path, values in gains.items() if values
    )
    tables = [Table(head, tuple(rows), frozenset({1, 4, 5, 6, 7}))]
    if prepared:
        note = "Mean time of one statement, prepared against not, on lasting connections, paired by repeat."
        tables.append(
            Table(("path", "time saved by preparing", "repeats"), prepared, frozenset({1, 2}), note)
        )
    evidence = ("cells.parquet", "metrics.parquet", "logs")
    return Section("modes", "How the pools were used", text, mode_chart(groups), tuple(tables), evidence)


def _memory(record: RecordReader) -> Section:
    rows = []
    for cell in record.cells():
        if not cell["name"].startswith("idle-memory/"):
            continue
        before, after = cell["result"]["before"], cell["result"]["after"]
        count = cell["parameters"]["count"]
        row = [cell["name"].partition("/")[2], str(count)]
        for kind in ("backends", "pooler"):
            grown = after[kind]["pss_bytes"] - before[kind]["pss_bytes"]
            row += [str(after[kind]["count"] - before[kind]["count"]), figure(grown / 2**20, "MiB")]
        if row[0] == "direct" and after["backends"]["count"] - before["backends"]["count"] < count:
            # Their memory could not be looked at: no figure is better than a wrong one.
            return Section(
                "memory", "What idle connections cost", ("The memory of the backends could not be read.",)
            )
        each = sum(after[k]["pss_bytes"] - before[k]["pss_bytes"] for k in ("backends", "pooler")) / count
        rows.append((*row[:4], row[5], figure(each / 2**10, "KiB")))
    head = ("path", "idle clients", "more backends", "their memory", "pooler's memory", "a client")
    text = (
        "Clients that have run one statement and then idle. PSS: each process's own memory and its part "
        "of what it "
        "shares, so shared buffers do not count once a backend.",
    )
    table = Table(head, tuple(rows), frozenset({1, 2, 3, 4, 5}))
    return Section("memory", "What idle connections cost", text if rows else ("It was not measured.",), (),
                   (table,) if rows else (), ("cells.parquet",) if rows else ())  # fmt: skip


def _gates(found: Sequence[Figures], counts: Finding) -> Section:
    ceilings = [c for c in found if c.parameters["group"] == "ceiling"]
    rows = tuple(
        (
            c.parameters["connections"],
            number(c.per_s),
            figure(1000 / c.cpu_ms["client"] if c.cpu_ms.get("client") else None, "per s"),
            figure(100 * c.generator if c.generator is not None else None, "%"),
        )
        for c in ceilings
    )
    bad = [c for c in found if c.invalid]
    worst = max(
        (c.little_percent for c in found if c.little_percent is not None and not c.invalid), default=None
    )
    text = (
        "Little's law: rate · mean time is the number of requests under way, as the generator counts them "
        f"apart, to within {figure(worst, '%')} in every cell that is compared; {len(bad)} of {len(found)} "
        "cells were off by more than 5 %, or failed, and are left out.",
        f"Counts: {counts.why}; difference {figure(counts.value, '1')}.",
    )
    head = ("connections", "reached", "the generator's ceiling by its CPU", "of its core")
    note = "Before the cells, without a pool. The ceiling: what one process could send on a core of its own."
    return Section(
        "gates", "Whether to believe it", text, (), (Table(head, rows, frozenset({1, 2, 3}), note),), EVIDENCE
    )


EXPERIMENT = Experiment(
    "pooling",
    (
        "pool.overhead_reduction",
        "pool.efficiency",
        *(f"pool.server_connections.{mode}" for mode in MODES),
        "prepared.saved",
        "pool.idle_timeout",
        "pool.query_wait",
        "pool.counts",
    ),
    analyse,
)
