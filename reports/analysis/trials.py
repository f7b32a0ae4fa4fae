"""What a number of trials can say.

- *median*, *worst*: of the trials' values.
- *confidence interval of the median*: between the k-th smallest and k-th largest value, where k is the
  largest for which the chance 1 − 2·P(Binomial(n, ½) < k) that they enclose the median is at least 95 %;
  it needs n ≥ 6 and no distribution (order statistics: Conover, Practical Nonparametric Statistics).
- *strength*: with n exchangeable trials, the chance that one more is worse than all of them is 1/(n+1);
  no failure in n bounds the rate of failures at about 3/n with 95 % confidence (rule of three, for larger
  n; exactly 1 − 0.05^(1/n)).
"""

from __future__ import annotations

from collections.abc import Sequence


def median(values: Sequence[float]) -> float | None:
    """The median, None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[tuple[float, float], float] | None:
    """((low, high), its true confidence) of the median; None where there are too few values."""
    from scipy.stats import binom  # slow to import, and most of what uses this module needs no interval

    ordered = sorted(values)
    n = len(ordered)
    best = None
    for k in range(1, n // 2 + 1):
        covered = 1 - 2 * float(binom.cdf(k - 1, n, 0.5))
        if covered < confidence:
            break
        best = ((ordered[k - 1], ordered[n - k]), covered)
    return best


def failure_bound(n: int, confidence: float = 0.95) -> float:
    """Upper bound of the failure rate after n trials without a failure: 1 − (1 − confidence)^(1/n)."""
    if n < 1:
        raise ValueError("a bound needs at least one trial")
    return float(1 - (1 - confidence) ** (1 / n))


def strength(n: int) -> str:
    """One sentence: how strong n trials without a failure are."""
    return (
        f"one more trial would be worse than all {n} with a chance of 1 in {n + 1}, "
        f"and a failure rate of up to {failure_bound(n):.0%} is not excluded (95 %)"
    )
