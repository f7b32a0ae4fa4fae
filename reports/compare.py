"""Two runs (or two groups of runs) side by side: the same metrics, their difference, and what it is worth.

The first group is the reference; differences are second − first.

- Metrics that trials make (outages, ledger, split brain, …): all valid trials of a group against all of the
  other (``analysis/two_samples.py``). A trial without an outage counts as 0 s, one that did not recover as
  longer than any other.
- Response times: from the raw requests of the steady state (``analysis/blocks.py``). From four runs a group
  on each run gives one value and runs are compared as trials are; that alone covers what varies from run to
  run.
- Everything else has one value a run: compared from four runs a group on, shown otherwise.

Verdicts: *better*, *worse* (*different* where neither is good by itself), *no difference shown*, *too few*.
Each is at 5 %: where nothing differs, one metric in twenty shows a difference all the same. With many metrics
look at ``adjusted_p`` too, which allows for having looked at all of them (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field

from lab.errors import UsageError
from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports import view
from reports.analysis import analyse, blocks, latency
from reports.analysis.model import Analysis
from reports.analysis.source import Source
from reports.analysis.trials import median
from reports.analysis.two_samples import CONFIDENCE, Difference, holm, independent
from reports.checks import checks
from reports.checks.common import split
from reports.checks.outage import KINDS
from reports.checks.response import FIGURES
from reports.findings import Finding, Value

Word = Literal["better", "worse", "different", "no difference shown", "too few"]
Better = Literal["less", "more"]

LEAST_RUNS = 4
"""Runs a group from which on they are the unit: fewer cannot show a difference at 5 %."""
FAILED = "load.failed"
QUANTILES = {"latency.p50": 0.5, "latency.p95": 0.95, "latency.p99": 0.99}
_MORE = ("failover.automatic", "availability.", "pool.efficiency", "tls.", "tables.equal", "assertions.held")
_NEITHER = ("pool.utilisation", "pool.server_connections.")
_LESS = (
    "rto.", "rpo.", "ledger.", "split_brain.", "outage.", "query.", "latency.", "load.", "db.cpu",
    "pool.wait", "pool.queue", "reads.", "log.", "progress.", "reconnect.", "redundant.", "redis.", "wal.",
)  # fmt: skip


class Figure(Value):
    """One group's side of a metric."""

    value: float | None
    """Median of trials or runs; the figure of all requests together."""
    worst: float | None = None
    n: int = 0
    """Trials, runs or requests."""
    samples: tuple[float | str, ...] = ()
    """One a trial or run; ``no outage`` and ``not recovered`` where that is what was seen."""
    note: str = ""


class Row(Value):
    """One metric."""

    metric: str
    what: str
    unit: str
    unit_of: Literal["trials", "runs", "requests"]
    better: Better | None
    first: Figure
    second: Figure
    difference: float | None = None
    interval: tuple[float, float] | None = None
    """Of the difference, 95 %."""
    percent: float | None = None
    """The difference as a percentage of the first."""
    p: float | None = None
    adjusted_p: float | None = None
    verdict: Word
    method: str
    """How it was compared, or why it could not be."""


