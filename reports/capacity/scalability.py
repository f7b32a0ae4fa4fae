"""The universal scalability law, fitted to throughput over concurrency.

    X(N) = γN / (1 + α(N − 1) + βN(N − 1)),    0 ≤ α ≤ 1,  β ≥ 0,  γ > 0

γ is the throughput of one, α the share of work that queues for something shared (contention), β the cost
of agreeing with every other (coherency). With β > 0 throughput peaks at N = √((1 − α)/β); with β = 0 it tends
to the limit γ/α. (N. Gunther, *Guerrilla Capacity Planning*, 2007, ch. 4–5.) Without bounds a fit to noisy
data may find negative coefficients, which mean nothing: so it is bounded least squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lab.errors import UsageError

Floats = npt.NDArray[np.float64]

LEAST_LEVELS = 6
CONFIDENCE = 0.95
RESAMPLES = 500
EXPLAINED = 0.7
"""Share of the variance that the law has to explain (an assumption of the lab)."""
NOTHING = 1e-4
"""A coefficient that costs less than this share of the throughput at the greatest N counts as 0."""
BEYOND = 2.0
"""Times the greatest measured N up to which a prediction is not marked *extrapolated*."""


@dataclass(frozen=True)
class Law:
    """The three coefficients, and what follows from them."""

    alpha: float
    beta: float
    gamma: float

    def throughput(self, concurrency: float | Floats) -> Floats:
        """X(N) in the unit of the data, per second."""
        n = np.asarray(concurrency, dtype=np.float64)
        return np.asarray(self.gamma * n / (1 + self.alpha * (n - 1) + self.beta * n * (n - 1)))

    @property
    def peak_at(self) -> float | None:
        """Concurrency of the greatest throughput; None where throughput never falls (β = 0)."""
        return max(1.0, math.sqrt(max(0.0, 1 - self.alpha) / self.beta)) if self.beta > 0 else None

    @property
    def peak(self) -> float | None:
        """The greatest throughput; with β = 0 there is none, see ``limit``."""
        return float(self.throughput(self.peak_at)) if self.peak_at is not None else None

    @property
    def limit(self) -> float | None:
        """γ/α: what contention alone would allow; None where α = 0 (linear)."""
        return self.gamma / self.alpha if self.alpha > 0 else None


@dataclass(frozen=True)
class Prediction:
    """Throughput at a concurrency, and whether the data reach that far."""

    concurrency: float
    throughput: float
    interval: tuple[float, float]
    extrapolated: bool


@dataclass(frozen=True)
class Fit:
    """A fitted law with its bootstrap.

    ``resampled`` holds one law a resample; every interval is read from it, at 95 %.
    """

    law: Law
    concurrency: tuple[float, ...]
    throughput: tuple[float, ...]
    resampled: tuple[Law, ...]
    r_squared: float
    """1 − residual ÷ total sum of squares."""

    @property
    def describes(self) -> bool:
        """Whether the law explains enough of what was measured for its figures to mean anything."""
        return self.r_squared >= EXPLAINED

    @property
    def most_measured(self) -> float:
        return max(self.concurrency)

    def interval(self, name: str) -> tuple[float, float] | None:
        """Of ``alpha``, ``beta``, ``gamma``, ``peak``, ``peak_at`` or ``limit``.

        None where more than 2.5 % of the resamples have none (β or α at 0): it has no upper end then.
        """
        values = [value for law in self.resampled if (value := getattr(law, name)) is not None]
        if len(values) < len(self.resampled) * (1 + CONFIDENCE) / 2:
            return None
        return _middle(np.asarray(values))

    def band(self, concurrency: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bound of the law (not of single measurements) at each concurrency."""
        curves = np.stack([law.throughput(concurrency) for law in self.resampled])
        tail = (1 - CONFIDENCE) / 2
        return np.quantile(curves, tail, axis=0), np.quantile(curves, 1 - tail, axis=0)

    def predict(self, concurrency: float, *, extrapolate: bool = False) -> Prediction:
        """X(N). UsageError beyond twice the greatest measured N, unless ``extrapolate`` is set."""
        beyond = concurrency > BEYOND * self.most_measured
        if beyond and not extrapolate:
            raise UsageError(
                f"concurrency {concurrency:g} lies beyond twice the greatest measured one "
                f"({self.most_measured:g})",
                hint="Measure at a greater concurrency, or ask for an extrapolation and have it marked so.",
            )
        low, high = self.band(np.asarray([concurrency]))
        return Prediction(
            concurrency, float(self.law.throughput(concurrency)), (float(low[0]), float(high[0])), beyond
        )


