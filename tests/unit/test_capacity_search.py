"""Objective, steadiness and the search for the knee: what a capacity run decides by."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.experiment.ladder import Ladder, Step
from lab.experiment.slo import parse_slo
from lab.experiment.steady import look, mser

# --- the objective


def test_an_objective_names_what_is_broken() -> None:
    slo = parse_slo("p99<100ms, errors<0.1%")

    assert slo.broken({"p99": 99.9, "errors": 0.0009, "dropped": 0.0}) == []
    assert slo.broken({"p99": 100.0, "errors": 0.0, "dropped": 0.0}) == ["p99 100 ms, not < 100 ms"]
    assert slo.broken({"p99": None, "errors": 0.002, "dropped": 0.0}) == [
        "p99 unknown, not < 100 ms",
        "errors 0.2 %, not < 0.1 %",
    ]
    assert slo.broken({"p99": 1.0, "errors": 0.0, "dropped": 0.01}) == ["dropped 1 %, not <= 0.1 %"]
    assert slo.percentile == ("p99", 100.0)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no term"),
        ("p99", "no term"),
        ("p98<100ms", "no term"),
        ("p99<100", "no term"),
        ("p99<100%", "a time"),
        ("errors<100ms", "a share"),
        ("p99<0ms", "nothing can meet"),
        ("p99<1.2.3ms", "not a number"),
        ("p99<1s, p99<2s", "twice"),
    ],
)
def test_what_is_no_objective_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_slo(text)


# --- steadiness


def step(level: np.ndarray, rate: int = 200, seed: int = 1) -> tuple[np.ndarray, np.ndarray, float]:
    """Responses around a level a second, exponential, at ``rate`` requests a second."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, len(level), rate * len(level)))
    return at, level[at.astype(int)] * rng.exponential(1.0, len(at)), float(len(level))


def test_level_responses_are_steady_from_the_beginning() -> None:
    false_alarms = sum(not look(*step(np.full(10, 5.0), seed=seed)).steady for seed in range(40))

    assert false_alarms <= 4


def test_warm_up_is_cut() -> None:
    found = look(*step(np.asarray([60.0, 20.0] + [5.0] * 10)))

    assert found.steady
    assert 1.5 <= found.warm_up_s <= 3.0


def test_a_step_beyond_capacity_is_never_steady() -> None:
    for seed in range(10):
        found = look(*step(np.linspace(5, 2000, 10), seed=seed))
        assert not found.steady
        assert "grew" in found.why


def test_a_step_that_is_too_short_or_empty_tells_nothing() -> None:
    assert not look(*step(np.full(2, 5.0))).steady
    assert not look(np.zeros(0), np.zeros(0), 10.0).steady


@given(st.lists(st.floats(1, 100), min_size=2, max_size=60))
def test_mser_keeps_at_least_half(values: list[float]) -> None:
    assert 0 <= mser(values) <= len(values) // 2


# --- the search


def climb(ladder: Ladder, good: object) -> list[Step]:
    steps: list[Step] = []
    while (rate := ladder.following(steps)) is not None:
        steps.append((rate, good(rate)))  # type: ignore[operator]
        assert len(steps) <= ladder.most_steps
    return steps


@settings(deadline=None)
@given(st.floats(2, 15_000), st.floats(10, 3000))
def test_finds_the_knee_within_its_precision(knee: float, first: float) -> None:
    ladder = Ladder(first)
    steps = climb(ladder, lambda rate: rate <= knee)
    low, high = ladder.bracket(steps)

    assert low is not None
    assert high is not None
    assert low <= knee < high
    assert high / low - 1 <= ladder.precision
    assert sum(1 for rate, good in steps if rate == low and good) == ladder.repeats


def test_what_everything_meets_ends_at_the_most() -> None:
    ladder = Ladder(100, most=1000)
    low, high = ladder.bracket(climb(ladder, lambda _: True))

    assert high is None
    assert low is not None
    assert low == 1000


def test_what_nothing_meets_ends_at_the_least() -> None:
    ladder = Ladder(100, least=5)
    steps = climb(ladder, lambda _: False)

    assert ladder.bracket(steps)[0] is None
    assert min(rate for rate, _ in steps) >= 5


def test_a_repeat_that_fails_sends_the_search_below() -> None:
    ladder = Ladder(100, precision=0.1)
    steps: list[Step] = [(100, True), (170, False), (130.38, True), (148.88, False), (139.33, True)]
    assert ladder.following(steps) == 139.33
    steps.append((139.33, False))

    assert ladder.bracket(steps) == (130.38, 139.33)
    assert ladder.following(steps) == 130.38


def test_the_same_steps_give_the_same_next_rate_after_an_interruption() -> None:
    rng = random.Random(3)
    steps = climb(Ladder(50), lambda rate: rate < 800 and rng.random() > 0.1)
    for end in range(len(steps)):
        assert Ladder(50).following(steps[:end]) == steps[end][0]