class Comparison(Value):
    """All of it."""

    first: tuple[str, ...]
    """Names of the runs."""
    second: tuple[str, ...]
    scenario: str
    warnings: tuple[str, ...] = ()
    """Why the comparison is to be read with care."""
    differs: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Settings that the groups do not share → (first, second)."""
    rows: tuple[Row, ...] = ()
    confidence: float = CONFIDENCE

    @property
    def judged(self) -> int:
        return sum(row.verdict != "too few" for row in self.rows)

    @property
    def false_alarms(self) -> float:
        """Differences that chance alone would show among so many metrics."""
        return self.judged * (1 - self.confidence)

    def word(self, word: Word) -> int:
        return sum(row.verdict == word for row in self.rows)


@dataclass(frozen=True)
class Run:
    """One run of a group, read and analysed."""

    record: RecordReader
    analysis: Analysis
    stretches: tuple[blocks.Stretch, ...]
    topology: Mapping[str, Any]


def compare(
    first: Sequence[Path], second: Sequence[Path], *, force: bool = False, seed: int = 0
) -> Comparison:
    """Compare two groups of runs.

    Args:
        force: compare runs that were made differently all the same, with a warning for each difference.
        seed: of the bootstrap.

    Raises:
        UsageError: the runs cannot be compared, or one is on both sides.
        RecordError: a record is missing or damaged.
    """
    a, b = [load(path) for path in first], [load(path) for path in second]
    names = [run.analysis.run for run in (*a, *b)]
    if len(set(names)) < len(names):
        raise UsageError("a run is named twice: it does not differ from itself, and counts once")
    why = incompatible([*a, *b])
    if why and not force:
        raise UsageError(
            "these runs cannot be compared: " + "; ".join(why),
            hint="--force compares them all the same, and says so.",
        )
    warnings = [f"NOT COMPARABLE: {one}" for one in why] + _warnings(a, b)
    rows = [*_latency_rows(a, b, seed), *_finding_rows(a, b)]
    return Comparison(
        first=tuple(run.analysis.run for run in a),
        second=tuple(run.analysis.run for run in b),
        scenario=a[0].analysis.manifest.scenario,
        warnings=tuple(warnings),
        differs=differing(a, b),
        rows=_adjusted(rows),
    )


def load(path: Path) -> Run:
    """Read and analyse one run."""
    record = RecordReader(path)
    analysis = analyse(record)
    source = Source(record)
    topology = source.yaml("topology.yaml")
    steady = [(-(-(a - source.start) // NS), (b - source.start) // NS) for a, b in source.steady]
    requests = latency.read_requests(record, source.start)
    return Run(record, analysis, tuple(_stretch(requests, a, b) for a, b in steady if b > a), topology)


def _stretch(requests: latency.Requests, begin: int, end: int) -> blocks.Stretch:
    inside = (requests.second >= begin) & (requests.second < end)
    good = inside & (requests.state == latency.OK)
    at = requests.second[inside] - begin
    bad = requests.state[inside] != latency.OK
    return blocks.Stretch(
        second=(requests.second[good] - begin).astype(np.int64),
        response_ms=requests.response[good].astype(np.float64),
        seconds=end - begin,
        ended=np.bincount(at, minlength=end - begin),
        failed=np.bincount(at[bad], minlength=end - begin),
    )


# What may be compared


def incompatible(runs: Sequence[Run]) -> list[str]:
    """What was not the same in all of the runs and had to be; empty where they can be compared."""
    asked = {
        "scenario": [run.analysis.manifest.scenario for run in runs],
        "fault": [run.analysis.manifest.fault or "none" for run in runs],
        "workload": [_load(run, "workload") for run in runs],
        "load rate": [_load(run, "rate") for run in runs],
        "arrivals": [_load(run, "arrivals") for run in runs],
        "T (slow_after)": [run.analysis.manifest.slow_after_s for run in runs],
        "scale factor": [run.analysis.manifest.scale for run in runs],
        "cores": [run.analysis.manifest.machine.get("cores") for run in runs],
        "memory": [_gib(run.analysis.manifest.machine.get("memory_bytes")) for run in runs],
        "CPU": [run.analysis.manifest.machine.get("cpu_model") for run in runs],
    }
    found = []
    for name, values in asked.items():
        different = list(dict.fromkeys(str(value) for value in values))
        if len(different) > 1:
            found.append(f"{name}: {' and '.join(different)}")
    return found


def _gib(value: Any) -> str | None:
    """Memory to a tenth of a GiB: kernels differ by a few pages."""
    return f"{value / 2**30:.1f} GiB" if isinstance(value, (int, float)) else None


def _load(run: Run, key: str) -> Any:
    return (run.analysis.manifest.load or {}).get(key)


def _warnings(first: Sequence[Run], second: Sequence[Run]) -> list[str]:
    found = []
    for run in (*first, *second):
        head = run.analysis.manifest
        if head.state != "closed":
            found.append(f"{run.analysis.run} did not come to its end ({head.state})")
        found += [f"{run.analysis.run}: {reason.why}" for reason in run.analysis.reasons if reason.trial == 0]
    for name, group in (("first", first), ("second", second)):
        odd = _settings(group[0])
        for run in group[1:]:
            here = _settings(run)
            fields = [field for field in {*odd, *here} if odd.get(field) != here.get(field)]
            if fields:
                found.append(f"the {name} group is mixed: {', '.join(sorted(fields))}")
    return list(dict.fromkeys(found))


def differing(first: Sequence[Run], second: Sequence[Run]) -> dict[str, tuple[str, str]]:
    """Settings that are not the same in both groups: of the topology, the load, and the versions."""
    a, b = _settings(first[0]), _settings(second[0])
    return {
        field: (a.get(field, view.NONE), b.get(field, view.NONE))
        for field in sorted({*a, *b})
        if a.get(field) != b.get(field)
    }


def _settings(run: Run) -> dict[str, str]:
    head = run.analysis.manifest
    found = _flat(run.topology, "")
    found |= {f"load.{key}": str(_load(run, key)) for key in ("users", "endpoint", "reader", "workers")}
    found |= {f"version.{name}": version for name, version in head.versions.items()}
    return found | {"version.lab": head.lab_version, "window": f"{head.window_s} s"}


def _flat(value: Any, path: str) -> dict[str, str]:
    if isinstance(value, Mapping):
        items = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, list):
        named = all(isinstance(one, Mapping) and "name" in one for one in value)
        items = [(str(one["name"]) if named else str(i), one) for i, one in enumerate(value)]
    else:
        return {path: yaml.safe_dump(value, default_flow_style=True).split("\n")[0]}
    found: dict[str, str] = {}
    for key, one in items:
        found |= _flat(one, f"{path}.{key}" if path else key)
    return found


# Rows


def _latency_rows(first: Sequence[Run], second: Sequence[Run], seed: int) -> list[Row]:
    if min(len(first), len(second)) >= LEAST_RUNS:
        return []  # one value a run, as everything else
    a, b = ([stretch for run in group for stretch in run.stretches] for group in (first, second))
    shifts = {"query.mean": blocks.mean(a, b, seed)}
    shifts |= dict(zip(QUANTILES, blocks.percentiles(a, b, list(QUANTILES.values()), seed), strict=True))
    shifts[FAILED] = blocks.failures(a, b, seed)
    counts = [sum(len(stretch.response_ms) for stretch in side) for side in (a, b)]
    whys = {metric: _reasons(metric, [*first, *second]) for metric in shifts}
    return [
        _shift_row(metric, shift, (counts[0], counts[1]), whys[metric]) for metric, shift in shifts.items()
    ]


def _reasons(metric: str, runs: Sequence[Run]) -> str:
    """Why the figure of one of the runs must not be judged."""
    found = [
        f"{run.analysis.run}: {finding.why}"
        for run in runs
        if (finding := run.analysis.finding(metric)) is not None and finding.status is not None
    ]
    return "; ".join(found)


def _shift_row(metric: str, shift: blocks.Shift, counts: tuple[int, int], why: str) -> Row:
    method = (
        f"block bootstrap over {shift.seconds[0]} s ({shift.blocks[0]} blocks) and {shift.seconds[1]} s "
        f"({shift.blocks[1]}); what varies from run to run is not in it"
    )
    if shift.interval is None:
        method = f"too few seconds or requests: {method}"
    interval = None if why else shift.interval
    word: Word = "too few"
    difference = shift.second - shift.first if shift.first is not None and shift.second is not None else None
    if interval is not None and difference is not None:
        word = "no difference shown"
        if interval[0] > 0 or interval[1] < 0:
            word = direction(metric, difference)
    return Row(
        metric=metric,
        what=view.METRICS.get(metric, {FAILED: "requests that failed or were dropped"}.get(metric, metric)),
        unit="%" if metric == FAILED else "ms",
        unit_of="requests",
        better=better(metric),
        first=Figure(value=shift.first, n=counts[0]),
        second=Figure(value=shift.second, n=counts[1]),
        difference=difference,
        interval=interval,
        percent=_percent(difference, shift.first),
        verdict=word,
        method=f"not to be judged: {why}" if why else method,
    )


def _finding_rows(first: Sequence[Run], second: Sequence[Run]) -> list[Row]:
    few = min(len(first), len(second)) < LEAST_RUNS
    rows = []
    for check in checks().values():
        for metric in check.metrics:
            if metric in FIGURES and few:
                continue
            row = _finding_row(metric, first, second)
            if row is not None:
                rows.append(row)
    return rows


def _finding_row(metric: str, first: Sequence[Run], second: Sequence[Run]) -> Row | None:
    """None where neither group has anything of it."""
    findings = [f for run in (*first, *second) if (f := run.analysis.finding(metric)) is not None]
    if not findings:
        return None
    by_trial = metric in KINDS or any(f.samples or isinstance(f.detail.get("trials"), int) for f in findings)
    sides = [_samples(metric, group, by_trial) for group in (first, second)]
    (a, why_a), (b, why_b) = sides
    if not a and not b:
        return None
    unit_of: Literal["trials", "runs"] = "trials" if by_trial else "runs"
    why = "; ".join(dict.fromkeys(filter(None, [why_a, why_b])))
    told = independent(a, b) if a and b else None
    return Row(
        metric=metric,
        what=view.METRICS.get(metric, metric),
        unit=findings[0].unit,
        unit_of=unit_of,
        better=better(metric),
        first=figure(metric, a, why_a),
        second=figure(metric, b, why_b),
        difference=told.estimate if told else None,
        interval=told.interval if told else None,
        percent=_percent(told.estimate, median(a)) if told else None,
        p=told.p if told else None,
        verdict=verdict_of(metric, told, a, b),
        method=f"{_method(told, unit_of)}{f'; left out: {why}' if why else ''}",
    )


def verdict_of(metric: str, told: Difference | None, a: Sequence[float], b: Sequence[float]) -> Word:
    """The word for a test's answer."""
    if told is None or told.too_few:
        return "too few"
    if not told.shown:
        return "no difference shown"
    if told.estimate:
        return direction(metric, told.estimate)
    # The median difference can be 0, or unknown, while the ranks differ.
    ranks = np.argsort(np.argsort([*a, *b], kind="stable"), kind="stable")
    return direction(metric, float(ranks[len(a) :].mean() - ranks[: len(a)].mean()))


