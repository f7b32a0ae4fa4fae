"""What ends the capacity: the resource that binds, named with its evidence.

A pure function over the figures of the steps. Looked at are the bad steps of the least bad rate and of those
next to it, four at most (where all rates were good, the greatest step): a few seconds show little, so that
what binds is what at least half of them show. Cause before effect: in each the first of these that is under
pressure.

- *generator*: its process at 90 % of a core a worker, held back by its quota for 5 % of the time, or its own
  lateness (p99) over 50 ms on a machine that is not full (on a full one everybody is late). Then what was
  measured is the generator's limit, and the knee a lower bound.
- *max_connections*: backends at 95 % of the setting, or clients refused for it (SQLSTATE 53300).
- *lock*: at least 30 % of the sampled active sessions, and one on average, wait for heavyweight locks: more
  CPU would not help.
- *pool*: server connections in use at 70 % of the pool's limit, while clients wait for one (at least 20 % of
  the mean response of what goes there: a tail breaks long before a pool is always full), the database not at
  its limit.
- *primary CPU*, *replica CPU*: 85 % of the node's limit, or held back by its quota for 5 % of the time
  (30 %, where it used less than half of the limit that the record names).
- *machine*: the cores that the nodes share used to 85 % (on a pinned lab those that are not the clients'): a
  lower bound too, since nodes of one machine hold each other up.
- *WAL*: as many as for *lock* wait for WAL to be written, flushed or confirmed, on a machine that is not full
  (on a full one whoever writes it waits for CPU).
- *replica*: replay more than 5 s behind.
- *cache*: fewer hits than half of those of the first step.
- *clients*: all users busy: the offered concurrency ended first, so a lower bound.

Where nothing is under pressure the answer is *unknown*, with the nearest named.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lab.experiment.ladder import Ladder

CPU_FULL = 0.85
THROTTLED = 0.05
HELD_BACK = 0.30
"""Share of the time held back that tells, whatever limit the record names (a fault may have set another)."""
POOL_FULL = 0.70
POOL_WAIT = 0.20
WAITING = 0.30
SESSIONS = 1.0
"""Waiting sessions, on average, that a wait needs to be what binds."""
CONNECTIONS_FULL = 0.95
GENERATOR_LAG_MS = 50.0
GENERATOR_FULL = 0.90
MACHINE_FULL = 0.85
LAG_S = 5.0
CLIENTS_FULL = 0.95
LOOKED_AT = 4
NEAR = 1.1
"""Times the least bad rate: farther up everything is full."""
LOWER_BOUND = ("generator", "machine", "clients")


@dataclass(frozen=True)
class Load:
    """What one step did to every resource. Shares of 1, times in ms unless named; None: not known."""

    rate: float
    good: bool
    throughput: float
    primary_cpu: float | None = None
    """Of the limit."""
    primary_throttled: float | None = None
    """Share of the time in which the quota held it back."""
    replica_cpu: float | None = None
    """Of the busiest node that serves reads."""
    replica_throttled: float | None = None
    pools: dict[str, float] = field(default_factory=dict)
    """Pooler's mode and side → connections in use, of its limit."""
    pool_wait: dict[str, float] = field(default_factory=dict)
    """→ mean wait for a server connection."""
    pool_response: dict[str, float] = field(default_factory=dict)
    """→ mean response of the requests that went there."""
    connections: float | None = None
    """Backends of the primary, of max_connections less those kept for superusers."""
    refused: float = 0.0
    """Share of requests refused with SQLSTATE 53300, or a pooler's equivalent."""
    waits: dict[str, float] = field(default_factory=dict)
    """Wait event (``Lock:tuple``, ``IO:WALSync``, …, ``CPU``) → active sessions of the primary, mean."""
    replay_lag_s: float | None = None
    cache_hit: float | None = None
    generator_lag: float | None = None
    generator_cpu: float | None = None
    """Of one core a worker."""
    generator_throttled: float | None = None
    """Share of the time in which a quota held it back."""
    machine: float | None = None
    """Cores used, of those that the nodes share."""
    beside: float = 0.0
    """Cores that something outside of the lab used."""
    wal_bytes: float | None = None
    """Per second."""
    io_read: float | None = None
    """Bytes per second that the primary read into its shared buffers."""
    io_write: float | None = None
    """Bytes per second that the primary wrote to block devices."""
    clients: float | None = None
    """Requests under way, of the users."""


