"""The smallest pool that holds the latency at each offered rate, and the settings for it.

The load is open loop: response time counts from the intended start, so what waits for a connection counts.
A size *holds* a rate where in every repeat the 99th percentile is within the limit, and at most 1 % of the
requests failed or were dropped. A cell with fewer than 1,000 requests has no 99th percentile (10 samples
beyond it): its 95th stands in, and is named. One in which the generator lagged (p99 over 50 ms) is invalid.

Budget: Σ pools ≤ max_connections − reserve. RDS: max_connections = LEAST(DBInstanceClassMemory / 9531392,
5000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lab.record.reader import RecordReader
from lab.topology.instances import INSTANCE_CLASSES
from reports.analysis.latency import rank
from reports.charts import style
from reports.charts.scene import Drawing
from reports.experiments import Experiment, Outcome, Section, Table
from reports.findings import Finding
from reports.view import Headline, figure, number

MOST_BAD = 0.01
LAG_MS = 50.0
RDS_BYTES = 9_531_392
RDS_MOST = 5000


@dataclass(frozen=True)
class Cell:
    """One size at one rate in one repeat; times in ms."""

    size: int
    rate: float
    repeat: int
    given: dict[str, Any]
    tail: float | None
    """The percentile that is judged; None: too few requests."""
    percentile: str
    bad: float
    """Share of the requests that failed or were dropped."""
    wait_ms: float | None
    utilisation: float | None
    invalid: str

    @property
    def holds(self) -> bool:
        return self.tail is not None and self.tail <= self.given["latency_ms"] and self.bad <= MOST_BAD


def cells(record: RecordReader) -> list[Cell]:
    """Every cell, in the order in which they ran."""
    table = record.table("requests", ["intended", "done", "outcome"])
    intended = np.asarray(pc.fill_null(table["intended"], -1))
    done = np.asarray(pc.fill_null(table["done"], -1))
    ok = np.asarray(pc.equal(table["outcome"].cast("string"), "ok"))
    found = []
    for row in record.cells():
        given, said = row["parameters"], row["result"]
        mine = (intended >= row["begin"]) & (intended < row["end"])
        response = np.sort((done - intended)[mine & ok] / 1e6)
        tail, name = _tail(response)
        grown = said.get("pooler", {})
        assigned = grown.get("total_server_assignment_count", grown.get("total_xact_count", 0))
        seconds = said.get("load", {}).get("seconds") or 0
        lag = said.get("load", {}).get("lag_ms", {}).get("p99")
        found.append(
            Cell(
                given["size"], given["rate"], row["repeat"], given, tail, name,
                float(1 - (mine & ok).sum() / mine.sum()) if mine.any() else 1.0,
                grown["total_wait_time"] / 1e3 / assigned if assigned else None,
                max(grown["total_xact_time"] - grown["total_wait_time"], 0) / 1e4 / (seconds * given["size"])
                if grown and seconds else None,
                f"the generator lagged by {lag:.0f} ms" if lag is not None and lag > LAG_MS else "",
            )
        )  # fmt: skip
    return found


def _tail(ordered: Any) -> tuple[float | None, str]:
    for q, name in ((0.99, "p99"), (0.95, "p95")):
        at = rank(q, len(ordered))
        if at is not None:
            return float(ordered[at]), name
    return None, ""


def smallest(found: Sequence[Cell], rate: float) -> int | None:
    """The smallest size that holds a rate in all its valid repeats, and every larger one does too."""
    best = None
    for size in sorted({c.size for c in found}, reverse=True):
        mine = [c for c in found if c.size == size and c.rate == rate and not c.invalid]
        if not mine or not all(c.holds for c in mine):
            break
        best = size
    return best


def rds_connections(instance_class: str) -> int | None:
    """What RDS allows an instance class at its defaults; None for one that is not known."""
    known = INSTANCE_CLASSES.get(instance_class)
    return min(known.memory_bytes // RDS_BYTES, RDS_MOST) if known else None


def settings(given: dict[str, Any], size: int) -> str:
    """PgBouncer's settings for a pool, as its file takes them."""
    return (
        f"pool_mode = {given['mode']}; default_pool_size = {size}; max_db_connections = {size}; "
        f"min_pool_size = {min(size, 2)}; reserve_pool_size = 0"
    )


def analyse(record: RecordReader) -> Outcome:
    found = cells(record)
    if not found:
        none = Finding(metric="pool.size", unit="1", value=None, status="not run", why="no cell was measured")
        return Outcome((none,))
    rates = sorted({c.rate for c in found})
    best = {rate: smallest(found, rate) for rate in rates}
    held = {rate: size for rate, size in best.items() if size is not None}
    given = found[0].given
    top = max(held, default=None)
    limit = given["latency_ms"]
    left = given["max_connections"] - given["reserve"] - given["others"]
    value = held[top] if top is not None else None
    why = (
        f"holds {top:g} transactions/s of {given['workload']} within {limit:g} ms ({found[0].percentile})"
        if top is not None
        else f"no size holds any rate within {limit:g} ms"
    )
    finding = Finding(
        metric="pool.size", unit="1", value=None if value is None else float(value),
        status=None if value is not None else "inconclusive", why=why,
        evidence=("cells.parquet", "requests.parquet"),
        detail={"smallest": {f"{rate:g}": size for rate, size in best.items()}, "budget": left},
    )  # fmt: skip
    lead = f"{value} server connections: the smallest pool that {why}." if value else f"{why.capitalize()}."
    tiles = tuple(
        Headline(f"at {rate:g} transactions/s",
                 f"{size} connection{'s' if size > 1 else ''}" if size else "none of those tried",
                 f"smallest pool within {limit:g} ms", "good" if size else "bad")
        for rate, size in best.items()
    )  # fmt: skip
    return Outcome((finding,), lead, tiles, (_sweep(found, limit), _advice(given, value, left)))


