"""Percentiles of latency in two stretches of load, and an interval of their difference.

Requests that come one after the other are alike (a checkpoint slows them all), so they are no independent
sample. The *block bootstrap* draws whole stretches of consecutive seconds instead (Künsch 1989; circular,
so that no second counts less): b = max(3, ⌈1.5·n^(1/3)⌉) seconds each, as many as fill the n seconds, 1,000
times. Each time the percentile of all requests in the drawn seconds is taken on either side. The interval is
that of the differences about the one found, and wider by t(m − 1)/z · √(m/(m − 1)), m being the lesser number
of blocks of the two sides: with few blocks the bootstrap alone is too sure of itself. Where nothing differs
it is wrong in about 5 % of the cases; in up to 10 % where what slows requests lasts as long as a block.

It covers what varies within these runs, and not what varies from run to run. Below 4 blocks on a side, or
with fewer than 10 samples beyond the percentile, there is none.

Drawn percentiles come from histograms of bins 0.5 % wide; the figures themselves from the raw values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from reports.analysis.latency import rank

Floats = npt.NDArray[np.float64]

DRAWS = 1000
LEAST_BLOCKS = 4
WIDTH = 0.005
"""Of a bin, relative."""
LOWEST_MS = 1e-3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Stretch:
    """One run's requests in its steady state. Arrays have one row a request that was answered well."""

    second: npt.NDArray[np.int64]
    """0 … seconds − 1, of the intended start."""
    response_ms: Floats
    seconds: int
    ended: npt.NDArray[np.int64]
    """Requests of each second, answered well or not."""
    failed: npt.NDArray[np.int64]
    """Of these failed or dropped."""


Parts = Callable[[Stretch], tuple[Floats, Floats]]
"""Of each second of a stretch: what goes over the line, and what under it."""


@dataclass(frozen=True)
class Shift:
    """A figure on both sides and the interval of the difference (second − first)."""

    first: float | None
    second: float | None
    interval: tuple[float, float] | None
    seconds: tuple[int, int]
    blocks: tuple[int, int]


def block_length(seconds: int) -> int:
    return max(3, math.ceil(1.5 * math.cbrt(seconds)))


