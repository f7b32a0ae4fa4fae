"""Raw samples to what can be drawn: counts, rates and percentiles by time bin, on numpy columns.

A chart never draws single requests. Latencies go into a histogram of time bin × logarithmic bucket, of which
percentiles are read: any number of samples takes the same memory, and a percentile is right within ±1 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NS = 1_000_000_000
_LOWEST_S = 1e-5
_RATIO = 1.02
_BUCKETS = 850  # 10 µs … 200 s
_WIDTHS_S = (0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
BEYOND = 10
"""A percentile with fewer samples beyond it is not drawn."""
LEAST_POINTS = 12
"""A percentile over time that would have fewer points than that is not drawn."""


@dataclass(frozen=True)
class Grid:
    """Time bins of one width. ``start`` and ``width`` in ns."""

    start: int
    width: int
    bins: int

    @classmethod
    def over(cls, start: int, end: int, *, least_s: float, most: int = 420) -> Grid:
        """Bins of a round width, no finer than ``least_s`` and no more than about ``most``."""
        span = max(end - start, 1)
        fitting = [w for w in _WIDTHS_S if w >= least_s and span / (w * NS) <= most]
        width = int((fitting[0] if fitting else max(span / NS / most, least_s)) * NS)
        return cls(start, width, max(1, -(-span // width)))

    @property
    def seconds(self) -> float:
        """Width of a bin, s."""
        return self.width / NS

    @property
    def end(self) -> int:
        return self.start + self.width * self.bins

    @cached_property
    def centres(self) -> Floats:
        """Middle of each bin, ns, as floats."""
        return np.asarray(self.start + self.width * (np.arange(self.bins) + 0.5), np.float64)

    def index(self, t: Ints) -> Ints:
        """Bin of each time; outside is clipped to −1 and ``bins``."""
        return np.clip((t - self.start) // self.width, -1, self.bins)

    def count(self, t: Ints) -> Ints:
        """How many of the times fall into each bin."""
        at = self.index(t)
        inside = at[(at >= 0) & (at < self.bins)]
        return np.bincount(inside, minlength=self.bins).astype(np.int64)


@dataclass
class Binned:
    """Requests by time bin."""

    grid: Grid
    offered: Ints = field(init=False)
    """Requests whose intended send time lies in the bin, dropped ones too."""
    done: Ints = field(init=False)
    """Requests that ended well in the bin."""
    failed: dict[str, Ints] = field(init=False, default_factory=dict)
    """Error class → requests that ended so in the bin; ``dropped`` by intended time."""
    latency: npt.NDArray[np.int64] = field(init=False)
    """bins × buckets: response time of requests that ended well, by intended send time."""
    longest: Floats = field(init=False)
    """Longest response time by intended send time, s; NaN where there was none."""

    def __post_init__(self) -> None:
        self.offered = np.zeros(self.grid.bins, np.int64)
        self.done = np.zeros(self.grid.bins, np.int64)
        self.latency = np.zeros((self.grid.bins, _BUCKETS), np.int64)
        self.longest = np.full(self.grid.bins, np.nan)

    def percentile(self, q: float) -> tuple[Floats, Floats]:
        """The q-quantile of the response time over time.

        Neighbouring bins are put together until a usual one has more than 10 samples beyond the quantile.

        Returns:
            Position (in bins of the grid, fractional) and value (s), NaN with fewer than 10 samples beyond.
        """
        total = self.latency.sum(axis=1)
        usual = float(np.median(total[total > 0])) if (total > 0).any() else 0.0
        merge = max(1, math.ceil(1.5 * BEYOND / (1 - q) / usual)) if usual else self.grid.bins
        if merge > self.grid.bins / LEAST_POINTS:
            return np.empty(0), np.empty(0)
        first = np.arange(0, self.grid.bins, merge)
        histogram = np.add.reduceat(self.latency, first, axis=0)
        total = histogram.sum(axis=1)
        at = np.argmax(np.cumsum(histogram, axis=1) >= np.ceil(q * total)[:, None], axis=1)
        value = _LOWEST_S * _RATIO ** (at + 0.5)
        return np.asarray(first + (merge - 1) / 2, np.float64), np.where(
            total * (1 - q) >= BEYOND, value, np.nan
        )

    @property
    def errors(self) -> Ints:
        """Failed requests by bin, whatever their class."""
        return np.sum(list(self.failed.values()), axis=0) if self.failed else np.zeros_like(self.done)

    def _add(self, intended: Ints, done: Ints, outcome: pa.Array, ok: str) -> None:
        grid = self.grid
        names = outcome.dictionary.to_pylist()
        codes = pc.fill_null(outcome.indices, -1).to_numpy(zero_copy_only=False)
        self.offered += grid.count(intended)
        for code, name in enumerate(names):
            of_it = codes == code
            if name == ok:
                self.done += grid.count(done[of_it])
                self._latencies(intended[of_it], done[of_it])
            elif of_it.any():
                when = intended[of_it] if name == "dropped" else done[of_it]
                self.failed.setdefault(name, np.zeros(grid.bins, np.int64))
                self.failed[name] += grid.count(when)

    def _latencies(self, intended: Ints, done: Ints) -> None:
        at = self.grid.index(intended)
        inside = (at >= 0) & (at < self.grid.bins)
        at, took = at[inside], (done - intended)[inside] / NS
        with np.errstate(divide="ignore", invalid="ignore"):
            bucket = np.log(np.maximum(took, _LOWEST_S) / _LOWEST_S) / np.log(_RATIO)
        bucket = np.clip(bucket.astype(np.int64), 0, _BUCKETS - 1)
        flat = np.bincount(at * _BUCKETS + bucket, minlength=self.latency.size)
        self.latency += flat.reshape(self.latency.shape)
        longest = np.full(self.grid.bins, -np.inf)
        np.maximum.at(longest, at, took)
        longest[~np.isfinite(longest)] = np.nan
        self.longest = np.fmax(self.longest, longest)


REQUEST_COLUMNS = ("intended", "done", "outcome")


def bin_requests(batches: Iterable[pa.RecordBatch], grids: Sequence[Grid], *, ok: str = "ok") -> list[Binned]:
    """Requests (or probe writes) counted into several grids in one pass.

    Args:
        batches: with the columns ``intended``, ``done`` (ns, null where unknown) and ``outcome``.
        ok: the outcome of a request that ended well.
    """
    found = [Binned(grid) for grid in grids]
    for batch in batches:
        intended = ints(batch.column("intended"))
        done = ints(batch.column("done"), null=-1)
        done = np.where(done < 0, intended, done)
        outcome = batch.column("outcome")
        if not pa.types.is_dictionary(outcome.type):
            outcome = outcome.dictionary_encode()
        for binned in found:
            low, high = binned.grid.start, binned.grid.end
            near = (done >= low) & (intended < high)
            if near.all():
                binned._add(intended, done, outcome, ok)
            elif near.any():
                binned._add(intended[near], done[near], outcome.filter(pa.array(near)), ok)
    return found


def ints(column: pa.Array | pa.ChunkedArray, *, null: int = 0) -> Ints:
    """An integer column as numpy, nulls replaced."""
    if column.null_count:
        column = pc.fill_null(column, null)
    array: Ints = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return array.astype(np.int64, copy=False)


Key = tuple[str, str]
"""Node and label (empty where the metric has none)."""


def metric(table: pa.Table, name: str) -> dict[Key, tuple[Ints, Floats]]:
    """One metric of the record by node and label: times (ns, ascending) and values."""
    rows = table.filter(pc.equal(pc.cast(table["metric"], pa.string()), name))
    frame = pa.table(
        {
            "node": pc.fill_null(pc.cast(rows["node"], pa.string()), ""),
            "label": pc.fill_null(pc.cast(rows["label"], pa.string()), ""),
            "t": rows["t"],
            "value": rows["value"],
        }
    ).sort_by([("node", "ascending"), ("label", "ascending"), ("t", "ascending")])
    if not frame.num_rows:
        return {}
    nodes, labels = frame["node"].to_pylist(), frame["label"].to_pylist()
    times = ints(frame["t"])
    values = frame["value"].to_numpy()
    found: dict[Key, tuple[Ints, Floats]] = {}
    first = 0
    for at in range(1, len(nodes) + 1):
        if at == len(nodes) or nodes[at] != nodes[first] or labels[at] != labels[first]:
            found[(nodes[first], labels[first])] = (times[first:at], values[first:at])
            first = at
    return found


def rate(t: Ints, value: Floats) -> tuple[Floats, Floats]:
    """Differences of a cumulative metric per second, at the middle of each step; NaN where it was reset."""
    if len(t) < 2:
        return np.empty(0), np.empty(0)
    step = np.diff(t) / NS
    with np.errstate(divide="ignore", invalid="ignore"):
        per_second = np.where((step > 0) & (np.diff(value) >= 0), np.diff(value) / step, np.nan)
    return (t[1:] + t[:-1]) / 2.0, per_second


def summed(series: Iterable[tuple[Ints, Floats]], grid: Grid) -> Floats:
    """Several gauges added up: the mean of each in each bin, then their sum; NaN where none has a sample."""
    total = np.zeros(grid.bins)
    seen = np.zeros(grid.bins, bool)
    for t, value in series:
        at = grid.index(t)
        inside = (at >= 0) & (at < grid.bins) & np.isfinite(value)
        n = np.bincount(at[inside], minlength=grid.bins)
        mean = np.bincount(at[inside], weights=value[inside], minlength=grid.bins) / np.maximum(n, 1)
        total += np.where(n > 0, mean, 0.0)
        seen |= n > 0
    return np.where(seen, total, np.nan)


def runs(state: Sequence[str] | npt.NDArray[np.str_], t: Ints, *, gap: int) -> list[tuple[int, int, str]]:
    """Samples of a state as stretches (from, to, state); a gap longer than ``gap`` ns ends a stretch."""
    found: list[tuple[int, int, str]] = []
    first = 0
    for at in range(1, len(t) + 1):
        if at == len(t):
            found.append((int(t[first]), int(t[at - 1]), str(state[first])))
        elif state[at] != state[first] or t[at] - t[at - 1] > gap:
            until = int(t[at]) if t[at] - t[at - 1] <= gap else int(t[at - 1])
            found.append((int(t[first]), until, str(state[first])))
            first = at
    return found
