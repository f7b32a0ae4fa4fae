"""Objective, steadiness and the search for the knee: what a capacity run decides by."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.experiment.capacity import CapacityPlan, _Steps, estimate_s, plan_for, samples
from lab.experiment.ladder import Ladder, Step
from lab.experiment.slo import parse_slo
from lab.experiment.steady import look, mser
from lab.experiment.step import COLUMNS, measure
from lab.record.schema import NS
from lab.topology.loader import load_topology
from loadtests.workloads import list_workloads
from reports.capacity.scalability import LEAST_LEVELS

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


# --- a step


class Bench:
    """Cells without a lab."""

    def __init__(self) -> None:
        self.seed = 1
        self.cells: list[SimpleNamespace] = []
        self.progress = SimpleNamespace(say=lambda *_: None)

    @contextlib.contextmanager
    def cell(self, name: str, *, repeat: int, **parameters: Any) -> Iterator[SimpleNamespace]:
        cell = SimpleNamespace(
            number=len(self.cells) + 1, name=name, repeat=repeat, parameters=parameters, result={}, begin=0
        )
        self.cells.append(cell)
        yield cell

    def now(self) -> int:
        return 0


def answered(rate: float, seconds: float, slow: float) -> pa.Table:
    """Requests of a constant rate; the first share of them is ten times as slow as the rest."""
    count = round(rate * seconds)
    intended = (np.arange(count) / rate * NS).astype(np.int64)
    response = np.where(np.arange(count) < slow * count, 0.05, 0.005) * NS
    columns = {"intended": intended, "started": intended, "done": (intended + response).astype(np.int64),
               "name": ["x"] * count, "endpoint": ["w"] * count, "outcome": ["ok"] * count}  # fmt: skip
    return pa.table(columns)


@pytest.mark.parametrize(
    ("rate", "slow", "lengths", "good"),
    [
        (
            34,
            [0.4, 0.0],
            [44, 88],
            True,
        ),  # its warm-up leaves too few for a p99: once more, for twice as long
        (34, [0.0], [44], True),
        (34, [0.4, 0.45], [44, 88], True),  # and half of that is enough
        (20, [0.45, 0.45], [60, 120], True),
        (200, [0.4], [12], True),
    ],
)
def test_a_step_whose_percentile_is_not_known_is_not_bad_but_run_for_longer(
    rate: float, slow: list[float], lengths: list[float], good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[float] = []

    def measured(_self: _Steps, _cell: Any, spec: Any) -> tuple[Any, float]:
        ran.append(spec.duration_s)
        return measure(answered(rate, spec.duration_s, slow[len(ran) - 1]), spec.duration_s), 1.0

    monkeypatch.setattr(_Steps, "_measured", measured)
    bench: Any = Bench()
    slo = parse_slo("p99<100ms, errors<0.1%")
    steps = _Steps(bench, CapacityPlan("tpcb", slo.text, rate), slo, ())
    assert steps._open(rate, 1) is good
    assert ran == pytest.approx(lengths, rel=0.01)
    assert bench.cells[0].parameters["seconds"] == ran[-1]


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


# --- a step


def requests(*rows: tuple[str, float]) -> pa.Table:
    """A hundred of each (name, response in ms), ten a second."""
    at = [round(i * NS / 10) for i in range(100)]
    columns: dict[str, list[object]] = {name: [] for name in COLUMNS}
    for name, response in rows:
        done = [t + round(response * 1e6) for t in at]
        values = (at, at, done, [name] * 100, ["pool.writer"] * 100, ["ok"] * 100)
        for column, more in zip(COLUMNS, values, strict=True):
            columns[column] += more
    return pa.table(columns)


def test_percentiles_are_of_what_somebody_waits_for() -> None:
    both = requests(("page", 5.0), ("report", 500.0))
    found = measure(both, 10, {"report"})
    assert found is not None

    assert found.response["p50"] == 5.0
    assert found.everything["mean"] == pytest.approx(252.5)
    assert found.requests == 200
    assert parse_slo("p50<100ms").broken(found.shares()) == []
    assert parse_slo("mean(all)<100ms").broken(found.shares()) == ["mean(all) 252.5 ms, not < 100 ms"]


def test_where_there_is_nothing_else_the_background_is_judged() -> None:
    found = measure(requests(("report", 500.0)), 10, {"report"})
    assert found is not None

    assert found.response["p50"] == 500.0


def test_mixed_knows_its_reports_and_jobs_and_a_report_alone_is_waited_for() -> None:
    known = list_workloads()

    background = known["mixed"].background(known)
    assert {"GET /reports/var", "POST /settlements"} <= set(background)
    assert not {"POST /trades", "GET /desks/{id}", "GET /positions (one-off)"} & set(background)
    assert known["analytics"].background(known) == ()


# --- what is measured unless told otherwise


def test_the_workload_is_mixed_where_its_schema_is() -> None:
    assert plan_for(load_topology("risk-dev")).workload == "mixed"
    assert plan_for(load_topology("dora-dev")).workload == "tpcb"
    with pytest.raises(UsageError, match="needs the schema set risk"):
        plan_for(load_topology("dora-dev"), workload="mixed")


def test_a_quick_run_is_short_and_still_fits_the_law() -> None:
    topology = load_topology("risk-prod")
    quick, full = plan_for(topology, quick=True), plan_for(topology)

    assert len(quick.depth.levels) >= LEAST_LEVELS
    assert estimate_s(quick) < 5 * 60 < estimate_s(full) < 15 * 60


def test_a_step_has_as_many_requests_as_its_percentile_takes() -> None:
    assert samples(parse_slo("p99<100ms")) == pytest.approx(1500)
    assert samples(parse_slo("p95(all)<1s")) == pytest.approx(300)
    assert samples(parse_slo("errors<1%")) == 1


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
    assert sum(1 for rate, good in steps if rate == high and not good) == ladder.repeats
    # Every rate is repeated, unless the steps ran out.
    times = Counter(rate for rate, _ in steps)
    assert len(steps) == ladder.most_steps or set(times.values()) == {ladder.repeats}


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


def test_a_rate_that_fails_more_often_than_not_sends_the_search_below() -> None:
    ladder = Ladder(100, precision=0.1)
    steps: list[Step] = [(100, True), (170, False), (170, False)]
    steps += [(130.38, True), (148.88, False), (148.88, False), (139.33, True)]
    assert ladder.following(steps) == 139.33
    steps.append((139.33, False))
    assert ladder.following(steps) == 139.33
    steps.append((139.33, False))

    assert ladder.bracket(steps) == (130.38, 139.33)
    assert ladder.following(steps) == 130.38


def test_a_bad_step_is_repeated_before_it_is_believed() -> None:
    ladder = Ladder(100)
    steps: list[Step] = [(100, True), (170, False)]
    assert ladder.following(steps) == 170
    steps.append((170, True))
    # One of each: a third decides, and the search goes on above.
    assert ladder.bracket(steps) == (100, 170)
    assert ladder.following(steps) == 170
    steps.append((170, True))

    assert ladder.bracket(steps) == (170, None)
    assert ladder.following(steps) == 289


def test_with_one_step_a_rate_the_first_word_counts() -> None:
    ladder = Ladder(100, repeats=1)

    assert ladder.following([(100, True), (170, False)]) == 130.38


@settings(deadline=None)
@given(st.floats(20, 2000), st.integers(0, 30))
def test_one_step_that_tells_the_opposite_changes_nothing(knee: float, stalled: int) -> None:
    ladder, count = Ladder(50), iter(range(100))
    steps = climb(ladder, lambda rate: (rate <= knee) != (next(count) == stalled))
    low, high = ladder.bracket(steps)

    assert low is not None
    assert high is not None
    assert low <= knee < high or len(steps) == ladder.most_steps


def test_the_same_steps_give_the_same_next_rate_after_an_interruption() -> None:
    rng = random.Random(3)
    steps = climb(Ladder(50), lambda rate: rate < 800 and rng.random() > 0.1)
    for end in range(len(steps)):
        assert Ladder(50).following(steps[:end]) == steps[end][0]
