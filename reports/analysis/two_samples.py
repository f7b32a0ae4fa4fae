"""Whether two small sets of numbers differ, and by how much, without assuming a distribution.

- *Mann–Whitney, exact*: if both sets came from one distribution, every way to deal the n + m values into
  sets of n and m would be as likely as any other. p (two-sided) is the share of them whose sum of ranks (ties
  share their mean rank) lies at least as far from its expectation as the observed one. All are counted up to
  50,000; beyond that the normal approximation with its correction for ties (Hollander & Wolfe,
  *Nonparametric Statistical Methods*, ch. 4).
- *Hodges–Lehmann difference*: the median of all n·m differences (second − first). Its interval runs from the
  k-th smallest to the k-th greatest of them, with the greatest k for which 2·P(U < k) ≤ 1 − confidence, U
  being Mann–Whitney's statistic under no difference (Moses). With ties it covers more than it says.
- *Wilcoxon's signed ranks, exact*, for pairs: under no difference each pair's sign is a fair coin. p is the
  share of the 2^n signs whose sum of signed ranks is at least as far from 0; pairs without a difference
  are left out. Beside it the median of all Walsh averages (d_i + d_j) / 2, with the interval from the same
  distribution.
- *least p*: what the test can give at best with so many values. Where that is above 5 %, no data can show
  a difference: *too few*. Three against three give 0.1, four against four 0.029; pairs take six.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
MOST_ARRANGEMENTS = 50_000
MOST_SIGNS = 14
"""Pairs up to which all 2^n signs are counted."""


@dataclass(frozen=True)
class Difference:
    """What two sets of numbers say about their difference (second − first)."""

    p: float
    least_p: float
    estimate: float | None
    """None where a value is infinite (an outage without an end)."""
    interval: tuple[float, float] | None
    """None where so few values give none at this confidence."""
    method: str

    @property
    def too_few(self) -> bool:
        """Whether no data of this size could show a difference."""
        return self.least_p > 1 - CONFIDENCE

    @property
    def shown(self) -> bool:
        return not self.too_few and self.p <= 1 - CONFIDENCE


def independent(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Two sets of values that have nothing to do with each other; ValueError where one is empty."""
    if not first or not second:
        raise ValueError("both sets need a value")
    n, m = len(first), len(second)
    arrangements = math.comb(n + m, n)
    least = min(1.0, 2 / arrangements)
    ranks = stats.rankdata([*first, *second])
    if arrangements <= MOST_ARRANGEMENTS:
        p, how = _exact(ranks, n), f"exact Mann–Whitney, {n} against {m}"
    else:
        p = float(stats.mannwhitneyu(_finite(first), _finite(second), method="asymptotic").pvalue)
        p, how = (1.0 if math.isnan(p) else p), f"Mann–Whitney (normal approximation), {n} against {m}"
    if not all(map(math.isfinite, (*first, *second))):
        return Difference(p, least, None, None, how)
    differences = np.sort(np.subtract.outer(np.asarray(second), np.asarray(first)).ravel())
    return Difference(
        p, least, float(np.median(differences)), _interval(differences, _mann_whitney(n, m)), how
    )


def _finite(values: Sequence[float]) -> list[float]:
    """Infinite values as the greatest number: only ranks count."""
    return [min(value, 1e300) for value in values]


def _exact(ranks: Floats, n: int) -> float:
    expected = n * (len(ranks) + 1) / 2
    observed = abs(float(ranks[:n].sum()) - expected)
    chosen = np.fromiter(
        itertools.chain.from_iterable(itertools.combinations(range(len(ranks)), n)), dtype=np.intp
    ).reshape(-1, n)
    far = np.abs(ranks[chosen].sum(axis=1) - expected) >= observed - 1e-9
    return float(far.mean())


def _mann_whitney(n: int, m: int) -> Floats:
    """P(U = u) for u = 0 … n·m without ties, by counting."""
    # Ways to deal: the coefficients of the Gaussian binomial (n + m over n), built factor by factor.
    ways = np.zeros(n * m + 1)
    ways[0] = 1.0
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            ways[u] -= ways[u - m - i]
        for u in range(i, n * m + 1):
            ways[u] += ways[u - i]
    return np.asarray(ways / ways.sum(), dtype=np.float64)


def _interval(ordered: Floats, chances: Floats) -> tuple[float, float] | None:
    below = np.cumsum(chances)
    k = int(np.searchsorted(below, (1 - CONFIDENCE) / 2 + 1e-12, side="right"))
    if k < 1:
        return None
    return float(ordered[k - 1]), float(ordered[len(ordered) - k])


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Values that belong together one by one (one seed, one phase). ValueError: unequal or empty."""
    if len(first) != len(second) or not first:
        raise ValueError("pairs need two sets of one length")
    # Two outages without an end cannot be told apart: no difference.
    pairs = list(zip(first, second, strict=True))
    differences = [0.0 if a == b else b - a for a, b in pairs]
    n = len(differences)
    least = min(1.0, 2.0 ** (1 - n))
    told = np.array([d for d in differences if d != 0])
    if not len(told):
        p, how = 1.0, f"exact signed ranks, {n} pairs"
    elif len(told) <= MOST_SIGNS:
        p, how = _signs(told), f"exact signed ranks, {n} pairs"
    else:
        with np.errstate(invalid="ignore"):
            p = float(stats.wilcoxon(np.clip(told, -1e300, 1e300), method="asymptotic").pvalue)
        how = f"signed ranks (normal approximation), {n} pairs"
    if not all(map(math.isfinite, differences)):
        return Difference(p, least, None, None, how)
    walsh = np.sort([(a + b) / 2 for a, b in itertools.combinations_with_replacement(differences, 2)])
    return Difference(p, least, float(np.median(walsh)), _interval(walsh, _signed_ranks(n)), how)


def _signs(differences: Floats) -> float:
    ranks = stats.rankdata(np.abs(differences))
    observed = abs(float((np.sign(differences) * ranks).sum()))
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(ranks))))
    return float((np.abs(signs @ ranks) >= observed - 1e-9).mean())


def _signed_ranks(n: int) -> Floats:
    """P(W = w) for w = 0 … n(n + 1)/2, W the sum of the positive ranks."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[:-rank].copy()
    return np.asarray(ways / ways.sum(), dtype=np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p adjusted for having looked at all of them (Holm's step-down)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    worst = 0.0
    for place, index in enumerate(order):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - place)))
        adjusted[index] = worst
    return adjusted
