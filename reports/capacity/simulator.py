"""A discrete-event simulation of clients, pools, database nodes and a cache.

A request arrives, takes a free client (longest free first), asks its pool (writer's or reader's side of the
pooler that its class goes through) for a server connection, runs, and gives both back:

    client → pool → shared machine's CPU → node's CPU → rest of the held time → rest of the service time
                    └──── a server connection is held ────────────────────┘

Clients and connections are asked for first come, first served. A *CPU* is shared by all that runs on it, as
an operating system shares it: with n at work on c cores each gets min(1, c/n) of one (processor sharing), so
that a short query is slowed by a long report, and does not wait for its end.

- A *quota*, c cores of ⌈c⌉, makes work take demand · ⌈c⌉/c. It did so when the service time was measured:
  that is not made longer by it, as far as it is long enough.
- *Transaction* pooling holds a connection for the transaction, *statement* pooling for its statements,
  *session* pooling from a client's first request until its session ends (``Pool.session_length``; with the
  request, where that opens a session for itself).
- Reads go to the replicas in turn; without any, to the primary (through the reader's own pool).
- A *cache hit* takes its time, and no connection.
- In an *outage* work that reaches the primary waits for its end, work under way on it fails; then the new
  connections come first, and the backlog after them.

Work on the *shared machine* (the node's, and that of generator, poolers and the rest) is part of the measured
service time already: where nothing else runs it adds nothing.

A request visits each CPU once: round trips inside a transaction are one piece of work and one of waiting.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from lab.errors import UsageError
from reports.capacity.system import FOREVER, Demand, Floats, Outage, System, Traffic, mean_service

OK, DROPPED, TIMED_OUT, FAILED, UNFINISHED = range(5)
"""Outcomes: answered; no client was free in time; the pool had no connection in time; the outage broke it;
still waiting when the simulation ended."""

_RELEASE, _DONE, _ARRIVE, _REACH, _CPU = range(5)
"""What happens. ``_CPU`` and more: the next is done on a CPU, whose number is added."""


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
    """0 writer, 1 reader of the first pooler, 2 and 3 of the second, …; −1 cache."""
    node: npt.NDArray[np.int16]
    """0 primary, 1… the replicas, −1 cache."""
    cpu: Floats
    """Demand on the node's CPU."""
    service: Floats
    """The service time that was drawn."""
    beside: Floats
    """Demand on the machine's cores beside that on the node's."""

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
    pooler = _per_kind(traffic.demands, kind, "pooler").astype(np.int8)
    pool = np.where(hit, -1, 2 * pooler + np.where(writes, 0, 1)).astype(np.int8)
    node = _nodes(system, hit, writes)
    held = _per_kind(traffic.demands, kind, "held") * service
    by_statement = np.asarray([one.mode == "statement" for one in system.pools])[pooler]
    held = np.where(by_statement, held * _per_kind(traffic.demands, kind, "queried"), held)
    lasting = np.asarray([one.mode == "session" for one in system.pools])[pooler] & ~_per_kind(
        traffic.demands, kind, "fresh"
    ).astype(bool)
    cpu = np.minimum(np.where(hit, 0.0, _per_kind(traffic.demands, kind, "cpu") * service), held)
    own = np.where(hit, 0.0, system.machine_cpu * service / mean_service(traffic.demands))
    arrived = _arrivals(traffic, n, random)
    think = random.choice(traffic.think, n) if traffic.rate is None else np.zeros(0)
    started, granted, released, done, given_up = _run(
        system, arrived, think, pool, lasting, node, cpu, held - cpu, service - held, own, outage
    )
    state = np.where(np.isfinite(done), OK, UNFINISHED).astype(np.int8)
    for index, why in given_up.items():
        state[index] = why
    if outage is not None:
        broken = (node == 0) & (granted < outage.begin) & (released > outage.begin)
        state[broken & (state == OK)] = FAILED
    return Outcome(arrived, started, granted, released, done, state, kind, pool, node, cpu, service, own)


