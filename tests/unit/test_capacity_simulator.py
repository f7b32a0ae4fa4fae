"""The simulator against queueing theory, and the laws that it must never break."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from reports.capacity.simulator import DROPPED, FAILED, OK, TIMED_OUT, UNFINISHED, Outcome, simulate
from reports.capacity.system import Demand, Outage, Pool, System, Traffic

EXPONENTIAL = np.random.default_rng(5).exponential(1.0, 200_000)
ENDLESS = Pool(writer=10**6, reader=10**6)


def one(service: object, **fields: float) -> tuple[Demand, ...]:
    return (Demand("x", 1.0, True, np.atleast_1d(np.asarray(service, dtype=float)), **fields),)


def erlang_c_wait(rate: float, mean: float, servers: int) -> float:
    """Mean wait of M/M/c, seconds (Erlang C)."""
    load = rate * mean
    blocked = (load**servers / math.factorial(servers)) / sum(
        load**k / math.factorial(k) for k in range(servers + 1)
    )
    wait = blocked / (1 - load / servers * (1 - blocked))
    return wait * mean / (servers - load)


@pytest.mark.parametrize(
    ("servers", "utilisation", "requests"),
    [(1, 0.3, 300_000), (1, 0.8, 1_000_000), (2, 0.6, 300_000), (4, 0.8, 500_000)],
)
def test_exponential_service_at_the_cpu_waits_as_theory_says(
    servers: int, utilisation: float, requests: int
) -> None:
    mean = float(EXPONENTIAL.mean())
    rate = utilisation * servers / mean
    system = System(instances=100_000, primary=servers, pool=ENDLESS, drop_after=1e9)

    found = simulate(system, Traffic(one(EXPONENTIAL), requests, rate))

    wait = float((found.done - found.started - found.service).mean())
    assert wait == pytest.approx(erlang_c_wait(rate, mean, servers), rel=0.02)


def test_a_short_query_is_slowed_by_a_long_one_and_does_not_wait_for_its_end() -> None:
    # M/G/1 with processor sharing: a demand of x takes x/(1 − ρ), whatever else there is (Kleinrock 1967).
    short, long = 0.001, 0.1
    demands = (
        Demand("short", 10.0, True, np.asarray([short])),
        Demand("long", 1.0, True, np.asarray([long])),
    )
    rate = 0.5 / ((10 * short + long) / 11)
    system = System(instances=100_000, primary=1.0, pool=ENDLESS, drop_after=1e9)

    found = simulate(system, Traffic(demands, 100_000, rate))

    for kind, demand in enumerate((short, long)):
        took = (found.done - found.started)[found.kind == kind]
        assert float(took.mean()) == pytest.approx(demand / 0.5, rel=0.05)


def test_a_machine_that_is_not_full_adds_nothing_and_a_full_one_is_the_limit() -> None:
    alone = System(instances=10_000, primary=8.0, pool=ENDLESS, drop_after=1e9)
    shared = replace(alone, machine=2.0, machine_cpu=0.003)
    demand = one(0.010, cpu=0.2)  # 2 ms at the node, 3 elsewhere: 400 a second
    calm = simulate(shared, Traffic(demand, 500, 5.0))
    flood = simulate(shared, Traffic(demand, 5000, 1000.0))

    assert float(np.median(calm.response)) == pytest.approx(0.010)
    assert len(flood.done) / float(flood.done.max()) == pytest.approx(400, rel=0.02)


def test_poolers_do_not_wait_for_each_other() -> None:
    # A session pool of one, whose reports take a second each; a transaction pool that carries the rest.
    demands = (
        Demand("page", 50.0, False, np.asarray([0.002]), cpu=0.0),
        Demand("report", 1.0, False, np.asarray([1.0]), cpu=0.0, pooler=1, fresh=True),
    )
    system = System(
        instances=1000, pool=Pool(writer=5, reader=5), more=(Pool("session", 1, 1),), drop_after=1e9
    )
    found = simulate(system, Traffic(demands, 3000, 150.0))
    wait = found.granted - found.started

    assert float(wait[found.pool == 1].max()) < 0.01
    assert float(wait[found.pool == 3].max()) > 5
    # A session of a request's own gives its connection back with its end.
    assert (found.state == OK).all()


def test_a_pooler_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="a pooler that the system does not have"):
        simulate(System(), Traffic((Demand("x", 1.0, True, np.ones(1), pooler=1),), 1, 1.0))


def test_exponential_service_at_the_pool_waits_as_theory_says() -> None:
    # CPU in abundance: the pool's four connections are the servers.
    mean = float(EXPONENTIAL.mean())
    rate = 0.8 * 4 / mean
    pool = Pool(writer=4, reader=4, wait_timeout=1e9)
    system = System(instances=100_000, primary=1000, pool=pool, drop_after=1e9)

    found = simulate(system, Traffic(one(EXPONENTIAL, cpu=0.0), 500_000, rate))

    assert float(found.wait.mean()) == pytest.approx(erlang_c_wait(rate, mean, 4), rel=0.02)


def test_a_closed_loop_obeys_the_interactive_response_time_law() -> None:
    # R = N/X − Z (Denning and Buzen, 1978).
    think = np.random.default_rng(1).exponential(2.0, 10_000)
    system = System(instances=10, primary=1.0, pool=ENDLESS)

    found = simulate(system, Traffic(one(EXPONENTIAL), 50_000, None, think))

    throughput = len(found.done) / found.done.max()
    assert float(found.response.mean()) == pytest.approx(10 / throughput - 2.0, rel=0.03)


systems = st.builds(
    System,
    instances=st.integers(1, 12),
    concurrency=st.integers(1, 3),
    pool=st.builds(
        Pool,
        mode=st.sampled_from(["transaction", "session", "statement"]),
        writer=st.integers(1, 5),
        reader=st.integers(1, 5),
        wait_timeout=st.sampled_from([0.05, 120.0]),
        session_length=st.sampled_from([0, 1, 7]),
    ),
    primary=st.sampled_from([0.5, 1.0, 2.0, 3.5]),
    replicas=st.sampled_from([(), (0.5,), (1.0, 2.0)]),
    machine=st.sampled_from([1.0, 2.0, math.inf]),
    machine_cpu=st.sampled_from([0.0, 0.002]),
    cache_hit=st.sampled_from([0.0, 0.5, 1.0]),
    drop_after=st.sampled_from([0.05, 5.0]),
    more=st.just((Pool("session", 2, 2, wait_timeout=0.05),)),
)
mixes = st.builds(
    lambda writes, held, cpu, seed: (
        Demand("w", writes, True, np.random.default_rng(seed).exponential(0.01, 50), held=held, cpu=cpu),
        Demand(
            "r",
            1 - writes,
            False,
            np.asarray([0.002, 0.004]),
            held=held,
            queried=0.5,
            cpu=cpu,
            cacheable=True,
        ),
        Demand("own session", 0.1, False, np.asarray([0.003]), held=held, cpu=cpu, pooler=1, fresh=True),
    ),
    st.floats(0.05, 0.95),
    st.floats(0.3, 1.0),
    st.floats(0.0, 1.0),
    st.integers(0, 99),
)
traffics = st.builds(
    Traffic,
    demands=mixes,
    requests=st.integers(1, 400),
    rate=st.one_of(st.none(), st.floats(1, 3000)),
    think=st.sampled_from([np.zeros(1), np.asarray([0.01, 0.05])]),
    seed=st.integers(0, 99),
)


def most_at_once(begin: np.ndarray, end: np.ndarray) -> int:
    """Greatest number of [begin, end) that overlap."""
    edges = sorted([(t, 1) for t in begin] + [(t, -1) for t in end], key=lambda edge: (edge[0], edge[1]))
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


@settings(deadline=None, max_examples=150)
@given(systems, traffics)
def test_conservation(system: System, traffic: Traffic) -> None:
    found = simulate(system, traffic)
    ok = found.state == OK

    # Every request has one end, and only those that were answered have a moment of it.
    assert len(found.state) == traffic.requests
    assert set(np.unique(found.state)) <= {OK, DROPPED, TIMED_OUT, UNFINISHED}
    assert (np.isfinite(found.done) == ok).all()
    # Nothing happens before its cause, and nobody is served faster than the service takes.
    assert (found.started[ok] >= found.arrived[ok]).all()
    assert (found.done - found.started >= found.service - 1e-9)[ok].all()
    held = ok & (found.pool >= 0)
    assert (found.granted[held] >= found.started[held]).all()
    assert (found.released[held] <= found.done[held] + 1e-9).all()
    # No more than there is: clients, server connections, CPU.
    assert most_at_once(found.started[ok], found.done[ok]) <= system.clients
    if system.pool.mode != "session":
        for pool, size in enumerate((system.pool.writer, system.pool.reader, 2, 2)):
            rows = held & (found.pool == pool)
            assert most_at_once(found.granted[rows], found.released[rows]) <= size
    span = float(np.nanmax(found.done)) if ok.any() else 0.0
    longest = float(found.cpu.max())
    for node, cores in enumerate((system.primary, *system.replicas)):
        used = float(found.cpu[ok & (found.node == node)].sum())
        # A job leaves before its quota is paid: each server may owe one job.
        assert used <= cores * span + math.ceil(cores) * longest + 1e-6
    # Little: the time integral of requests in the system is the sum of their stays.
    if ok.all():
        edges = np.sort(np.concatenate([found.arrived, found.done]))
        inside = [((found.arrived <= t) & (found.done > t)).sum() for t in (edges[1:] + edges[:-1]) / 2]
        assert float(np.dot(inside, np.diff(edges))) == pytest.approx(
            float((found.done - found.arrived).sum()), rel=1e-6, abs=1e-9
        )


@settings(deadline=None, max_examples=60)
@given(systems, traffics)
def test_a_pool_serves_in_the_order_of_asking(system: System, traffic: Traffic) -> None:
    pooled = replace(system, pool=replace(system.pool, mode="transaction"))
    found = simulate(pooled, traffic)
    for pool in (0, 1, 2, 3):
        rows = np.flatnonzero((found.pool == pool) & np.isfinite(found.granted))
        rows = rows[np.argsort(found.started[rows], kind="stable")]
        assert (np.diff(found.granted[rows]) >= -1e-12).all()


def test_equal_seeds_give_equal_runs() -> None:
    traffic = Traffic(one(EXPONENTIAL), 500, 2.0)
    first, second = simulate(System(), traffic), simulate(System(), traffic)

    assert np.array_equal(first.done, second.done, equal_nan=True)


def test_a_quota_is_part_of_what_was_measured_and_the_limit_of_a_flood() -> None:
    # Demand 10 ms on half a core: of 25 ms measured 20 are the quota's, and a flood gets 50 a second.
    system = System(instances=10_000, primary=0.5, pool=ENDLESS, drop_after=1e9)
    alone = simulate(system, Traffic(one(0.025, cpu=0.4), 200, 1.0))
    flood = simulate(system, Traffic(one(0.025, cpu=0.4), 2000, 500.0))

    assert float(np.median(alone.response)) == pytest.approx(0.025)
    assert len(flood.done) / flood.done.max() == pytest.approx(50, rel=0.02)


def test_transaction_pooling_carries_clients_that_session_pooling_starves() -> None:
    demand = one(0.005, cpu=0.2)
    shared = System(instances=50, primary=4.0, pool=Pool("transaction", 5, 5, wait_timeout=1.0))
    kept = replace(shared, pool=replace(shared.pool, mode="session"))

    assert (simulate(shared, Traffic(demand, 5000, 500.0)).state == OK).all()
    # 45 of 50 clients never get a connection; each fails once a second.
    failed = (simulate(kept, Traffic(demand, 5000, 500.0)).state == TIMED_OUT).mean()
    assert failed == pytest.approx(45 / 500, rel=0.1)


def test_statement_pooling_holds_a_connection_for_the_statement_only() -> None:
    # 10 ms held, of which a statement runs for 2: one connection carries 100 a second, or 500.
    demand = one(0.010, cpu=0.0, queried=0.2)

    def throughput(mode: str) -> float:
        pool = Pool(mode, 1, 1)  # type: ignore[arg-type]
        found = simulate(System(1000, pool=pool, drop_after=1e9), Traffic(demand, 3000, 2000.0))
        return len(found.done) / float(found.done.max())

    assert throughput("transaction") == pytest.approx(100, rel=0.02)
    assert throughput("statement") == pytest.approx(500, rel=0.02)


def test_a_cache_takes_its_share_from_the_pools() -> None:
    demand = (Demand("r", 1.0, False, np.asarray([0.01]), cacheable=True),)
    found = simulate(System(100, cache_hit=0.9, primary=8.0), Traffic(demand, 20_000, 100.0))

    assert (found.pool == -1).mean() == pytest.approx(0.9, abs=0.01)
    assert float(np.median(found.response)) == pytest.approx(0.0005, rel=0.01)


def outage_run(length: float, connections: int = 0) -> Outcome:
    system = System(instances=100_000, primary=1.0, pool=ENDLESS, drop_after=1e9)
    outage = Outage(20.0, length, connect_cpu=0.004, connections=connections)
    return simulate(system, Traffic(one(0.005), 16_000, 100.0), outage)


def caught_up(found: Outcome) -> float:
    """When the last request was answered that took longer than 100 ms."""
    return float(found.done[(found.done - found.arrived) > 0.1].max())


def test_the_backlog_of_an_outage_drains_at_the_spare_capacity() -> None:
    # λ = 100/s, μ = 200/s: 10 s of backlog take λL/(μ − λ) = 10 s more.
    assert caught_up(outage_run(10.0)) == pytest.approx(20 + 10 + 10, rel=0.05)


def test_a_reconnect_storm_delays_the_backlog() -> None:
    # 500 connections × 4 ms = 2 s in which nothing is served, and 2 · λ/(μ − λ) = 2 s to catch up.
    late = caught_up(outage_run(10.0, 500)) - caught_up(outage_run(10.0))
    assert late == pytest.approx(4.0, rel=0.15)


def test_work_under_way_when_the_primary_fails_is_lost() -> None:
    system = System(instances=50, primary=10.0, pool=ENDLESS)
    found = simulate(system, Traffic(one(1.0), 400, 10.0), Outage(20.0, 5.0))

    broken = found.state == FAILED
    assert 5 <= broken.sum() <= 20  # about rate × service time
    assert (found.granted[broken] < 20).all()


@pytest.mark.parametrize(
    ("system", "traffic", "what"),
    [
        (System(), Traffic((), 10, 1.0), "no request"),
        (System(), Traffic(one(1.0), 0, 1.0), "no request"),
        (System(), Traffic(one(1.0), 10, 0.0), "more than 0 requests"),
        (System(), Traffic(one([]), 10, 1.0), "at least one measured"),
        (System(instances=0), Traffic(one(1.0), 10, 1.0), "at least 1"),
        (System(primary=0.0), Traffic(one(1.0), 10, 1.0), "at least 1"),
    ],
)
def test_what_cannot_run_is_refused(system: System, traffic: Traffic, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        simulate(system, traffic)