@dataclass(frozen=True)
class Constraint:
    """What binds, and why that is believed."""

    name: str
    """``primary CPU``, ``pool``, ``lock``, …, or ``unknown``."""
    evidence: str
    lower_bound: bool = False
    """The system itself may carry more."""
    also: tuple[str, ...] = ()
    """Other resources under pressure in the same step."""


def binding(loads: list[Load]) -> Constraint:
    """The constraint. ``loads``: the open-loop steps by rate; without any, or without a bad one: unknown."""
    if not loads:
        return Constraint("unknown", "no step was measured")
    _, bad = Ladder(1.0).bracket([(load.rate, load.good) for load in loads])
    first = min(loads, key=lambda load: load.rate)
    looked_at = [
        load for load in loads if bad is not None and bad <= load.rate <= NEAR * bad and not load.good
    ]
    looked_at = sorted(looked_at, key=lambda load: load.rate)[:LOOKED_AT]
    looked_at = looked_at or [max(loads, key=lambda load: load.rate)]
    shown = [
        [(name, said) for name, test in _TESTS.items() if (said := test(step, first))] for step in looked_at
    ]
    votes = Counter(found[0][0] for found in shown if found)
    name = max(_TESTS, key=lambda name: votes[name])
    if 2 * votes[name] >= len(looked_at):
        step, found = next(
            (step, found)
            for step, found in zip(looked_at, shown, strict=True)
            if found and found[0][0] == name
        )
        also = tuple(f"{other}: {said}" for other, said in found[1:])
        return Constraint(name, f"{found[0][1]} at {step.rate:g}/s", name in LOWER_BOUND, also)
    step = looked_at[0]
    where = f"at {step.rate:g}/s"
    nearest = max(_uses(step), key=lambda item: item[1], default=None)
    if nearest is None:
        return Constraint("unknown", f"no resource was sampled {where}")
    if bad is None:
        return Constraint(
            "unknown",
            f"every rate was good; the most used is {nearest[0]} with {nearest[1]:.0%} {where}",
            True,
        )
    return Constraint(
        "unknown", f"nothing was under pressure {where}; nearest is {nearest[0]} with {nearest[1]:.0%}"
    )


def _generator(step: Load, _: Load) -> str:
    if step.generator_cpu is not None and step.generator_cpu >= GENERATOR_FULL:
        return f"the generator used {step.generator_cpu:.0%} of its cores"
    if step.generator_throttled is not None and step.generator_throttled >= THROTTLED:
        return f"a CPU limit held the generator back for {step.generator_throttled:.0%} of the time"
    late = step.generator_lag is not None and step.generator_lag > GENERATOR_LAG_MS
    if late and (step.machine or 0.0) < MACHINE_FULL:
        return f"the generator was late by {step.generator_lag:.0f} ms (p99)"
    return ""


def _machine(step: Load, _: Load) -> str:
    limited = max(step.primary_cpu or 0.0, step.replica_cpu or 0.0)
    if step.machine is None or step.machine < MACHINE_FULL or limited >= CPU_FULL:
        return ""
    late = step.generator_lag or 0.0
    slow = f", so that the generator too was late by {late:.0f} ms (p99)" if late > GENERATOR_LAG_MS else ""
    more = f", {step.beside:.1f} cores of it by something outside of the lab" if step.beside > 0.1 else ""
    return f"the cores that the nodes share were used to {step.machine:.0%}{more}{slow}"