def _check(system: System, traffic: Traffic) -> None:
    if not traffic.demands or traffic.requests < 1:
        raise UsageError("there is no request to simulate")
    if traffic.rate is not None and not 0 < traffic.rate < FOREVER:
        raise UsageError(f"a rate is more than 0 requests per second, found {traffic.rate:g}")
    if any(not len(d.service) for d in traffic.demands):
        raise UsageError("every class of request needs at least one measured service time")
    least = min(system.primary, system.machine, *system.replicas, FOREVER)
    if any(d.pooler >= len(system.pools) for d in traffic.demands):
        raise UsageError("a class of requests goes through a pooler that the system does not have")
    few = min(size for pool in system.pools for size in (pool.writer, pool.reader))
    if system.clients < 1 or few < 1 or least <= 0:
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


def _nodes(
    system: System, hit: npt.NDArray[np.bool_], writes: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int16]:
    node = np.where(hit, -1, 0).astype(np.int16)
    if system.replicas:
        reads = np.flatnonzero(~hit & ~writes)
        node[reads] = 1 + np.arange(len(reads)) % len(system.replicas)
    return node


def _arrivals(traffic: Traffic, n: int, random: np.random.Generator) -> Floats:
    if traffic.rate is None:
        return np.full(n, np.nan)
    return np.cumsum(random.exponential(1 / traffic.rate, n))


class _Cpu:
    """A CPU that is shared evenly, in virtual time: what each of those at work was given since the start.

    Kept up to date at every change, so that the next to finish is the least of a heap.
    """

    __slots__ = ("count", "given", "last", "servers", "speed", "stamp", "work")

    def __init__(self, cores: float) -> None:
        self.servers = max(1, math.ceil(cores))
        self.speed = cores / self.servers
        self.count = 0
        self.given = self.last = 0.0
        self.stamp = 0
        """Of the latest forecast of its next event: earlier ones are void."""
        self.work: list[tuple[float, int]] = []
        """(given at which it is done, request; −1 − request where it goes on and leaves its debt behind)."""