def blocks_of(side: Sequence[Stretch]) -> int:
    """How many blocks the seconds of a side make."""
    return sum(stretch.seconds // block_length(stretch.seconds) for stretch in side)


def weights(side: Sequence[Stretch], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """DRAWS × seconds of all stretches: how often each second was drawn."""
    parts = []
    for stretch in side:
        n = stretch.seconds
        length = block_length(n)
        starts = rng.integers(0, n, size=(DRAWS, math.ceil(n / length)))
        drawn = ((starts[:, :, None] + np.arange(length)) % n).reshape(DRAWS, -1)[:, :n]
        counts = np.zeros((DRAWS, n), dtype=np.float32)
        np.add.at(counts, (np.arange(DRAWS)[:, None], drawn), 1)
        parts.append(counts)
    return np.hstack(parts)


def percentiles(
    first: Sequence[Stretch], second: Sequence[Stretch], quantiles: Sequence[float], seed: int = 0
) -> list[Shift]:
    """Each quantile of the response time, ms, on both sides."""
    rng = np.random.default_rng(seed)
    sides = (first, second)
    values = [np.sort(np.concatenate([s.response_ms for s in side] or [np.zeros(0)])) for side in sides]
    drawn = [_drawn(side, quantiles, rng) for side in sides]
    found = []
    for index, q in enumerate(quantiles):
        figures = [_quantile(all_, q) for all_ in values]
        draws = None if drawn[0] is None or drawn[1] is None else drawn[1][index] - drawn[0][index]
        found.append(_shift(first, second, figures, draws))
    return found


def mean(first: Sequence[Stretch], second: Sequence[Stretch], seed: int = 0) -> Shift:
    """Mean response time, ms."""

    def parts(stretch: Stretch) -> tuple[Floats, Floats]:
        sums = np.bincount(stretch.second, weights=stretch.response_ms, minlength=stretch.seconds).astype(
            float
        )
        return sums, np.bincount(stretch.second, minlength=stretch.seconds).astype(np.float64)

    return _ratio(first, second, parts, 1.0, seed)


def failures(first: Sequence[Stretch], second: Sequence[Stretch], seed: int = 0) -> Shift:
    """Requests that failed or were dropped, percent of all."""
    return _ratio(first, second, lambda s: (s.failed.astype(float), s.ended.astype(float)), 100.0, seed)


def _ratio(
    first: Sequence[Stretch], second: Sequence[Stretch], parts: Parts, factor: float, seed: int
) -> Shift:
    """factor · sum of the one ÷ sum of the other, of whole seconds."""
    rng = np.random.default_rng(seed)
    figures: list[float | None] = []
    drawn = []
    for side in (first, second):
        both = [parts(stretch) for stretch in side]
        over = np.concatenate([part[0] for part in both] or [np.zeros(0)])
        under = np.concatenate([part[1] for part in both] or [np.zeros(0)])
        total = float(under.sum())
        figures.append(factor * float(over.sum()) / total if total else None)
        if not total:
            continue
        dealt = weights(side, rng).astype(np.float64)
        drawn.append(factor * (dealt @ over) / np.maximum(dealt @ under, 1e-9))
    return _shift(first, second, figures, drawn[1] - drawn[0] if len(drawn) == 2 else None)


def _shift(
    first: Sequence[Stretch], second: Sequence[Stretch], figures: Sequence[float | None], draws: Floats | None
) -> Shift:
    blocks = blocks_of(first), blocks_of(second)
    seconds = sum(s.seconds for s in first), sum(s.seconds for s in second)
    a, b = figures
    interval = None
    if a is not None and b is not None and draws is not None and min(blocks) >= LEAST_BLOCKS:
        tail = (1 - CONFIDENCE) / 2
        m = min(blocks)
        wider = float(stats.t.ppf(1 - tail, m - 1) / stats.norm.ppf(1 - tail)) * math.sqrt(m / (m - 1))
        low, high = np.quantile(draws, [tail, 1 - tail])
        middle = float(np.median(draws))
        # About the difference of the raw values: drawn ones stand on bins.
        interval = (b - a) + wider * (float(low) - middle), (b - a) + wider * (float(high) - middle)
    return Shift(a, b, interval, seconds, blocks)


def _quantile(ordered: Floats, q: float) -> float | None:
    where = rank(q, len(ordered))
    return None if where is None else float(ordered[where])


def _drawn(
    side: Sequence[Stretch], quantiles: Sequence[float], rng: np.random.Generator
) -> list[Floats] | None:
    """Of each quantile: its value in every draw."""
    if not side or not any(len(stretch.response_ms) for stretch in side):
        return None
    bins = [
        np.maximum(0, np.log(np.maximum(s.response_ms, LOWEST_MS) / LOWEST_MS) / WIDTH).astype(np.int64)
        for s in side
    ]
    low = min(int(b.min()) for b in bins if len(b))
    width = max(int(b.max()) for b in bins if len(b)) - low + 1
    rows = []
    for stretch, b in zip(side, bins, strict=True):
        at = stretch.second * width + (b - low)
        rows.append(np.bincount(at, minlength=stretch.seconds * width).reshape(stretch.seconds, width))
    histogram = np.vstack(rows).astype(np.float32)
    dealt = weights(side, rng)
    found: list[list[Floats]] = [[] for _ in quantiles]
    for begin in range(0, DRAWS, 250):  # at a time, so that it stays small
        counts = np.cumsum(dealt[begin : begin + 250] @ histogram, axis=1, dtype=np.float32)
        for index, q in enumerate(quantiles):
            wanted = np.ceil(q * counts[:, -1:] - 1e-9)
            bin_ = (counts < wanted).sum(axis=1)
            found[index].append(LOWEST_MS * np.exp((np.minimum(bin_, width - 1) + low + 0.5) * WIDTH))
    return [np.concatenate(part) for part in found]
