"""The binding constraint: each resource alone under pressure, and what must not be mistaken for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reports.capacity.constraint import Load, binding

CALM = Load(
    rate=100, good=True, throughput=100, primary_cpu=0.3, primary_throttled=0.0,
    replica_cpu=0.2, replica_throttled=0.0, pools={"writer": 0.2, "reader": 0.3},
    pool_wait={"writer": 0.01, "reader": 0.01}, pool_response={"writer": 5.0, "reader": 5.0},
    connections=0.2, waits={"CPU": 0.3, "IO:WALSync": 0.05}, replay_lag_s=0.01, cache_hit=0.8,
    generator_lag=1.0, generator_cpu=0.3, machine=0.6, wal_bytes=1e5, clients=0.1,
)  # fmt: skip
BAD = replace(CALM, rate=200, good=False, throughput=150)
FULL: dict[str, dict[str, float]] = {
    "pools": {"writer": 1.0}, "pool_wait": {"writer": 30.0}, "pool_response": {"writer": 50.0}
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pressed", "said"),
    [
        ("primary CPU", {"primary_cpu": 0.97}, "97% of its CPU limit at 200/s"),
        ("primary CPU", {"primary_cpu": 0.6, "primary_throttled": 0.2}, "held the primary back for 20%"),
        ("primary CPU", {"primary_cpu": 0.2, "primary_throttled": 0.5}, "held the primary back for 50%"),
        ("replica CPU", {"replica_cpu": 0.9}, "a replica used 90%"),
        ("pool", {"pools": {"writer": 1.0, "reader": 0.1}, "pool_wait": {"writer": 30.0},
                  "pool_response": {"writer": 50.0}}, "the pool (writer) was 100%"),
        ("max_connections", {"connections": 1.0}, "100% of max_connections"),
        ("max_connections", {"refused": 0.05}, "5.0% of the requests were refused"),
        ("lock", {"waits": {"Lock:transactionid": 9.0, "CPU": 1.0}}, "90% of the primary's active sessions"),
        ("WAL", {"waits": {"IO:WALSync": 3.0, "LWLock:WALWrite": 3.0, "CPU": 2.0}}, "waited for WAL"),
        ("WAL", {"waits": {"IPC:SyncRep": 5.0, "CPU": 0.5}}, "IPC:SyncRep"),
        ("replica", {"replay_lag_s": 30.0}, "30.0 s behind"),
        ("cache", {"cache_hit": 0.2}, "fell from 80% to 20%"),
        ("generator", {"generator_lag": 80.0}, "late by 80 ms"),
        ("generator", {"generator_cpu": 0.98}, "98% of its cores"),
        ("generator", {"generator_throttled": 0.4}, "held the generator back for 40%"),
        ("machine", {"machine": 0.99, "generator_lag": 80.0}, "the generator too was late by 80 ms"),
        ("machine", {"machine": 0.99}, "the cores that the nodes share"),
        ("clients", {"clients": 1.0}, "100% of the users"),
    ],
)  # fmt: skip
def test_each_is_named_with_its_evidence(name: str, pressed: dict[str, object], said: str) -> None:
    found = binding([CALM, replace(BAD, **pressed)])  # type: ignore[arg-type]

    assert found.name == name
    assert said in found.evidence
    assert found.lower_bound == (name in ("generator", "machine", "clients"))


def test_nothing_under_pressure_is_unknown_with_the_nearest() -> None:
    found = binding([CALM, BAD])

    assert found.name == "unknown"
    assert "machine with 60%" in found.evidence


def test_without_a_bad_step_it_is_a_lower_bound() -> None:
    found = binding([CALM])

    assert found.name == "unknown"
    assert found.lower_bound
    assert "every rate was good" in found.evidence


def test_a_step_that_most_of_its_rate_contradict_is_not_what_ends_it() -> None:
    stalled = replace(CALM, rate=150, good=False, primary_cpu=1.0)
    steps = [CALM, replace(CALM, rate=150), stalled, replace(CALM, rate=150)]

    assert binding([*steps, replace(BAD, waits={"Lock:tuple": 9.0, "CPU": 1.0})]).name == "lock"
    assert "every rate was good" in binding(steps).evidence


def test_of_a_bad_rate_a_bad_step_is_looked_at() -> None:
    lucky = replace(CALM, rate=200)
    stuck = replace(BAD, replica_cpu=1.0)

    assert binding([CALM, lucky, stuck, stuck]).name == "replica CPU"


def test_what_half_of_the_bad_steps_show_binds() -> None:
    locked = replace(BAD, waits={"Lock:tuple": 9.0, "CPU": 1.0})
    busy = replace(BAD, rate=210, replica_cpu=1.0)

    assert binding([CALM, locked, busy, busy]).name == "replica CPU"
    assert "at 210/s" in binding([CALM, locked, busy, busy]).evidence
    # As often as another: the cause before the effect.
    assert binding([CALM, busy, busy, locked, locked]).name == "lock"
    # One of three is chance.
    assert binding([CALM, BAD, BAD, replace(busy, rate=220)]).name == "unknown"


def test_steps_far_beyond_the_knee_are_not_looked_at() -> None:
    full = replace(BAD, replica_cpu=1.0)
    flood = [replace(BAD, rate=250 + i, machine=1.0) for i in range(9)]

    assert binding([CALM, full, *flood]).name == "replica CPU"


def test_on_a_full_machine_waiting_for_wal_is_waiting_for_cpu() -> None:
    waits = {"IO:WALSync": 3.0, "CPU": 2.0}

    assert binding([CALM, replace(BAD, waits=waits, machine=0.84)]).name == "WAL"
    found = binding([CALM, replace(BAD, waits=waits, machine=0.9)])
    assert found.name == "machine"
    assert any(text.startswith("WAL") for text in found.also)


def test_nothing_measured_is_unknown() -> None:
    assert binding([]).name == "unknown"


def test_a_full_pool_in_front_of_a_full_database_is_the_database() -> None:
    full = replace(BAD, **FULL, primary_cpu=0.98)  # type: ignore[arg-type]

    assert binding([CALM, full]).name == "primary CPU"


def test_a_pool_that_is_waited_for_elsewhere_does_not_bind() -> None:
    elsewhere = replace(BAD, **{**FULL, "pool_wait": {"reader": 30.0}})  # type: ignore[arg-type]

    assert binding([CALM, elsewhere]).name == "unknown"


def test_a_full_pool_for_which_nobody_waits_does_not_bind() -> None:
    assert binding([CALM, replace(BAD, **{**FULL, "pool_wait": {"writer": 0.1}})]).name == "unknown"


def test_locks_come_before_the_pool_that_they_fill() -> None:
    queued = replace(BAD, waits={"Lock:tuple": 1.5, "CPU": 0.5}, **FULL)  # type: ignore[arg-type]
    found = binding([CALM, queued])

    assert found.name == "lock"
    assert any(text.startswith("pool") for text in found.also)


def test_a_busy_machine_is_not_blamed_for_a_node_at_its_own_limit() -> None:
    assert binding([CALM, replace(BAD, machine=1.0, replica_cpu=0.9)]).name == "replica CPU"


def test_a_little_throttling_of_a_node_that_is_hardly_used_binds_nothing() -> None:
    assert binding([CALM, replace(BAD, primary_cpu=0.2, primary_throttled=0.1)]).name == "unknown"


def test_the_generator_is_blamed_before_anything_else() -> None:
    everything = replace(BAD, generator_cpu=1.0, primary_cpu=1.0, machine=1.0)

    assert binding([CALM, everything]).name == "generator"


def test_the_least_bad_step_is_looked_at() -> None:
    worse = replace(BAD, rate=400, primary_cpu=1.0)

    assert binding([CALM, replace(BAD, machine=0.99), worse]).name == "machine"
