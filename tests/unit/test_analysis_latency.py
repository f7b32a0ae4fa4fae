"""Percentiles from raw values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.analysis.latency import DROPPED, ERROR, OK, Requests, by_second, load, rank, summary

settings.register_profile("lab", deadline=None)  # a shared machine has slow moments
settings.load_profile("lab")


def requests(rows: list[tuple[int, float, int]]) -> Requests:
    """(second, response ms, state)"""
    second = np.array([row[0] for row in rows], dtype=np.int32)
    response = np.array([row[1] for row in rows], dtype=np.float32)
    state = np.array([row[2] for row in rows], dtype=np.int8)
    lag = np.zeros(len(rows), dtype=np.float32)
    kind = np.zeros(len(rows), dtype=np.int16)
    return Requests(second, response, response, lag, kind, state, (("read", "pool.reader"),), {})


@pytest.mark.parametrize(
    ("q", "n", "expected"),
    [
        (0.5, 20, 9),
        (0.5, 19, None),
        (0.99, 1000, 989),
        (0.99, 999, None),
        (0.9, 100, 89),
        (0.999, 9999, None),
    ],
)
def test_nearest_rank_with_ten_samples_beyond(q: float, n: int, expected: int | None) -> None:
    assert rank(q, n) == expected


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = np.arange(1, 1001, dtype=np.float32)
    np.random.default_rng(1).shuffle(values)
    found = summary(values)
    assert (found["p50"], found["p95"], found["p99"], found["p99.9"]) == (500, 950, 990, None)
    assert (found["max"], found["mean"]) == (1000, pytest.approx(500.5))


def test_nothing_has_no_percentile() -> None:
    assert set(summary(np.zeros(0, dtype=np.float32)).values()) == {None}


def test_errors_and_drops_are_counted_and_kept_out_of_percentiles() -> None:
    rows = [(5, 10.0, OK)] * 30 + [(5, 9999.0, ERROR)] * 5 + [(7, float("nan"), DROPPED)] * 2
    found = by_second(requests(rows))
    assert found.t == (5, 6, 7)
    assert (found.ok, found.errors, found.dropped) == ((30, 0, 0), (5, 0, 0), (0, 0, 2))
    assert found.p50 == (10.0, None, None)
    assert found.p95 == (None, None, None)
    assert found.longest == (10.0, None, None)


def test_the_steady_state_is_only_itself() -> None:
    rows = [(s, float(s), OK) for s in range(100) for _ in range(40)]
    found = load(requests(rows), [(10, 20)], 100.0)
    assert found.steady is not None
    assert found.steady.count == 400
    assert found.steady.rate == pytest.approx(40)
    assert found.steady.response["max"] == 19
    assert load(requests(rows), [], 100.0).steady is None
    assert load(requests([]), [(0, 9)], 9).all is None


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.floats(0, 5000, width=32), st.sampled_from([OK, OK, OK, ERROR, DROPPED])
        ),
        min_size=1,
        max_size=300,
    )
)
def test_each_second_agrees_with_a_plain_computation(rows: list[tuple[int, float, int]]) -> None:
    found = by_second(requests(rows))
    for i, second in enumerate(found.t):
        values = sorted(value for s, value, state in rows if s == second and state == OK)
        assert found.ok[i] == len(values)
        for q, column in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
            where = rank(q, len(values))
            assert column[i] == (None if where is None else pytest.approx(values[where], abs=0.0011))
        assert found.longest[i] == (pytest.approx(values[-1], abs=0.0011) if values else None)
    assert sum(found.ok) + sum(found.errors) + sum(found.dropped) == len(rows)
