"""The steps of a capacity run, read from its record (and from those that it went on from)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lab.errors import RecordError, UsageError
from lab.experiment.ladder import Ladder
from lab.experiment.slo import Objective, parse_slo
from lab.experiment.step import COLUMNS, StepFigures, measure
from lab.record.reader import RecordReader
from lab.record.schema import NS
from loadtests.format import whole
from reports.analysis.metrics import Metrics, Series, increase, total, weighted_mean
from reports.analysis.source import Source
from reports.capacity.machine import sharing


@dataclass
class Step:
    """One step: what was asked for, what clients saw, and when."""

    record: RecordReader
    metrics: Metrics
    cell: int
    loop: str
    rate: float | None
    users: int | None
    repeat: int
    seconds: float
    figures: StepFigures
    good: bool
    why: tuple[str, ...]
    lag_p99_ms: float | None
    span: tuple[int, int]
    """Of the cell, ns."""
    requests: pa.Table
    """Raw requests of the step, its warm-up left out."""
    pace: float | None = None
    """Of the machine: samples that a collector took per second of its CPU. None where it was not sampled."""

    @property
    def window(self) -> tuple[int, int]:
        """From the end of the warm-up to the last arrival, ns."""
        return self.figures.begin, self.figures.end

    def per_second(self, metric: str, node: str | None = None) -> float | None:
        """Growth per second of a cumulative metric, summed over nodes and labels. None where not sampled."""
        found = [rate for s in self.metrics.find(metric, node) if (rate := self._rate(s)) is not None]
        return sum(found) if found else None

    def growth(self, metric: str, node: str, label: str | None = None) -> float | None:
        """Growth of a cumulative metric over the window, summed over labels unless one is named."""
        wanted = [s for s in self.metrics.find(metric, node) if label is None or s.label == label]
        found = [value for s in wanted if (value := increase(s.within(*self.window))) is not None]
        return sum(found) if found else None

    def mean(self, metric: str, node: str, label: str | None = None) -> float | None:
        """Time-weighted mean of a gauge, summed over labels unless one is named."""
        wanted = [s for s in self.metrics.find(metric, node) if label is None or s.label == label]
        inside = [one for s in wanted if len((one := s.within(*self.window)).t)]
        return weighted_mean(*total(inside))

    def most(self, metric: str, node: str | None = None) -> float | None:
        """The greatest value of any sample."""
        values = [s.within(*self.window).value for s in self.metrics.find(metric, node)]
        return max((float(value.max()) for value in values if len(value)), default=None)

    def _rate(self, series: Series) -> float | None:
        inside = series.within(*self.window)
        grown = increase(inside)
        return None if grown is None else grown / ((inside.t[-1] - inside.t[0]) / NS)


@dataclass(frozen=True)
class Run:
    """A capacity run."""

    record: RecordReader
    slo: Objective
    steps: tuple[Step, ...]
    topology: dict[str, Any]

    @property
    def pace(self) -> list[float]:
        """Of the machine, of each open-loop step in the order of time."""
        known = sorted((s for s in self.open if s.pace), key=lambda s: s.span)
        return [s.pace for s in known if s.pace]

    @property
    def normalised(self) -> float | None:
        """The knee in units of the pace: what runs of a machine whose pace changes have in common."""
        return threshold([(s.rate / s.pace, s.good) for s in self.open if s.rate and s.pace])

    @property
    def open(self) -> list[Step]:
        """Open-loop steps by rate."""
        return sorted((s for s in self.steps if s.loop == "open"), key=lambda s: (s.rate or 0, s.cell))

    @property
    def closed(self) -> list[Step]:
        return sorted((s for s in self.steps if s.loop == "closed"), key=lambda s: (s.users or 0, s.cell))

    @property
    def knee(self) -> tuple[float | None, float | None]:
        """(greatest rate most of whose steps were good, below every bad one; least bad rate)."""
        return Ladder(1.0).bracket([(s.rate or 0.0, s.good) for s in self.open])


def read_run(record: RecordReader) -> Run:
    """The steps of a capacity run. RecordError where it is none, or has none."""
    if record.manifest.scenario != "capacity":
        raise RecordError(
            f"{record.path} is a record of {record.manifest.scenario}, not of a capacity run",
            hint="`lab capacity` makes one.",
        )
    try:
        slo = parse_slo(str((record.manifest.load or {}).get("slo", "")))
    except UsageError as error:
        raise RecordError(f"{record.path}: {error}") from error
    steps = _steps(record, slo, set())
    if not steps:
        raise RecordError(f"{record.path} holds no step of load that ended")
    return Run(record, slo, tuple(steps), Source(record).yaml("topology.yaml"))


def threshold(points: Sequence[tuple[float, bool]]) -> float | None:
    """Where good turns bad: the value that the fewest points contradict (good ones above it, bad ones below).

    Between two points their geometric mean; where several places are as right, the middle of those. None
    where nothing but one kind fits better: no knee was seen.
    """
    ordered = sorted(points)
    wrong = [
        sum(not fine for _, fine in ordered[:cut]) + sum(fine for _, fine in ordered[cut:])
        for cut in range(len(ordered) + 1)
    ]
    inside = range(1, len(ordered))
    if not inside or min(wrong[cut] for cut in inside) > min(wrong[0], wrong[-1]):
        return None
    least = min(wrong[cut] for cut in inside)
    found = [math.sqrt(ordered[cut - 1][0] * ordered[cut][0]) for cut in inside if wrong[cut] == least]
    return math.sqrt(found[0] * found[-1])


def background_of(record: RecordReader) -> tuple[str, ...]:
    """Names of the requests for which nobody waits."""
    return tuple((record.manifest.load or {}).get("background") or ())


def between(requests: pa.Table, begin: int, end: int) -> pa.Table:
    """Requests that were intended in [begin, end)."""
    intended = requests["intended"]
    return requests.filter(pc.and_(pc.greater_equal(intended, begin), pc.less(intended, end)))


def _pace(metrics: Metrics, topology: Mapping[str, Any], begin: int, end: int) -> float | None:
    """What a collector does once a second is the same every time: CPU that it takes tells the machine's pace.

    Of the collectors on the nodes that share the databases' cores.
    """
    grown = samples = 0.0
    for node in sharing(topology, metrics.nodes("collector_cpu_seconds")):
        for series in metrics.find("collector_cpu_seconds", node):
            inside = series.within(begin, end)
            grown += increase(inside) or 0.0
            samples += max(0, len(inside.t) - 1)
    return samples / grown if grown > 0 else None


def _steps(record: RecordReader, slo: Objective, seen: set[str]) -> list[Step]:
    found: list[Step] = []
    earlier = (record.manifest.load or {}).get("resumes")
    if earlier and earlier not in seen:
        path = record.path.resolve().parent / str(earlier)
        if path.exists():
            found = _steps(RecordReader(path), slo, {*seen, record.manifest.run})
    metrics = Metrics(record)
    background, topology = background_of(record), Source(record).yaml("topology.yaml")
    everything = whole(record.table("requests", COLUMNS))
    for row in record.cells():
        asked, told = row["parameters"], row["result"]
        rows = between(everything, row["begin"], row["end"])
        figures = measure(rows, asked.get("seconds"), background)
        if figures is None or "step" not in told:
            continue
        lag = (told.get("load") or {}).get("lag_ms") or {}
        found.append(
            Step(
                record=record,
                metrics=metrics,
                cell=len(found) + 1,
                loop=str(asked["loop"]),
                rate=asked.get("rate"),
                users=asked.get("users"),
                repeat=int(row["repeat"]),
                seconds=float(asked.get("seconds") or 0),
                figures=figures,
                good=bool(told.get("good", True)),
                why=tuple(told.get("why", ())),
                lag_p99_ms=lag.get("p99"),
                span=(int(row["begin"]), int(row["end"])),
                requests=between(rows, figures.begin, figures.end + 1),
                pace=_pace(metrics, topology, figures.begin, figures.end),
            )
        )
    return found
