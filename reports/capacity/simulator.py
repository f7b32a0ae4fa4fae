"""A discrete-event simulation of clients, pools, database nodes and a cache.

A request arrives, takes a free client (longest free first), asks its pool (writer or reader) for a server
connection, runs, and gives both back. Everything queues first come, first served:

    client → pool → shared machine's CPU → node's CPU → rest of the held time → rest of the service time
                    └──── a server connection is held ────────────────────┘

- *CPU* of a node with c cores is ⌈c⌉ servers of speed c/⌈c⌉. A quota lets work run at full speed and holds
  the node back afterwards: so work leaves after its demand, and its server is free after demand ÷ speed.
- *Transaction* pooling holds a connection for the transaction, *statement* pooling for its statements,
  *session* pooling from a client's first request until its session ends (``Pool.session_length``).
- Reads go to the replicas in turn; without any, to the primary (through the reader's own pool).
- A *cache hit* takes its time, and no connection.
- In an *outage* work that reaches the primary waits for its end, work under way on it fails; then the new
  connections come first, and the backlog after them.

Work on the *shared machine* is part of the measured service time already: it occupies the machine, and adds
nothing but the wait for it.

A request visits each CPU once: round trips inside a transaction are one piece of work and one of waiting.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

import numpy as np
import numpy.typing as npt

from lab.errors import UsageError
from reports.capacity.system import FOREVER, Demand, Floats, Outage, System, Traffic

OK, DROPPED, TIMED_OUT, FAILED, UNFINISHED = range(5)
"""Outcomes: answered; no client was free in time; the pool had no connection in time; the outage broke it;
still waiting when the simulation ended."""

_RELEASE, _DONE, _ARRIVE = range(3)


@dataclass(frozen=True)
class Outcome:
    """Every request, in the order of arrival. Times in seconds from the start, NaN where there is none."""

    arrived: Floats
    started: Floats
    """A client had it."""
    granted: Floats
    """It had a server connection; NaN for a cache hit."""
    released: Floats
    """It gave the connection back (in session pooling: it was done with it)."""
    done: Floats
    state: npt.NDArray[np.int8]
    kind: npt.NDArray[np.int16]
    """Index into the traffic's demands."""
    pool: npt.NDArray[np.int8]
    """0 writer, 1 reader, −1 cache."""
    node: npt.NDArray[np.int16]
    """0 primary, 1… the replicas, −1 cache."""
    cpu: Floats
    """Demand on the node's CPU."""
    service: Floats
    """The service time that was drawn."""

    @property
    def response(self) -> Floats:
        """Arrival to answer, of those answered."""
        ok = self.state == OK
        return np.asarray(self.done[ok] - self.arrived[ok])

    @property
    def wait(self) -> Floats:
        """For a server connection, of those that got one."""
        got = np.isfinite(self.granted)
        return np.asarray(self.granted[got] - self.started[got])


def simulate(system: System, traffic: Traffic, outage: Outage | None = None) -> Outcome:
    """Run the requests through the system.

    Raises:
        UsageError: the traffic or the system holds nothing that could run.
    """
    _check(system, traffic)
    random = np.random.default_rng(traffic.seed)
    n = traffic.requests
    kind, service = _draw(traffic.demands, n, random)
    hit = _hits(system, traffic.demands, kind, random)
    service = np.where(hit, system.cache_time, service)
    writes = np.asarray([d.writes for d in traffic.demands])[kind]
    pool = np.where(hit, -1, np.where(writes, 0, 1)).astype(np.int8)
    node = _nodes(system, pool)
    held = _per_kind(traffic.demands, kind, "held") * service
    if system.pool.mode == "statement":
        held = held * _per_kind(traffic.demands, kind, "queried")
    cpu = np.minimum(np.where(hit, 0.0, _per_kind(traffic.demands, kind, "cpu") * service), held)
    arrived = _arrivals(traffic, n, random)
    think = random.choice(traffic.think, n) if traffic.rate is None else np.zeros(0)
    started, granted, released, done, given_up = _run(
        system, arrived, think, pool, node, cpu, held - cpu, service - held, outage
    )
    state = np.where(np.isfinite(done), OK, UNFINISHED).astype(np.int8)
    for index, why in given_up.items():
        state[index] = why
    if outage is not None:
        broken = (node == 0) & (granted < outage.begin) & (released > outage.begin)
        state[broken & (state == OK)] = FAILED
    return Outcome(arrived, started, granted, released, done, state, kind, pool, node, cpu, service)


