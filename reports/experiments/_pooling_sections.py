"""The parts of the report of the experiment ``pooling``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from lab.record.reader import RecordReader
from reports.analysis.pool_cells import Figures
from reports.analysis.trials import median_interval
from reports.experiments import Section, Table
from reports.experiments._pooling_charts import (
    cpu_chart,
    memory_chart,
    mode_chart,
    overhead_chart,
    prepared_chart,
    rate_chart,
)
from reports.experiments._pooling_groups import DIRECT, MODES, STORED, Group, Overhead, prepared_gain
from reports.findings import Finding
from reports.view import figure, number

EVIDENCE = ("cells.parquet", "requests.parquet")
INTERVAL = "95 % interval"


def span(values: Sequence[float]) -> str:
    """The interval of their median; a dash where there are too few."""
    found = median_interval(values) if values else None
    return f"{number(found[0][0])} to {number(found[0][1])}" if found else "–"


def overhead_section(over: Sequence[Overhead]) -> Section:
    rows = []
    for one in over:
        rows.append(
            (
                str(one.clients),
                one.label,
                figure(median(one.ms.values()), "ms") if one.ms else "–",
                figure(median(one.reduction), "%") if one.reduction else "–",
                span(one.reduction),
                str(len(one.ms)),
                "generator" if one.limited else "",
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
    head = ("clients", "path", "overhead", "reduction", INTERVAL, "repeats", "note")
    return Section("overhead", "What a connection costs", text, overhead_chart(over),
                   (Table(head, tuple(rows), frozenset({0, 2, 3, 4, 5})),), EVIDENCE)  # fmt: skip


def cpu_section(groups: Sequence[Group]) -> Section:
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


def rates(groups: Sequence[Group]) -> Section:
    rows, tones = [], []
    for g in groups:
        valid = list(g.valid.values())
        limited = any(c.limited for c in valid)
        why = next((c.not_run or "; ".join(c.invalid) for c in g.cells if c.not_run or c.invalid), "")
        note = "; ".join(x for x in ("generator" if limited else "", why if not valid else "") if x)
        if valid and len(valid) < len(g.cells):
            note = "; ".join(x for x in (note, f"{len(g.cells) - len(valid)} of {len(g.cells)} invalid") if x)
        how = [] if g.prepared else ["unprepared"]
        how += [] if g.authentication == STORED else [g.authentication]
        rows.append(
            (
                g.workload,
                str(g.clients),
                ", ".join([g.path, *how]),
                g.connections,
                number(g.middle(lambda c: c.per_s)),
                span([c.per_s for c in valid]),
                figure(g.middle(lambda c: c.mean_ms), "ms"),
                figure(g.middle(lambda c: c.percentiles.get("p50")), "ms"),
                figure(g.middle(lambda c: c.percentiles.get("p99")), "ms"),
                note,
            )
        )
        tones.append(("",) * 9 + ("unsure" if note else "",))
    head = ("workload", "clients", "path", "connections", "per s", INTERVAL, "mean", "p50", "p99", "note")
    text = (
        "Median over the repeats. Closed loop: every client sends its next transaction when the last one is "
        "answered, so percentiles are of the service time and hold coordinated omission; compare means "
        "and rates. "
        "“generator”: the load's own process used more than 80 % of its core, so that the system can do "
        "more. "
        "Statement pooling refuses transactions: trade-booking is compared between the modes that can "
        "run it.",
    )
    table = Table(head, tuple(rows), frozenset({1, 4, 5, 6, 7, 8}), tones=tuple(tones))
    return Section("rates", "Transactions per second", text, rate_chart(groups), (table,), EVIDENCE)


def modes(groups: Sequence[Group]) -> Section:
    rows = []
    for g in groups:
        if g.path == DIRECT or not g.valid or g.authentication != STORED or not g.prepared:
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
    table = Table(head, tuple(rows), frozenset({1, 4, 5, 6, 7}))
    evidence = ("cells.parquet", "metrics.parquet", "logs")
    return Section("modes", "How the pools were used", text, mode_chart(groups), (table,), evidence)


def prepared(groups: Sequence[Group]) -> Section:
    gains = {path: prepared_gain(groups, path) for path in (DIRECT, *MODES)}
    gains = {path: values for path, values in gains.items() if values}
    title = "What preparing a statement saves"
    if not gains:
        return Section("prepared", title, ("It was not measured.",))
    rows = tuple(
        (path, figure(median(values), "%"), span(values), str(len(values))) for path, values in gains.items()
    )
    head = ("path", "time saved by preparing", INTERVAL, "repeats")
    text = "Mean time of one statement, prepared against not, on lasting connections, paired by repeat."
    table = Table(head, rows, frozenset({1, 2, 3}))
    return Section("prepared", title, (text,), prepared_chart(gains), (table,), EVIDENCE)


def memory(record: RecordReader) -> Section:
    rows = []
    each: dict[str, list[float]] = {}
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
        grown = sum(after[k]["pss_bytes"] - before[k]["pss_bytes"] for k in ("backends", "pooler"))
        each.setdefault(row[0], []).append(grown / count / 2**10)
        rows.append((*row[:4], row[5], figure(each[row[0]][-1], "KiB")))
    head = ("path", "idle clients", "more backends", "their memory", "pooler's memory", "a client")
    text = (
        "Clients that have run one statement and then idle. PSS: each process's own memory and its part "
        "of what it "
        "shares, so shared buffers do not count once a backend.",
    )
    table = Table(head, tuple(rows), frozenset({1, 2, 3, 4, 5}))
    title = "What idle connections cost"
    if not rows:
        return Section("memory", title, ("It was not measured.",))
    return Section("memory", title, text, memory_chart(each), (table,), ("cells.parquet",))


def gates(found: Sequence[Figures], counts: Finding) -> Section:
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
