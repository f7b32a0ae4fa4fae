"""The universal scalability law against known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from reports.capacity.scalability import Law, fit

GOLDEN_N = (1, 18, 36, 72, 108, 144, 216)
GOLDEN_X = (64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2)


def test_the_golden_data_set() -> None:
    found = fit(GOLDEN_N, GOLDEN_X)

    assert found.law.alpha == pytest.approx(0.027728, abs=2e-6)
    assert found.law.beta == pytest.approx(0.00010437, abs=2e-8)
    assert found.law.gamma == pytest.approx(89.995, abs=2e-3)
    assert found.law.peak == pytest.approx(1884, abs=1)
    assert found.law.peak_at == pytest.approx(96.5, abs=0.1)
    assert found.law.limit == pytest.approx(89.995 / 0.027728, rel=1e-3)
    assert found.r_squared > 0.98


def test_its_intervals_hold_the_estimate() -> None:
    found = fit(GOLDEN_N, GOLDEN_X)

    for name in ("alpha", "beta", "gamma", "peak", "peak_at", "limit"):
        interval = found.interval(name)
        assert interval is not None
        assert interval[0] <= getattr(found.law, name) <= interval[1]


@settings(deadline=None, max_examples=25)
@given(
    alpha=st.floats(0.001, 0.3),
    beta=st.floats(1e-5, 1e-3),
    gamma=st.floats(5, 5000),
    top=st.integers(64, 200),
)
def test_finds_the_law_that_made_the_data(alpha: float, beta: float, gamma: float, top: int) -> None:
    n = np.unique(np.geomspace(1, top, 9).round())
    found = fit(n.tolist(), Law(alpha, beta, gamma).throughput(n).tolist(), resamples=2)

    assert found.law.alpha == pytest.approx(alpha, rel=0.02, abs=1e-4)
    assert found.law.beta == pytest.approx(beta, rel=0.02, abs=1e-6)
    assert found.law.gamma == pytest.approx(gamma, rel=0.01)


def test_linear_data_have_neither_peak_nor_limit() -> None:
    found = fit(range(1, 9), [10.0 * n for n in range(1, 9)])

    assert found.law.peak is None
    assert found.law.limit is None
    assert found.interval("peak") is None


def test_superlinear_data_stay_within_the_bounds() -> None:
    found = fit(range(1, 9), [10.0 * n**1.3 for n in range(1, 9)])

    assert found.law.alpha == 0
    assert found.law.beta == 0


def test_noise_gives_an_interval_that_covers_the_truth() -> None:
    law, n = Law(0.05, 0.0005, 100), np.asarray([1, 2, 4, 8, 16, 24, 32, 48, 64] * 3, dtype=float)
    covered = 0
    for seed in range(10):
        noise = 1 + 0.03 * np.random.default_rng(seed).standard_normal(len(n))
        interval = fit(n.tolist(), (law.throughput(n) * noise).tolist(), seed=seed, resamples=100).interval(
            "peak"
        )
        covered += interval is not None and law.peak is not None and interval[0] <= law.peak <= interval[1]

    assert covered >= 8  # 95 % nominal


def test_no_prediction_far_beyond_the_data_unless_marked() -> None:
    found = fit(GOLDEN_N, GOLDEN_X)

    assert not found.predict(432).extrapolated
    with pytest.raises(UsageError, match="beyond twice"):
        found.predict(433)
    marked = found.predict(433, extrapolate=True)
    assert marked.extrapolated
    assert marked.interval[0] <= marked.throughput <= marked.interval[1]


@pytest.mark.parametrize(
    ("n", "x", "what"),
    [
        ((1, 2, 4, 8, 16), (1, 2, 3, 4, 5), "at least 6 levels"),
        ((1, 1, 1, 1, 1, 1), (1, 2, 3, 4, 5, 6), "at least 6 levels"),
        ((1, 2, 3), (1, 2), "one throughput for each"),
        ((0, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6), "concurrency ≥ 1"),
        ((1, 2, 3, 4, 5, 6), (1, 2, 3, 0, 5, 6), "throughput > 0"),
        ((1, 2, 3, 4, 5, 6), (1, 2, 3, float("nan"), 5, 6), "throughput > 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(n: tuple[float, ...], x: tuple[float, ...], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        fit(n, x)


def test_a_law_that_explains_nothing_says_so() -> None:
    rng = np.random.default_rng(1)
    n = [1, 2, 4, 6, 8, 12, 16, 24]

    assert not fit(n, rng.uniform(400, 900, len(n)).tolist()).describes
    assert fit(n, Law(0.1, 0.001, 100.0).throughput(np.asarray(n, dtype=float)).tolist()).describes
