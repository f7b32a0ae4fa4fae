"""The collectors' samples as series, and arithmetic on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.columns import Floats, Ints, integers, text


@dataclass(frozen=True)
class Series:
    """One metric of one node and label, in the order of time."""

    node: str
    metric: str
    label: str | None
    t: Ints
    value: Floats

    def within(self, start: int, end: int) -> Series:
        """The samples in [start, end)."""
        rows = (self.t >= start) & (self.t < end)
        return Series(self.node, self.metric, self.label, self.t[rows], self.value[rows])


class Metrics:
    """All series of a record."""

    def __init__(self, record: RecordReader) -> None:
        self._record = record

    @cached_property
    def _series(self) -> dict[tuple[str, str, str | None], Series]:
        table = self._record.table("metrics")
        t = integers(table["t"])
        value = np.asarray(table["value"].to_numpy(), dtype=np.float64)
        node, metric, label = (text(table[name]) for name in ("node", "metric", "label"))
        keep = np.isfinite(value) & (t >= 0) & (node.codes >= 0) & (metric.codes >= 0)
        order = np.flatnonzero(keep)
        order = order[np.lexsort((t[order], label.codes[order], metric.codes[order], node.codes[order]))]
        codes = np.stack([node.codes[order], metric.codes[order], label.codes[order]])
        if not len(order):
            return {}
        starts = np.flatnonzero(np.r_[True, (codes[:, 1:] != codes[:, :-1]).any(axis=0)])
        found = {}
        for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
            row = int(order[begin])
            key = (node.at(row) or "", metric.at(row) or "", label.at(row))
            found[key] = Series(*key, t[order[begin:end]], value[order[begin:end]])
        return found

    def find(self, metric: str, node: str | None = None) -> list[Series]:
        """Every series of a metric (of one node), by node and label."""
        return [
            series
            for (n, m, _), series in sorted(self._series.items(), key=lambda kv: (kv[0][0], kv[0][2] or ""))
            if m == metric and (node is None or n == node)
        ]

    def one(self, metric: str, node: str) -> Series | None:
        """The only series of a metric of a node, None where there is none."""
        found = self.find(metric, node)
        return found[0] if found else None

    def nodes(self, metric: str) -> list[str]:
        """Nodes that have the metric."""
        return sorted({n for n, m, _ in self._series if m == metric})


def increase(series: Series) -> float | None:
    """Growth of a cumulative counter; a value that falls is a counter that began again at 0.

    None with fewer than two samples.
    """
    if len(series.value) < 2:
        return None
    steps = np.diff(series.value)
    return float(np.where(steps >= 0, steps, series.value[1:]).sum())


def weighted_mean(t: Ints, value: Floats) -> float | None:
    """Time-weighted mean of a gauge (trapezoids); None with fewer than two samples."""
    if len(t) < 2 or t[-1] <= t[0]:
        return None
    spans = np.diff(t).astype(np.float64)
    return float(((value[1:] + value[:-1]) / 2 * spans).sum() / spans.sum())


def total(series: Sequence[Series]) -> tuple[Ints, Floats]:
    """Sum of gauges over labels on the union of their times; a label holds its last value for 5 s.

    Samples of one collection may be stamped apart: a sum is then not too small. A label that is gone for
    longer counts as 0.
    """
    if not series:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    times = np.unique(np.concatenate([one.t for one in series]))
    summed = np.zeros(len(times))
    for one in series:
        at = np.searchsorted(one.t, times, side="right") - 1
        at_least = np.clip(at, 0, None)
        held = (at >= 0) & (times - one.t[at_least] <= 5 * NS)
        summed += np.where(held, one.value[at_least], 0.0)
    return times, summed
