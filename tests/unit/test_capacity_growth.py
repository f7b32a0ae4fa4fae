"""Growth: known answers, and histories that say nothing."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from reports.capacity.growth import fitted, headroom, month_of, parse_growth, reached, read_history, stated

JANUARY = dt.date(2026, 1, 1)


def months(
    count: int, monthly: float, noise: float = 0.0, first: float = 100.0
) -> list[tuple[dt.date, float]]:
    rng = np.random.default_rng(2)
    return [
        (
            dt.date(2024 + i // 12, i % 12 + 1, 1),
            first * (1 + monthly) ** i * math.exp(noise * rng.standard_normal()),
        )
        for i in range(count)
    ]


@settings(deadline=None)
@given(st.floats(0.005, 0.5), st.floats(1.01, 20))
def test_stated_growth_reaches_the_knee_when_the_formula_says(monthly: float, times: float) -> None:
    expected = math.log(times) / math.log(1 + monthly)
    found = reached(stated(100, monthly, JANUARY), 100 * times)

    assert (found.expected is None) == (expected > 120)
    if found.expected is not None:
        assert found.expected == pytest.approx(expected, rel=1e-6)
        assert found.earliest == found.expected == found.latest


def test_an_uncertain_knee_makes_a_range_of_months() -> None:
    growth = stated(100, 0.05, JANUARY)
    found = reached(growth, 200, (180, 220))

    assert found.earliest == pytest.approx(math.log(1.8) / math.log(1.05))
    assert found.latest == pytest.approx(math.log(2.2) / math.log(1.05))
    assert [month_of(growth, m) for m in (found.earliest, found.expected, found.latest)] == [
        "2027-01",
        "2027-03",
        "2027-05",
    ]


def test_a_load_that_shrinks_or_stands_still_never_reaches_it() -> None:
    for monthly in (-0.1, 0.0):
        growth = stated(100, monthly, JANUARY)
        assert reached(growth, 101).expected is None
        assert month_of(growth, None) == "after 2036-01"


def test_what_is_reached_already_is_reached_now() -> None:
    found = reached(stated(100, 0.05), 90)

    assert found.already
    assert found.expected == 0
    assert headroom(100, 90) < 0
    assert headroom(100, 400) == 0.75


@pytest.mark.parametrize("count", [3, 8, 12, 30])
def test_a_history_without_noise_gives_back_its_growth(count: int) -> None:
    found = fitted(months(count, 0.04))
    last = months(count, 0.04)[-1][1]

    assert found.monthly == pytest.approx(0.04, rel=0.02)
    assert found.now == pytest.approx(last, rel=0.02)
    assert reached(found, last * 2).expected == pytest.approx(math.log(2) / math.log(1.04), rel=0.03)


@pytest.mark.parametrize("count", [6, 24])
def test_noise_makes_a_range_around_the_truth(count: int) -> None:
    found = fitted(months(count, 0.04, noise=0.05))
    knee = 3 * found.now
    when = reached(found, knee)

    assert when.earliest is not None
    assert when.expected is not None
    assert when.earliest < when.expected
    assert when.latest is None or when.latest > when.expected
    assert when.earliest <= math.log(3) / math.log(1.04) <= (when.latest or 120)


def test_intervals_widen_with_the_horizon() -> None:
    found = fitted(months(24, 0.04, noise=0.05))
    width = [math.log(found.high[m] / found.low[m]) for m in (1, 12, 48)]

    assert width[0] < width[1] < width[2]


def test_days_of_a_month_are_taken_together(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    rows = [f"2026-0{m}-{d:02d},{100 * m}" for m in range(1, 5) for d in (1, 11, 21)]
    file.write_text("date,requests_per_second\n" + "\n".join(reversed(rows)) + "\n\n")

    assert len(read_history(file)) == 12
    assert [rate for _, rate in fitted(read_history(file)).history] == pytest.approx([100, 200, 300, 400])


def test_the_rate_now_moves_the_forecast() -> None:
    found = fitted(months(6, 0.04), now=1000)

    assert found.now == 1000
    assert found.middle[0] == pytest.approx(1000)
    assert found.middle[12] == pytest.approx(1000 * 1.04**12, rel=0.01)


@pytest.mark.parametrize(
    ("text", "now", "what"),
    [
        ("-100%", 10.0, "leaves nothing"),
        ("-250%", 10.0, "leaves nothing"),
        ("-1.5", 10.0, "leaves nothing"),
        ("5000%", 10.0, "growth of 5000"),
        ("5%", None, "the rate that is carried now"),
        ("5%", 0.0, "more than 0 requests"),
        ("1.2.3", 10.0, "no growth"),
        ("nowhere.csv", None, "cannot be read"),
    ],
)
def test_growth_that_cannot_be_is_refused(text: str, now: float | None, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_growth(text, now)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", ":1: expected the header"),
        ("when,rate\n2026-01-01,5\n", ":1: expected the header"),
        ("date,requests_per_second\n", "0 months shows no growth"),
        ("date,requests_per_second\n2026-01-01,5\n", "1 month shows no growth"),
        ("date,requests_per_second\n2026-01-01,5\n2026-01-20,6\n2026-02-01,6\n", "2 months shows no growth"),
        (
            "date,requests_per_second\n2026-01-01,5\n2026-02-01,5\n2026-05-01,6\n",
            "gaps: nothing for 2026-03, 2026-04",
        ),
        ("date,requests_per_second\n2026-13-01,5\n", ":2: '2026-13-01' is no date"),
        ("date,requests_per_second\n2026-01-01,x\n", ":2: 'x' is no number"),
        ("date,requests_per_second\n2026-01-01,-5\n", ":2: a rate is more than 0"),
        ("date,requests_per_second\n2026-01-01,nan\n", ":2: a rate is more than 0"),
        ("date,requests_per_second\n2026-01-01,5,6\n", ":2: expected 2 fields"),
        (
            "date,requests_per_second\n2026-01-01,5\n2026-01-01,6\n",
            ":3: 2026-01-01 stands here a second time",
        ),
    ],
)
def test_a_history_that_says_nothing_is_refused_with_its_place(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "history.csv"
    file.write_text(text)

    with pytest.raises(UsageError, match=what):
        parse_growth(str(file), None)