def _method(told: Difference | None, unit_of: str) -> str:
    if told is None:
        return "nothing to compare with"
    said = f"{told.method} {unit_of}"
    if told.too_few:
        return f"{said}: with so few the least possible p is {told.least_p:.2g}"
    return f"{said}; Hodges–Lehmann difference"


def _samples(metric: str, group: Sequence[Run], by_trial: bool) -> tuple[list[float], str]:
    """Values of a group, and what was left out."""
    values: list[float] = []
    whys: list[str] = []
    for run in group:
        finding = run.analysis.finding(metric)
        if finding is None:
            continue
        if finding.status in ("invalid", "not run"):
            whys.append(f"{run.analysis.run} ({finding.status}: {finding.why})")
        elif metric in KINDS:
            values += outages(metric, run.analysis)
        elif by_trial and finding.samples:
            values += finding.samples
        elif finding.value is not None:
            values.append(finding.value)
        elif by_trial:
            values += _censored(finding)
    return values, "; ".join(whys)


def outages(metric: str, analysis: Analysis) -> list[float]:
    """One a valid trial, seconds: 0 without an outage, infinite where it did not recover."""
    pick = KINDS[metric][1]
    seen = [pick(trial) for trial in split(analysis)[0]]
    return [
        0.0 if one.state == "no outage" else math.inf if one.seconds is None else one.seconds
        for one in seen
        if one.state != "no data"
    ]