def fit(
    concurrency: Sequence[float], throughput: Sequence[float], *, seed: int = 1, resamples: int = RESAMPLES
) -> Fit:
    """Fit the law, and resample its residuals for intervals.

    Args:
        concurrency: N of each measurement, at least 1; at least six different ones.
        throughput: X of each measurement, positive, per second.
        seed: of the bootstrap.
        resamples: how many laws the intervals are read from.

    Raises:
        UsageError: fewer than six levels, or values that are no measurements.
    """
    n, x = np.asarray(concurrency, dtype=np.float64), np.asarray(throughput, dtype=np.float64)
    if n.shape != x.shape or n.ndim != 1:
        raise UsageError("the scalability law needs one throughput for each concurrency")
    if not (np.isfinite(n).all() and np.isfinite(x).all() and (n >= 1).all() and (x > 0).all()):
        raise UsageError("the scalability law needs concurrency ≥ 1 and throughput > 0")
    levels = len(np.unique(n))
    if levels < LEAST_LEVELS:
        raise UsageError(
            f"the scalability law needs at least {LEAST_LEVELS} levels of concurrency, found {levels}",
            hint="Three coefficients through fewer points say nothing about their error.",
        )
    law = _solve(n, x)
    expected = law.throughput(n)
    residual = x - expected
    # Three coefficients were taken from the data: residuals are too small by this factor.
    residual = (residual - residual.mean()) * math.sqrt(len(n) / max(1, len(n) - 3))
    random = np.random.default_rng(seed)
    floor = x.min() * 1e-3
    resampled = tuple(
        _solve(n, np.maximum(floor, expected + random.choice(residual, len(n))), law)
        for _ in range(resamples)
    )
    spread = float(((x - x.mean()) ** 2).sum())
    unexplained = float(((x - expected) ** 2).sum())
    return Fit(
        law,
        tuple(n.tolist()),
        tuple(x.tolist()),
        resampled,
        1 - unexplained / spread if spread else 1.0,
    )


def _solve(n: Floats, x: Floats, start: Law | None = None) -> Law:
    scale = float(x.max())  # coefficients of one size, whatever unit the throughput has
    y = x / scale
    first = float((y / n).max())
    pairs = n * (n - 1)

    from scipy.optimize import least_squares  # slow to import

    def residuals(p: Floats) -> Floats:
        return np.asarray(p[2] * first * n / (1 + p[0] * (n - 1) + p[1] * pairs) - y)

    def slopes(p: Floats) -> Floats:
        below = 1 + p[0] * (n - 1) + p[1] * pairs
        top = p[2] * first * n
        return np.stack([-top * (n - 1) / below**2, -top * pairs / below**2, first * n / below], axis=1)

    begin = [0.05, 1e-4, 1.0] if start is None else [start.alpha, start.beta, start.gamma / scale / first]
    inside = np.clip(begin, [1e-9, 1e-9, 1e-6], [1 - 1e-9, 1 - 1e-9, np.inf])
    exact = 1e-12 if start is None else 1e-7
    best = least_squares(
        residuals,
        inside,
        jac=slopes,
        bounds=([0.0, 0.0, 1e-9], [1.0, 1.0, np.inf]),
        x_scale=[0.05, 1e-4, 1.0],
        xtol=exact,
        ftol=exact,
        gtol=exact,
    )
    alpha, beta, gamma = (float(value) for value in best.x)
    # The solver stays inside its bounds: what changes nothing over the measured range is 0.
    alpha = alpha if alpha * (n.max() - 1) > NOTHING else 0.0
    beta = beta if beta * pairs.max() > NOTHING else 0.0
    return Law(alpha, beta, gamma * first * scale)


def _middle(values: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