def _run(
    system: System,
    arrivals: Floats,
    thinks: Floats,
    pools: npt.NDArray[np.int8],
    lastings: npt.NDArray[np.bool_],
    nodes: npt.NDArray[np.int16],
    cpus: Floats,
    delays: Floats,
    rests: Floats,
    owns: Floats,
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
    session = lastings.tolist()
    sessions = any(session)
    length = system.pool.session_length
    drop_after = system.drop_after
    free = [size for one in system.pools for size in (one.writer, one.reader)]
    timeouts = [one.wait_timeout for one in system.pools for _ in range(2)]
    waiting: list[deque[int]] = [deque() for _ in free]
    sides = range(len(free))
    own = owns.tolist()
    # The nodes, and last the machine that they share.
    cpus_of = [_Cpu(cores) for cores in (system.primary, *system.replicas)]
    shared = system.machine != FOREVER
    if shared:
        cpus_of.append(_Cpu(system.machine))
    last = len(cpus_of) - 1
    down_from, down_to = (outage.begin, outage.end) if outage else (FOREVER, FOREVER)
    storm = outage.connections * outage.connect_cpu / system.primary if outage else 0.0
    heap: list[tuple[float, int, int]] = []
    queue: deque[int] = deque()
    clients: deque[int] = deque(range(min(system.clients, n)))
    of = [0] * n  # the client of each request
    holds = [[False] * len(free) for _ in clients] if sessions else []
    made = [0] * len(clients)  # requests of each client's session
    following = 0

    def start(i: int, now: float) -> None:
        started[i] = now
        p = pool[i]
        if p < 0:
            done[i] = now + rest[i] + delay[i]
            heappush(heap, (done[i], _DONE, i))
        elif session[i] and holds[of[i]][p]:
            grant(i, now)
        elif free[p]:
            free[p] -= 1
            if session[i]:
                holds[of[i]][p] = True
            grant(i, now)
        else:
            waiting[p].append(i)

    def grant(i: int, now: float) -> None:
        granted[i] = now
        # What a quota and the machine take of a lone request's time is part of its service time already.
        spend(i, cpu[i] / cpus_of[node[i]].speed - cpu[i])
        work = own[i] + cpu[i]
        if shared and work > 0:
            occupied = work / cpus_of[last].speed
            enter(last, i, now, spend(i, occupied), occupied)
        else:
            reach(i, now)

    def spend(i: int, seconds: float) -> float:
        """Take time from what follows the CPU's; how much there was."""
        held_back: float = min(seconds, delay[i])
        delay[i] -= held_back
        after: float = min(seconds - held_back, rest[i])
        rest[i] -= after
        return held_back + after

    def reach(i: int, now: float) -> None:
        """It comes to its node."""
        if node[i] == 0 and down_from <= now < down_to + storm:
            heappush(heap, (down_to + storm, _REACH, i))
        elif not cpu[i]:
            ran(i, now)
        else:
            occupied = cpu[i] / cpus_of[node[i]].speed
            enter(node[i], i, now, occupied, occupied)

    def enter(number: int, i: int, now: float, lone: float, occupied: float) -> None:
        """It gets to a CPU, goes on after ``lone`` seconds of a server's time, and takes ``occupied``."""
        one = cpus_of[number]
        advance(one, now)
        if occupied > lone:
            heappush(one.work, (one.given + lone, -1 - i))
        heappush(one.work, (one.given + occupied, i if occupied <= lone else n + i))
        one.count += 1
        forecast(number, now)

    def advance(one: _Cpu, now: float) -> None:
        if one.count:
            passed = now - one.last
            one.given += passed if one.count <= one.servers else passed * one.servers / one.count
        one.last = now

    def forecast(number: int, now: float) -> None:
        one = cpus_of[number]
        one.stamp += 1
        if one.work:
            ahead = max(0.0, one.work[0][0] - one.given)
            if one.count > one.servers:
                ahead *= one.count / one.servers
            heappush(heap, (now + ahead, _CPU + number, one.stamp))

    def worked(number: int, now: float) -> None:
        """The next on a CPU is done."""
        one = cpus_of[number]
        advance(one, now)
        one.given = max(one.given, one.work[0][0])
        gone = []
        while one.work and one.work[0][0] <= one.given:
            _, who = heappop(one.work)
            if who >= 0:
                one.count -= 1
            if who < n:
                gone.append(who if who >= 0 else -1 - who)
        if not one.count:
            one.given = 0.0
        for i in gone:
            if number == last and shared:
                reach(i, now)
            else:
                ran(i, now)
        forecast(number, now)

    def ran(i: int, now: float) -> None:
        """Its node's CPU is done with it."""
        t = released[i] = now + delay[i]
        if rest[i] > 0 and not session[i]:
            heappush(heap, (t, _RELEASE, i))
        done[i] = t + rest[i]
        heappush(heap, (done[i], _DONE, i))

    def give_back(p: int, now: float) -> None:
        line = waiting[p]
        while line:
            j = line.popleft()
            if now - started[j] <= timeouts[p]:
                if session[j]:
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
        for p in sides:
            if holds[c][p]:
                holds[c][p] = False
                give_back(p, now)

    def happen(now: float, what: int, i: int) -> None:
        if what == _DONE:
            p = pool[i]
            if session[i]:
                c = of[i]
                made[c] += 1
                if made[c] == length:
                    end_session(c, now)
            elif p >= 0 and not rest[i] > 0:
                give_back(p, now)
            free_client(i, now)
        elif what >= _CPU:
            if cpus_of[what - _CPU].stamp == i:
                worked(what - _CPU, now)
        elif what == _RELEASE:
            give_back(pool[i], now)
        elif what == _REACH:
            reach(i, now)
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
            for p in sides:
                line = waiting[p]
                while line and now - started[line[0]] > timeouts[p]:
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
