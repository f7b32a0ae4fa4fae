"""Schedules do not wait, and two writers number their writes without talking."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.observe.schedule import Schedule, number, writers


@given(
    st.integers(0, 10**12),
    st.floats(0.001, 0.1),
    st.floats(0.01, 1.0),
    st.integers(1, 200),
)
def test_numbers_are_dense_unique_and_grow_with_time(
    base: int, lasting_s: float, fresh_s: float, count: int
) -> None:
    lasting, fresh = writers(base, lasting_s, fresh_s)
    assert lasting is not None
    assert fresh is not None
    until = base + count * min(lasting.interval, fresh.interval)
    found = []
    for own, other, first in ((lasting, fresh, True), (fresh, lasting, False)):
        k = 0
        while own.at(k) < until:
            found.append((own.at(k), not first, number(own, other, k, first=first)))
            k += 1
    found.sort()
    assert [n for _, _, n in found] == list(range(1, len(found) + 1))


def test_alone() -> None:
    lasting, fresh = writers(100, 0.01, 0.0)
    assert fresh is None
    assert lasting is not None
    assert [number(lasting, None, k, first=True) for k in range(3)] == [1, 2, 3]


@given(st.integers(-(10**6), 10**6), st.integers(1, 1000), st.integers(-(10**6), 10**6))
def test_before_counts(start: int, interval: int, moment: int) -> None:
    schedule = Schedule(start, interval)
    count = schedule.before(moment)
    assert count == 0 or schedule.at(count - 1) < moment
    assert schedule.at(count) >= moment