def _check(system: System, traffic: Traffic) -> None:
    if not traffic.demands or traffic.requests < 1:
        raise UsageError("there is no request to simulate")
    if traffic.rate is not None and not 0 < traffic.rate < FOREVER:
        raise UsageError(f"a rate is more than 0 requests per second, found {traffic.rate:g}")
    if any(not len(d.service) for d in traffic.demands):
        raise UsageError("every class of request needs at least one measured service time")
    least = min(system.primary, system.machine, *system.replicas, FOREVER)
    if system.clients < 1 or system.pool.writer < 1 or system.pool.reader < 1 or least <= 0:
        raise UsageError("clients, pool sizes and cores are at least 1 (cores: more than 0)")


def _draw(
    demands: tuple[Demand, ...], n: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.int16], Floats]:
    share = np.asarray([d.share for d in demands])
    kind = random.choice(len(demands), n, p=share / share.sum()).astype(np.int16)
    service = np.empty(n)
    for index, demand in enumerate(demands):
        rows = kind == index
        service[rows] = random.choice(demand.service, int(rows.sum()))
    return kind, service


def _hits(
    system: System, demands: tuple[Demand, ...], kind: npt.NDArray[np.int16], random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    cacheable = np.asarray([d.cacheable for d in demands])[kind]
    return np.asarray(cacheable & (random.random(len(kind)) < system.cache_hit))


def _per_kind(demands: tuple[Demand, ...], kind: npt.NDArray[np.int16], name: str) -> Floats:
    return np.asarray([getattr(d, name) for d in demands], dtype=np.float64)[kind]


def _nodes(system: System, pool: npt.NDArray[np.int8]) -> npt.NDArray[np.int16]:
    node = np.where(pool < 0, -1, 0).astype(np.int16)
    if system.replicas:
        reads = np.flatnonzero(pool == 1)
        node[reads] = 1 + np.arange(len(reads)) % len(system.replicas)
    return node


def _arrivals(traffic: Traffic, n: int, random: np.random.Generator) -> Floats:
    if traffic.rate is None:
        return np.full(n, np.nan)
    return np.cumsum(random.exponential(1 / traffic.rate, n))


def _servers(cores: float) -> tuple[list[float], float]:
    """(moments at which each server is free, speed) of a CPU."""
    count = max(1, math.ceil(cores))
    return [0.0] * count, cores / count


def _run(
    system: System,
    arrivals: Floats,
    thinks: Floats,
    pools: npt.NDArray[np.int8],
    nodes: npt.NDArray[np.int16],
    cpus: Floats,
    delays: Floats,
    rests: Floats,
    outage: Outage | None,
) -> tuple[Floats, Floats, Floats, Floats, dict[int, int]]:
    """The events. Plain lists and one loop: a million requests have to take seconds."""
    n = len(pools)
    nan = math.nan
    arrived, think = arrivals.tolist(), thinks.tolist()
    pool, node, cpu, delay, rest = (a.tolist() for a in (pools, nodes, cpus, delays, rests))
    started, granted, released, done = [nan] * n, [nan] * n, [nan] * n, [nan] * n
    given_up: dict[int, int] = {}
    closed = bool(think)
    session = system.pool.mode == "session"
    length = system.pool.session_length
    timeout, drop_after = system.pool.wait_timeout, system.drop_after
    free = [system.pool.writer, system.pool.reader]
    waiting: tuple[deque[int], deque[int]] = (deque(), deque())
    machine = None if system.machine == FOREVER else _servers(system.machine)
    own = system.machine_cpu
    busy = [_servers(cores) for cores in (system.primary, *system.replicas)]
    down_from, down_to = (outage.begin, outage.end) if outage else (FOREVER, FOREVER)
    storm = outage.connections * outage.connect_cpu / system.primary if outage else 0.0
    heap: list[tuple[float, int, int]] = []
    queue: deque[int] = deque()
    clients: deque[int] = deque(range(min(system.clients, n)))
    of = [0] * n  # the client of each request
    holds = [[False, False] for _ in clients] if session else []
    made = [0] * len(clients)  # requests of each client's session
    following = 0

    def start(i: int, now: float) -> None:
        started[i] = now
        p = pool[i]
        if p < 0:
            done[i] = now + rest[i] + delay[i]
            heappush(heap, (done[i], _DONE, i))
        elif session and holds[of[i]][p]:
            grant(i, now)
        elif free[p]:
            free[p] -= 1
            if session:
                holds[of[i]][p] = True
            grant(i, now)
        else:
            waiting[p].append(i)

    def grant(i: int, now: float) -> None:
        granted[i] = now
        t = now
        if machine is not None:
            servers, speed = machine
            if servers[0] > t:
                t = servers[0]
            heapreplace(servers, t + (own + cpu[i]) / speed)
        servers, speed = busy[node[i]]
        if servers[0] > t:
            t = servers[0]
        if node[i] == 0 and down_from <= t < down_to + storm:
            t = down_to + storm
        heapreplace(servers, t + cpu[i] / speed)
        t += cpu[i] + delay[i]
        released[i] = t
        if rest[i] > 0 or session:
            heappush(heap, (t, _RELEASE, i))
        done[i] = t + rest[i]
        heappush(heap, (done[i], _DONE, i))

    def give_back(p: int, now: float) -> None:
        line = waiting[p]
        while line:
            j = line.popleft()
            if now - started[j] <= timeout:
                if session:
                    holds[of[j]][p] = True
                grant(j, now)
                return
            give_up(j, TIMED_OUT, now)
        free[p] += 1

    def give_up(i: int, why: int, now: float) -> None:
        given_up[i] = why
        if why == TIMED_OUT:
            free_client(i, now)

    def free_client(i: int, now: float) -> None:
        nonlocal following
        c = of[i]
        if closed:
            if following < n:
                of[following] = c
                arrived[following] = now + think[following]
                heappush(heap, (arrived[following], _ARRIVE, following))
                following += 1
            return
        while queue:
            j = queue.popleft()
            if now - arrived[j] <= drop_after:
                of[j] = c
                start(j, now)
                return
            give_up(j, DROPPED, now)
        clients.append(c)

    def end_session(c: int, now: float) -> None:
        made[c] = 0
        for p in (0, 1):
            if holds[c][p]:
                holds[c][p] = False
                give_back(p, now)

    def happen(now: float, what: int, i: int) -> None:
        if what == _DONE:
            p = pool[i]
            if session:
                c = of[i]
                made[c] += 1
                if made[c] == length:
                    end_session(c, now)
            elif p >= 0 and not rest[i] > 0:
                give_back(p, now)
            free_client(i, now)
        elif what == _RELEASE:
            if not session:
                give_back(pool[i], now)
        else:
            start(i, now)

    if closed:
        while following < n and clients:
            of[following] = clients.popleft()
            arrived[following] = think[following]
            heappush(heap, (arrived[following], _ARRIVE, following))
            following += 1
    else:
        for i in range(n):
            now = arrived[i]
            while heap and heap[0][0] <= now:
                happen(*heappop(heap))
            for p in (0, 1):
                line = waiting[p]
                while line and now - started[line[0]] > timeout:
                    give_up(line.popleft(), TIMED_OUT, now)
            while queue and now - arrived[queue[0]] > drop_after:
                give_up(queue.popleft(), DROPPED, now)
            if clients:
                of[i] = clients.popleft()
                start(i, now)
            else:
                queue.append(i)
    while heap:
        happen(*heappop(heap))
    arrivals[:] = arrived
    started_, granted_, released_, done_ = (np.asarray(a) for a in (started, granted, released, done))
    return started_, granted_, released_, done_, given_up
