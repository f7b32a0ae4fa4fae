"""What the model says of a system: figures at a rate, the knee, an outage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lab.experiment.slo import Objective
from lab.experiment.step import quantiles, shares
from reports.capacity.simulator import DROPPED, FAILED, OK, TIMED_OUT, Outcome, simulate
from reports.capacity.system import FOREVER, Demand, Outage, System, Traffic, mean_service

REQUESTS = 40_000
"""Of one simulated rate: some 400 beyond its p99."""
PRECISION = 0.02


@dataclass(frozen=True)
class Point:
    """The model at one rate. Times in ms, shares of 1, rates per second."""

    rate: float
    throughput: float
    response: dict[str, float | None]
    wait: float
    """Mean wait for a server connection."""
    errors: float
    dropped: float
    utilisation: dict[str, float]
    """Of the primary, the readers, the pools and the machine."""
    everything: dict[str, float | None]
    """Response times with those of requests in the background among them."""

    def shares(self) -> dict[str, float | None]:
        return shares(self.response, self.everything, self.errors, self.dropped)


def at(
    system: System, demands: tuple[Demand, ...], rate: float, *, requests: int = REQUESTS, seed: int = 1
) -> Point:
    """Simulate one rate. The first tenth of the requests is warm-up, as far as percentiles go."""
    outcome = simulate(system, Traffic(demands, requests, rate, seed=seed))
    return point(system, demands, outcome, rate, warm_up=requests // 10)


def point(
    system: System, demands: tuple[Demand, ...], outcome: Outcome, rate: float, *, warm_up: int = 0
) -> Point:
    """The figures of a simulated run, by the definitions of ``lab.experiment.step``."""
    kept = slice(warm_up, None)
    state, arrived, done = outcome.state[kept], outcome.arrived[kept], outcome.done[kept]
    ok = state == OK
    n = max(1, len(state))
    begin = float(arrived[0])
    end = max(float(arrived[-1]), float(np.nanmax(done)) if ok.any() else 0.0)
    direct = np.asarray([pool.direct for pool in system.pools])[np.maximum(outcome.pool[kept], 0) // 2]
    got = np.isfinite(outcome.granted[kept]) & ~direct
    wait = (outcome.granted[kept] - outcome.started[kept])[got]
    response = (done - arrived)[ok] * 1000
    waited_for = ~np.asarray([d.background for d in demands])[outcome.kind[kept]][ok]
    errors = (
        np.isin(state, (TIMED_OUT, FAILED)).sum()
        + ((state != OK) & ~np.isin(state, (TIMED_OUT, FAILED, DROPPED))).sum()
    )
    return Point(
        rate=rate,
        throughput=int(ok.sum()) / max(end - begin, 1e-9),
        response=quantiles(response[waited_for] if waited_for.any() else response),
        everything=quantiles(response),
        wait=float(wait.mean()) * 1000 if len(wait) else 0.0,
        errors=float(errors) / n,
        dropped=float((state == DROPPED).sum()) / n,
        utilisation=_utilisation(system, outcome),
    )


def _utilisation(system: System, outcome: Outcome) -> dict[str, float]:
    span = max(
        float(np.nanmax(outcome.done)) if np.isfinite(outcome.done).any() else 0.0, float(outcome.arrived[-1])
    )
    span = max(span, 1e-9)
    ran = np.isfinite(outcome.granted)
    found = {"primary CPU": float(outcome.cpu[ran & (outcome.node == 0)].sum()) / (system.primary * span)}
    if system.replicas:
        found["replica CPU"] = float(outcome.cpu[ran & (outcome.node > 0)].sum()) / (
            sum(system.replicas) * span
        )
    for number, pool in enumerate(system.pools):
        which = f"{pool.mode} " if system.more else ""
        for side, name, size in ((0, "writer pool", pool.writer), (1, "reader pool", pool.reader)):
            rows = ran & (outcome.pool == 2 * number + side)
            if pool.mode != "session" and rows.any():
                held = float((outcome.released - outcome.granted)[rows].sum())
                found[which + name] = held / (size * span)
    if system.machine != FOREVER:
        work = float(outcome.cpu[ran].sum() + outcome.beside[ran].sum())
        found["machine"] = work / (system.machine * span)
    busy = np.nansum((outcome.done - outcome.started)[np.isfinite(outcome.done)])
    found["clients"] = float(busy) / (system.clients * span)
    return found


def bottleneck(point: Point) -> tuple[str, float]:
    """The station that is used most."""
    return max(point.utilisation.items(), key=lambda item: item[1])


def ceiling(system: System, demands: tuple[Demand, ...]) -> float:
    """The rate at which the first station is fully used: no queueing system carries more (bottleneck law)."""
    share = sum(d.share for d in demands)
    kept = [(d, d.share / share * (1 - system.cache_hit * d.cacheable)) for d in demands]
    cpu = {True: 0.0, False: 0.0}
    held: dict[tuple[int, bool], float] = {}
    service = mean_service(demands)
    for d, part in kept:
        mean = float(d.service.mean())
        cpu[d.writes] += part * mean * min(d.cpu, d.held)
        side, mode = (d.pooler, d.writes), system.pools[d.pooler].mode
        if mode != "session" or d.fresh:
            work = part * mean * d.held * (d.queried if mode == "statement" else 1.0)
            held[side] = held.get(side, 0.0) + work
    primary = cpu[True] + (0.0 if system.replicas else cpu[False])
    limits = [
        system.primary / primary if primary else FOREVER,
        sum(system.replicas) / cpu[False] if system.replicas and cpu[False] else FOREVER,
        system.clients / service if service else FOREVER,
    ]
    if system.machine != FOREVER:
        beside = sum(part * float(d.service.mean()) for d, part in kept) / service
        limits.append(system.machine / (cpu[True] + cpu[False] + system.machine_cpu * beside))
    for (number, writes), work in held.items():
        pool = system.pools[number]
        limits.append((pool.writer if writes else pool.reader) / work if work else FOREVER)
    return min(limits)


def knee(
    system: System, demands: tuple[Demand, ...], slo: Objective, *, requests: int = REQUESTS
) -> tuple[float | None, Point | None]:
    """The greatest rate at which the model keeps the objective, and its point; (None, point) where none."""
    high = ceiling(system, demands) * 1.05
    low = high / 1000
    first = at(system, demands, low, requests=requests)
    if slo.broken(first.shares()):
        return None, first
    best = first
    while high / low > 1 + PRECISION:
        middle = math.sqrt(low * high)
        found = at(system, demands, middle, requests=requests)
        if slo.broken(found.shares()):
            high = middle
        else:
            low, best = middle, found
    return low, best


@dataclass(frozen=True)
class Failover:
    """What an outage of the primary does. Seconds from its beginning."""

    length: float
    recovered: float | None
    """When the last request was answered that waited for longer than the objective's limit (beyond its own
    service time); None: not seen within the simulation."""
    backlog: int
    """Most requests that waited at a time."""
    failed: int
    dropped: int
    connections: int
    connect_s: float


def failover(
    system: System, demands: tuple[Demand, ...], rate: float, length: float, connect_s: float, limit_ms: float
) -> Failover:
    """Simulate an outage of the primary at a rate: its backlog, and the storm of new connections after it."""
    begin = 10.0
    spare = max(1 - rate / ceiling(system, demands), 0.02)
    after = min(1200.0, 3 * length / spare + 30)
    connections = sum(
        system.clients if pool.mode == "session" else min(pool.writer, system.clients)
        for pool in system.pools
        if not pool.direct
    )
    outage = Outage(begin, length, connect_s, connections)
    requests = min(3_000_000, int(rate * (begin + length + after)))
    found = simulate(system, Traffic(demands, max(requests, 100), rate), outage)
    ok = found.state == OK
    # Beyond its own service time: a report is late at any time, and that is no consequence of the outage.
    waited = found.done - found.arrived - found.service
    late = ok & (waited * 1000 > limit_ms) & (found.done > begin)
    last = float(found.done[late].max()) - begin if late.any() else 0.0
    caught_up = last < (float(found.arrived[-1]) - begin) * 0.98
    open_at = np.sort(found.arrived)
    shut_at = np.sort(np.where(np.isfinite(found.done), found.done, found.arrived + system.drop_after))
    moments = np.linspace(begin, float(open_at[-1]), 2000)
    waiting = np.searchsorted(open_at, moments, "right") - np.searchsorted(shut_at, moments, "right")
    return Failover(
        length, last if caught_up else None, int(waiting.max()), int((found.state == FAILED).sum()),
        int(np.isin(found.state, (DROPPED, TIMED_OUT)).sum()), connections, connect_s,
    )  # fmt: skip
