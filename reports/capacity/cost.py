"""What a configuration costs a month, from the dated price table of ``lab.topology.instances``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lab.experiment.slo import Objective
from lab.topology.instances import (
    CUSTOM,
    INSTANCE_CLASSES,
    PRICE_REGION,
    SERVERLESS,
    UNVERIFIED,
    instance_class,
    price_source,
)
from reports.capacity.answer import Point, at, ceiling
from reports.capacity.system import Demand, System

HOURS = 730
"""Of a month, as the vendor counts."""
REQUESTS = 20_000
"""Of one simulated configuration."""
MANY = 100_000
"""Of cores and connections, where there shall be no end of them."""
MOST_REPLICAS = 5
"""Replicas that a search tries; RDS allows 15, and each costs the primary its stream of WAL."""
BURSTABLE = ("db.t2.", "db.t3.", "db.t4g.")
POOLS = (1.0, 2.0, 4.0)
"""Times the pool's size that a search tries. A pool costs nothing; it comes before hardware."""


def hourly(name: str) -> float | None:
    """Dollars an hour of one instance; None where the table has no price. UsageError: no such class."""
    if name in (SERVERLESS, CUSTOM):
        return None
    return instance_class(name).price


def monthly(classes: dict[str, str], replicas: int) -> float | None:
    """Dollars a month of primary, standbys (of its class) and replicas; None: a price is missing."""
    primary = hourly(classes["primary"]) if "primary" in classes else None
    replica = hourly(classes.get("replica", classes.get("primary", ""))) if replicas else 0.0
    if primary is None or replica is None:
        return None
    return HOURS * (primary * (1 + int(classes.get("standbys", "0"))) + replica * replicas)


def dated() -> str:
    """Of which region the prices are and where they come from; those that could not be verified by name."""
    classes = [name for name, one in INSTANCE_CLASSES.items() if name.startswith("db.") and one.price]
    sources = dict.fromkeys(price_source(name) for name in classes)
    # A family whose classes are all unverified is named once.
    doubtful = [name for name in classes if price_source(name) == UNVERIFIED]
    families = {name.rpartition(".")[0] for name in classes}
    whole = [f for f in sorted(families) if all(c in doubtful for c in classes if c.startswith(f"{f}."))]
    named = [*(f"{f}.*" for f in whole), *(c for c in doubtful if c.rpartition(".")[0] not in whole)]
    known = " and ".join(source for source in sources if source != UNVERIFIED)
    return f"prices of {PRICE_REGION}: {known}; {UNVERIFIED}: {', '.join(named)}"


@dataclass(frozen=True)
class Configuration:
    """One that a search may try."""

    primary: str
    replica: str
    replicas: int
    pool_times: float
    cost: float
    system: System

    @property
    def said(self) -> str:
        reads = f"{self.replicas} × {self.replica}" if self.replicas else "no replica"
        pool = self.system.pool
        return f"primary {self.primary}, {reads}, {pool.mode} pool of {pool.writer + pool.reader}"


def configurations(base: System, classes: dict[str, str], least_gib: float = 0.0) -> Iterator[Configuration]:
    """Every configuration of the price table around a base, cheapest first, smaller pools before larger.

    Burstable classes are left out: for long they carry a fraction of their vCPU.

    Args:
        least_gib: memory that a database needs, GiB.
    """
    family = [
        name
        for name, one in INSTANCE_CLASSES.items()
        if name.startswith("db.")
        and not name.startswith(BURSTABLE)
        and hourly(name)
        and one.vcpu
        and one.memory_gib >= least_gib
    ]
    found = []
    for primary in family:
        for replica in family:
            for count in range(MOST_REPLICAS + 1):
                if count == 0 and replica != primary:
                    continue
                cost = monthly({**classes, "primary": primary, "replica": replica}, count)
                if cost is None:
                    continue
                for times in POOLS:
                    system = replace(
                        base,
                        primary=float(instance_class(primary).vcpu),
                        replicas=(float(instance_class(replica).vcpu),) * count,
                        pool=replace(
                            base.pool,
                            writer=round(base.pool.writer * times),
                            reader=round(base.pool.reader * times),
                        ),
                    )
                    found.append(Configuration(primary, replica, count, times, cost, system))
    yield from sorted(found, key=lambda c: (c.cost, c.pool_times, c.replicas))


def cheapest(
    base: System,
    classes: dict[str, str],
    demands: tuple[Demand, ...],
    slo: Objective,
    rate: float,
    least_gib: float = 0.0,
) -> tuple[Configuration, Point] | None:
    """The cheapest configuration that holds the objective at a rate; None where none does.

    Not simulated is what the bottleneck law rules out, and what is no larger in anything than a failure;
    where the objective is broken though nothing queues, nothing else is.
    """
    if slo.broken(at(_boundless(base), demands, rate, requests=REQUESTS).shares()):
        return None
    failed: list[System] = []
    for one in configurations(base, classes, least_gib):
        if ceiling(one.system, demands) <= rate or any(_within(one.system, other) for other in failed):
            continue
        found = at(one.system, demands, rate, requests=REQUESTS)
        if not slo.broken(found.shares()):
            return one, at(one.system, demands, rate)
        failed.append(one.system)
    return None


def _boundless(base: System) -> System:
    pools = [replace(pool, writer=MANY, reader=MANY) for pool in base.pools]
    return replace(
        base,
        primary=float(MANY),
        replicas=(float(MANY),) * len(base.replicas),
        pool=pools[0],
        more=tuple(pools[1:]),
    )


def _within(one: System, other: System) -> bool:
    """Whether a system is no larger in anything than another."""
    return (
        one.primary <= other.primary
        and bool(one.replicas) == bool(other.replicas)
        and len(one.replicas) <= len(other.replicas)
        and all(mine <= theirs for mine, theirs in zip(one.replicas, other.replicas, strict=False))
        and one.pool.writer <= other.pool.writer
        and one.pool.reader <= other.pool.reader
    )
