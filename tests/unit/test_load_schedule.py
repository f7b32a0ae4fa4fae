"""Arrivals, the rule for dropping, and the histogram of lag."""

from __future__ import annotations

import random
import statistics
from itertools import islice, pairwise

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import NS, constant, poisson, schedule
from loadtests.config import LoadConfig, LoadTarget
from loadtests.dispatch import Dispatcher, Work
from loadtests.histogram import GROWTH, Histogram


def config(**fields: object) -> LoadConfig:
    target = LoadTarget("pool.writer", "pool", 6432, "risk")
    base: dict[str, object] = {
        "run": "r", "out": "/o", "workload": "risk-api", "writer": target, "user": "u", "password_file": "/p",
    }  # fmt: skip
    return LoadConfig(**{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_gaps_are_exponential(seed: int) -> None:
    at = list(islice(poisson(200.0, random.Random(seed)), 20_001))
    gaps = [(b - a) / NS for a, b in pairwise(at)]
    mean = statistics.fmean(gaps)
    # The mean's standard error is 1 / (200 √20000) = 0.7 %; of an exponential, deviation = mean.
    assert mean == pytest.approx(1 / 200, rel=0.03)
    assert statistics.pstdev(gaps) == pytest.approx(mean, rel=0.04)
    # Memoryless: 1/e of the gaps are longer than the mean. Evenly spaced ones would give 0 or 1.
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.015)


def test_constant_arrivals_do_not_drift() -> None:
    at = list(islice(constant(3.0), 3_000_001))
    assert at[3_000_000] == 1_000_000 * NS


def test_equal_seeds_give_equal_schedules_and_others_do_not() -> None:
    one = list(schedule(config(seed=7, rate=50, duration_s=20), 0))
    assert one == list(schedule(config(seed=7, rate=50, duration_s=20), 0))
    assert one != list(schedule(config(seed=8, rate=50, duration_s=20), 0))
    assert one != list(schedule(config(seed=7, rate=50, duration_s=20, workers=1), 1))
    assert all(a <= b for a, b in pairwise(one))
    assert one[-1] < 20 * NS


def test_workers_share_the_rate() -> None:
    shares = [len(list(schedule(config(rate=400, workers=4, duration_s=30), w))) for w in range(4)]
    assert sum(shares) == pytest.approx(12_000, rel=0.04)
    assert max(shares) < 3_400


def test_constant_workers_interleave_evenly() -> None:
    settings = config(rate=100, workers=4, arrivals="constant", duration_s=1)
    at = sorted(t for w in range(4) for t in schedule(settings, w))
    assert len(at) == 100
    assert {b - a for a, b in pairwise(at)} == {NS // 100}


def test_closed_arrivals_have_no_schedule() -> None:
    with pytest.raises(ValueError, match="closed"):
        next(schedule(config(arrivals="closed"), 0))


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * NS

    def __call__(self) -> int:
        return self.now


def dispatcher(clock: Clock, drop_after_s: float = 1.0) -> tuple[Dispatcher, list[tuple[Work, int]]]:
    dropped: list[tuple[Work, int]] = []
    made = Dispatcher(int(drop_after_s * NS), lambda work, now: dropped.append((work, now)), clock=clock)
    return made, dropped


def test_an_arrival_that_waits_too_long_is_dropped_with_its_intended_time() -> None:
    clock = Clock()
    queue, dropped = dispatcher(clock)
    begin = clock.now
    queue.offer((begin, 0))
    clock.now += NS - 1
    queue.offer((clock.now, 1))
    assert (queue.queued, dropped) == (2, [])
    clock.now += 1
    assert queue.take() == (begin + NS - 1, 1)
    assert dropped == [((begin, 0), begin + NS)]
    assert (queue.dropped, queue.offered) == (1, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_every_arrival_is_served_once_or_dropped_once(moves: list[tuple[int, bool]]) -> None:
    clock = Clock()
    queue, dropped = dispatcher(clock)
    served: list[Work] = []
    for number, (step, serve) in enumerate(moves):
        clock.now += step * NS // 4
        queue.offer((clock.now, number))
        if serve:
            work = queue.take()
            assert work is not None
            served.append(work)
    left = queue.end()
    every = served + [work for work, _ in dropped] + left
    assert sorted(work[1] for work in every) == list(range(len(moves)))
    assert all(now - work[0] >= NS for work, now in dropped)


def test_free_users_are_served_in_turn_and_told_of_the_end() -> None:
    clock = Clock()
    queue, _ = dispatcher(clock)
    got: list[tuple[str, Work | None]] = []

    def user(name: str) -> None:
        while True:
            work = queue.take()
            got.append((name, work))
            if work is None:
                return

    users = [gevent.spawn(user, name) for name in ("a", "b")]
    gevent.sleep(0)
    for number in range(3):
        queue.offer((clock.now, number))
        gevent.sleep(0)
        gevent.sleep(0)
    assert [(name, work[1]) for name, work in got if work] == [("a", 0), ("b", 1), ("a", 2)]
    queue.end()
    gevent.joinall(users, timeout=1)
    assert [work for _, work in got[3:]] == [None, None]
    assert queue.take() is None


def test_lag_counts_the_generators_lateness_only() -> None:
    clock = Clock()
    queue, _ = dispatcher(clock, drop_after_s=60)
    intended = clock.now - 3_000_000  # the schedule is 3 ms late
    for number in range(20):
        queue.offer((intended, number))
    clock.now += 10 * NS  # no user was free for 10 s: that is the system's doing
    for _ in range(20):
        queue.take()
    assert queue.lag.total == 20
    assert queue.lag.percentile(50) == pytest.approx(3_000_000, rel=0.03)
    assert queue.lag.most == 3_000_000


def test_a_killed_user_loses_no_work() -> None:
    clock = Clock()
    queue, dropped = dispatcher(clock)
    user = gevent.spawn(queue.take)
    gevent.sleep(0)
    user.kill()
    queue.offer((clock.now, 1))
    assert queue.queued == 1
    assert dropped == []


@given(st.lists(st.integers(2_000, 10_000_000_000), min_size=200, max_size=400))
def test_histogram_percentiles_are_within_two_percent(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[-(-len(values) * 95 // 100) - 1]
    found = histogram.percentile(95)
    assert found is not None
    assert exact <= found * (1 + 1e-9)
    assert found <= exact * GROWTH * (1 + 1e-9)
    other = Histogram.from_json(Histogram.from_json(histogram.to_json()).to_json())
    other.merge(histogram)
    assert other.total == 2 * len(values)
    assert other.percentile(95) == found


def test_a_percentile_with_fewer_than_ten_samples_beyond_it_is_none() -> None:
    histogram = Histogram()
    for _ in range(999):
        histogram.add(5_000)
    assert histogram.percentile(99) is None
    histogram.add(5_000)
    assert histogram.percentile(99) is not None