def _censored(finding: Finding) -> list[float]:
    return [math.inf] if isinstance(finding.detail.get("at_least"), (int, float)) else []


def figure(metric: str, values: Sequence[float], note: str = "") -> Figure:
    """Median and worst of a group."""
    middle = median(values)
    worst = None
    if values:
        worst = min(values) if better(metric) == "more" else max(values)
    return Figure(
        value=_finite(middle),
        worst=_finite(worst),
        n=len(values),
        samples=tuple(_said(metric, value) for value in values),
        note=note,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _said(metric: str, value: float) -> float | str:
    if math.isinf(value):
        return "not recovered"
    return "no outage" if metric in KINDS and value == 0 else value


def better(metric: str) -> Better | None:
    """Which way is good; None where neither is by itself."""
    if metric.startswith(_NEITHER):
        return None
    if metric.startswith(_MORE):
        return "more"
    return "less" if metric.startswith(_LESS) else None


def direction(metric: str, difference: float) -> Word:
    """The word for a difference that was shown."""
    good = better(metric)
    if good is None:
        return "different"
    return "better" if (difference < 0) == (good == "less") else "worse"


def _percent(difference: float | None, reference: float | None) -> float | None:
    if difference is None or not reference or not math.isfinite(reference):
        return None
    return 100 * difference / reference


def _adjusted(rows: Sequence[Row]) -> tuple[Row, ...]:
    tested = [row for row in rows if row.p is not None and row.verdict != "too few"]
    adjusted = dict(zip((row.metric for row in tested), holm([row.p or 0.0 for row in tested]), strict=True))
    return tuple(row.model_copy(update={"adjusted_p": adjusted.get(row.metric)}) for row in rows)