def _advice(given: dict[str, Any], size: int | None, left: int) -> Section:
    rds = rds_connections(given["instance_class"])
    rows = [
        ("max_connections of the lab", str(given["max_connections"])),
        ("reserve: people, probes, batch, superuser", str(given["reserve"])),
        ("the other pools", str(given["others"])),
        ("left for this pool", str(left)),
    ]
    if rds is not None:
        rows.append((f"max_connections of {given['instance_class']} on RDS, by its formula", f"{rds:,}"))
    if size is not None:
        rows += [
            (name, value) for line in settings(given, size).split("; ") for name, value in [line.split(" = ")]
        ]
        rows.append(("within the budget", "yes" if size <= left else f"no: {size} > {left}"))
    return Section("settings", "What to set", ("Σ pools ≤ max_connections − reserve.",), (),
                   (Table(("", "value"), tuple(rows)),), ("cells.parquet",))  # fmt: skip


def _sweep(found: Sequence[Cell], limit: float) -> Section:
    rows, tones = [], []
    for size in sorted({c.size for c in found}):
        for rate in sorted({c.rate for c in found}):
            mine = [c for c in found if (c.size, c.rate) == (size, rate)]
            valid = [c for c in mine if not c.invalid]
            tails = [c.tail for c in valid if c.tail is not None]
            holds = bool(valid) and all(c.holds for c in valid)
            waits = [c.wait_ms for c in valid if c.wait_ms is not None]
            used = [c.utilisation for c in valid if c.utilisation is not None]
            rows.append(
                (
                    str(size),
                    f"{rate:g}",
                    figure(max(tails), "ms") if tails else "–",
                    figure(100 * max((c.bad for c in valid), default=0), "%"),
                    figure(median(waits), "ms") if waits else "–",
                    figure(median(used), "%") if used else "–",
                    ("yes" if holds else "no") if valid else f"invalid: {mine[0].invalid}",
                )
            )
            tones.append(("",) * 6 + ("good" if holds else "bad" if valid else "unsure",))
    name = next((c.percentile for c in found if c.percentile), "p99")
    head = (
        "pool size",
        "per s",
        f"{name}, worst repeat",
        "failed or dropped",
        "mean wait",
        "utilisation",
        "holds",
    )
    text = (
        f"Open loop, response time from the intended start. Holds: {name} ≤ {limit:g} ms and at most 1 % "
        "failed or dropped, in every repeat.",
    )
    table = Table(head, tuple(rows), frozenset(range(6)), tones=tuple(tones))
    return Section(
        "sweep", "Size against rate", text, (_picture(found, limit, name),), (table,), ("requests.parquet",)
    )


def _picture(found: Sequence[Cell], limit: float, name: str) -> Drawing:
    figure, (axis,) = style.panels((3.0,))
    for rate, colour, dash in zip(sorted({c.rate for c in found}), style.CYCLE, style.DASHES, strict=False):
        mine = [c for c in found if c.rate == rate and c.tail is not None and not c.invalid]
        sizes = sorted({c.size for c in mine})
        if sizes:
            worst = [max(c.tail or 0 for c in mine if c.size == size) for size in sizes]
            axis.plot(sizes, worst, color=colour, ls=dash, marker="o", ms=4, label=f"{number(rate)}/s")
    axis.axhline(limit, color=style.INK, lw=1, ls="--")
    axis.annotate(f"limit {limit:g} ms", (1, limit), xycoords=("axes fraction", "data"), xytext=(-3, 3),
                  textcoords="offset points", ha="right", fontsize=8)  # fmt: skip
    axis.set_xscale("log", base=2)
    sizes = sorted({c.size for c in found})
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.set_xlabel("server connections of the pool")
    axis.set_ylabel(f"{name}, ms")
    style.log_time(axis)
    style.key(axis)
    return Drawing("pool-size", "The worst repeat of each size and rate.", figure)


def print_advice(path: Path) -> None:
    """Print the smallest size for each rate, and the settings."""
    from lab import terminal

    found = cells(RecordReader(path))
    console = terminal.out()
    best = {rate: smallest(found, rate) for rate in sorted({c.rate for c in found})}
    for rate, size in best.items():
        said = f"a pool of {size} holds" if size else "no size that was tried holds"
        console.print(f"{rate:g}/s: {said} {found[0].given['latency_ms']:g} ms", highlight=False)
    held = [size for size in best.values() if size is not None]
    if held:
        for line in settings(found[0].given, held[-1]).split("; "):
            console.print(f"  {line}", highlight=False)


EXPERIMENT = Experiment("pool-size", ("pool.size",), analyse)
