"""When a step of load has become steady: detected from what it answered, not assumed.

*Warm-up* is cut by MSER-5: responses are averaged over bins of 0.1 s, five bins make a batch, and the
beginning is cut where the mean of the rest has the least squared standard error, Σ(y − ȳ)²/m² over the m
batches kept. (K. P. White, "An effective truncation heuristic for bias reduction in simulation output",
*Simulation* 69(6), 1997; the batch of five is from its successor's study by Spratt, 1998.) A cut of half
the step means that the step was too short to tell.

*Stationary* is what remains if it has no trend: the least-squares line through its batches differs from
level by less than ``DRIFT`` of their mean from end to end, or by less than its own 95 % error. A step beyond
capacity has responses that grow all the time, and is not stationary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BIN_S = 0.1
BATCH = 5
LEAST_BATCHES = 8
DRIFT = 0.3
_T95 = 2.1
"""Two-sided 95 % of Student's t for the 10 to 40 batches that a step has."""


@dataclass(frozen=True)
class Steady:
    """What a step's responses say about it."""

    steady: bool
    warm_up_s: float
    """Seconds from the beginning of the step that are cut."""
    drift: float | None
    """Change from end to end of what remains, as a share of its mean."""
    why: str


def mser(values: Sequence[float] | npt.NDArray[Any]) -> int:
    """How many values to cut from the beginning (at most half of them) by the least standard error."""
    y = np.asarray(values, dtype=np.float64)
    best, least = 0, math.inf
    for cut in range(len(y) // 2 + 1):
        rest = y[cut:]
        error = float(((rest - rest.mean()) ** 2).sum()) / len(rest) ** 2
        if error < least:
            best, least = cut, error
    return best


def look(at_s: npt.NDArray[np.float64], response_ms: npt.NDArray[np.float64], length_s: float) -> Steady:
    """Judge one step.

    Args:
        at_s: when each answered request was intended, seconds from the beginning of the step.
        response_ms: its response time.
        length_s: of the step.
    """
    bins = max(0, int(length_s / BIN_S + 1e-9))
    inside = (at_s >= 0) & (at_s < bins * BIN_S)
    where = (at_s[inside] / BIN_S).astype(np.int64)
    count = np.bincount(where, minlength=bins).astype(np.float64)
    total = np.bincount(where, weights=response_ms[inside], minlength=bins)
    batches = bins // BATCH
    batch_count = count[: batches * BATCH].reshape(batches, BATCH).sum(axis=1)
    if batches < LEAST_BATCHES or not batch_count.all():
        return Steady(False, 0.0, None, "too short, or too few answers, to tell")
    y = total[: batches * BATCH].reshape(batches, BATCH).sum(axis=1) / batch_count
    cut = mser(y)
    rest = y[cut:]
    drift, error = _trend(rest)
    warm_up = cut * BATCH * BIN_S
    if abs(drift) > DRIFT and abs(drift) > error:
        word = "grew" if drift > 0 else "fell"
        return Steady(False, warm_up, drift, f"responses {word} by {abs(drift):.0%} over the step")
    if cut >= batches // 2 and batches > LEAST_BATCHES:
        return Steady(False, warm_up, drift, "half of the step was warm-up")
    return Steady(True, warm_up, drift, "")


def _trend(y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Change from end to end of the line through y as a share of its mean, and its 95 % error."""
    n = len(y)
    x = np.arange(n) - (n - 1) / 2
    slope = float((x * y).sum() / (x**2).sum())
    spread = float(((y - y.mean() - slope * x) ** 2).sum())
    error = math.sqrt(spread / max(1, n - 2) / float((x**2).sum()))
    mean = float(y.mean())
    return (slope * (n - 1) / mean, _T95 * error * (n - 1) / mean) if mean > 0 else (0.0, 0.0)