def _lock(step: Load, _: Load) -> str:
    return _waits(step, "Lock:", "waited for")


def _waits(step: Load, start: tuple[str, ...] | str, verb: str) -> str:
    active = sum(step.waits.values())
    mine = {name: count for name, count in step.waits.items() if name.startswith(start)}
    if not mine:
        return ""
    together, (most, _) = sum(mine.values()), max(mine.items(), key=lambda item: item[1])
    if together / active >= WAITING and together >= SESSIONS:
        return f"{together / active:.0%} of the primary's active sessions ({together:.1f}) {verb} {most}"
    return ""


def _max_connections(step: Load, _: Load) -> str:
    if step.refused > 0:
        return f"{step.refused:.1%} of the requests were refused: too many connections"
    if step.connections is not None and step.connections >= CONNECTIONS_FULL:
        return f"{step.connections:.0%} of max_connections were taken"
    return ""


def _pool(step: Load, _: Load) -> str:
    database = max(step.primary_cpu or 0.0, step.replica_cpu or 0.0)
    full = {name: share for name, share in step.pools.items() if share >= POOL_FULL and _waited(step, name)}
    if not full or database >= CPU_FULL:
        return ""
    name, share = max(full.items(), key=lambda item: item[1])
    wait = step.pool_wait[name]
    return f"the pool ({name}) was {share:.0%} used, and clients waited {wait:.1f} ms for a connection"


def _waited(step: Load, pool: str) -> bool:
    wait, response = step.pool_wait.get(pool), step.pool_response.get(pool)
    return wait is not None and response is not None and wait >= POOL_WAIT * response > 0


def _cpu(used: float | None, throttled: float | None, who: str) -> str:
    if used is not None and used >= CPU_FULL:
        return f"{who} used {used:.0%} of its CPU limit"
    busy = (used or 0.0) >= CPU_FULL / 2 or (throttled or 0.0) >= HELD_BACK
    if throttled is not None and throttled >= THROTTLED and busy:
        return f"the CPU limit held {who} back for {throttled:.0%} of the time"
    return ""


def _primary(step: Load, _: Load) -> str:
    return _cpu(step.primary_cpu, step.primary_throttled, "the primary")


def _replica_cpu(step: Load, _: Load) -> str:
    return _cpu(step.replica_cpu, step.replica_throttled, "a replica")


def _wal(step: Load, _: Load) -> str:
    return _waits(step, ("IO:WAL", "LWLock:WAL", "IPC:SyncRep"), "waited for WAL:")


def _replica(step: Load, _: Load) -> str:
    lag = step.replay_lag_s
    return f"a replica was {lag:.1f} s behind" if lag is not None and lag > LAG_S else ""


def _cache(step: Load, first: Load) -> str:
    if step.cache_hit is None or first.cache_hit is None or first is step:
        return ""
    lost = first.cache_hit > 0.1 and step.cache_hit < first.cache_hit / 2
    return f"cache hits fell from {first.cache_hit:.0%} to {step.cache_hit:.0%}" if lost else ""


def _clients(step: Load, _: Load) -> str:
    used = step.clients
    return f"{used:.0%} of the users were busy" if used is not None and used >= CLIENTS_FULL else ""


_TESTS = {
    "generator": _generator,
    "max_connections": _max_connections,
    "lock": _lock,
    "pool": _pool,
    "primary CPU": _primary,
    "replica CPU": _replica_cpu,
    "machine": _machine,
    "WAL": _wal,
    "replica": _replica,
    "cache": _cache,
    "clients": _clients,
}


def _uses(step: Load) -> list[tuple[str, float]]:
    known = (
        ("primary CPU", step.primary_cpu),
        ("replica CPU", step.replica_cpu),
        *((f"pool {name}", share) for name, share in step.pools.items()),
        ("max_connections", step.connections),
        ("generator", step.generator_cpu),
        ("machine", step.machine),
        ("clients", step.clients),
    )
    return [(name, share) for name, share in known if share is not None]
