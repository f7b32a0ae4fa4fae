"""Automatic scaling on paper: whether a signal gets above its threshold before the knee."""

from __future__ import annotations

import pytest

from reports.capacity.constraint import Constraint, Load
from reports.capacity.growth import stated
from reports.capacity.sections import scaling
from reports.capacity.signals import Signal, signals
from reports.experiments.capacity import _signal

CPU, CONNECTIONS = "CPU of the primary", "connections of the primary"


def load(rate: float, cpu: float | None, connections: float | None = 0.2) -> Load:
    return Load(rate=rate, good=True, throughput=rate, primary_cpu=cpu, connections=connections)


def test_a_signal_is_noticed_where_its_line_crosses_the_threshold() -> None:
    found = signals([load(50, 0.3), load(100, 0.6), load(200, 0.8), load(300, 1.0)], 200)

    assert found == [
        Signal(CPU, 0.3, 0.8, pytest.approx(150)),
        Signal(CONNECTIONS, 0.2, 0.2, None),
    ]


def test_repeats_of_a_rate_count_as_their_mean() -> None:
    found = signals([load(50, 0.5), load(50, 0.7), load(100, 0.7), load(100, 0.9)], 100)

    assert found[0] == Signal(CPU, pytest.approx(0.6), pytest.approx(0.8), pytest.approx(75))


def test_a_signal_that_is_always_above_is_noticed_from_the_least_rate_on() -> None:
    assert signals([load(50, 0.9), load(100, 0.95)], 100)[0].noticed == 50


def test_a_signal_that_fell_again_counts_from_where_it_stays() -> None:
    found = signals([load(50, 0.9), load(100, 0.5), load(200, 0.9)], 200)

    assert found[0].noticed == pytest.approx(150)


def test_what_was_not_sampled_at_the_knee_is_left_out() -> None:
    assert [one.name for one in signals([load(50, 0.9), load(100, None)], 100)] == [CONNECTIONS]
    assert signals([], 100) == []


POOL_BOUND = Constraint("pool", "full")
CPU_BOUND, MACHINE = Constraint("primary CPU", "full"), Constraint("machine", "full", lower_bound=True)
TIMELY = [Signal(CPU, 0.3, 0.84, 150.0), Signal(CONNECTIONS, 0.2, 0.2, None)]
LATE = [Signal(CPU, 0.1, 0.35, None), Signal(CONNECTIONS, 0.2, 0.2, None)]


def test_the_strongest_signal_is_held_against_the_threshold() -> None:
    assert _signal(TIMELY, CPU_BOUND).value == pytest.approx(120)
    assert _signal(LATE, POOL_BOUND).value == pytest.approx(50)
    assert _signal(LATE, POOL_BOUND).status is None


def test_what_the_machine_ended_shows_only_what_was_noticed() -> None:
    assert _signal(LATE, MACHINE).status == "inconclusive"
    assert "machine" in _signal(LATE, MACHINE).why
    assert _signal(LATE, Constraint("unknown", "nothing was under pressure")).status == "inconclusive"
    # Held back by a quota while it used a third: a full-size instance would not be.
    assert _signal(LATE, CPU_BOUND).status == "inconclusive"
    assert _signal(TIMELY, MACHINE).status is None


def test_the_section_says_whether_and_how_many_months_before() -> None:
    yes = scaling(TIMELY, CPU_BOUND, 200.0, stated(100.0, 0.05))
    no = scaling(LATE, POOL_BOUND, 200.0, None)
    unknown = scaling(LATE, MACHINE, 200.0, None)

    assert yes
    assert no
    assert unknown
    assert yes.text[0].startswith("Yes: CPU of the primary stands at 70 % from 150/s on")
    # ln(200 / 150) / ln 1.05
    assert yes.tables[0].rows[0][-1] == "5.90"
    assert no.text[0].startswith("No: ")
    assert unknown.text[0].startswith("Not known: ")
    assert scaling([], CPU_BOUND, 200.0, None) is None
