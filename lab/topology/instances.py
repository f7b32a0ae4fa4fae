"""Instance classes as their vendor states them: a dated table of sizes, limits and prices.

Sizes are GiB and vCPU, prices US dollars per hour, on demand, in :data:`PRICE_REGION`. How a class becomes
limits on this machine is told by :mod:`lab.topology.sizing`.
"""

from __future__ import annotations

import bisect
import difflib
from dataclasses import dataclass

from lab.errors import UsageError

GIB = 1024**3
MIB = 1024**2

TABLE_DATED = "2026-11"
"""When sizes were last compared with their source."""
SOURCE = "AWS: DB instance classes; ElastiCache supported node types; Aurora Serverless v2 capacity"

PRICE_REGION = "us-east-1"
"""Prices are on demand and Single-AZ, of RDS for PostgreSQL, Aurora PostgreSQL (Standard) and ElastiCache for
Redis OSS; a Multi-AZ standby is a second instance. Check them before money depends on it."""
LISTED = "AWS price list of 2026-08-21"
"""AWS Price List API, offer version 20260821071526: the list itself could not be asked from here, a table
that was generated from it could be read. ``_LISTED`` names what it holds."""
ESTIMATED = "Infracost's estimates, read in 2026-11"
"""Monthly costs that Infracost published for these classes from the same API, ÷ 730 h; the list's date is
not told."""
QUOTED = "quoted in articles of 2026-06, not verified"
"""The price of an ACU in articles of that month that name the region; not read from a list."""
UNVERIFIED = "of 2025-06, not verified"
"""Taken down from the public list of that month; no source could be read here to compare it with."""

CONNECTION_BYTES = 9_531_392
"""Memory of the instance per connection in RDS' and Aurora's default ``max_connections``."""
MOST_CONNECTIONS = 5000

ACU_GIB = 2.0
"""Memory of one Aurora capacity unit."""
ACU_VCPU = 0.25
"""Its CPU. The vendor says "corresponding": that of its memory-optimised classes, 8 GiB a vCPU."""
ACU_PRICE = 0.12
"""One ACU for an hour, Aurora Standard; source: ``QUOTED``."""
ACU_RANGE = (0.5, 128.0)
"""Least (0 with auto-pause, where the version has it) and largest capacity of one instance."""

_ACU_CONNECTIONS = ((1.0, 189), (4.0, 823), (8.0, 1669), (16.0, 3360), (32.0, 5000))
"""Largest ACU of a cluster → its default ``max_connections``; between these it grows in a straight line.

Source: Aurora Serverless v2, "Maximum connections". Less than the formula gives: a part of the memory
that an ACU stands for is not the database's.
"""
LITTLE_ACU_CONNECTIONS = 2000
"""At most so many where the *least* capacity is 0 or 0.5 ACU."""


@dataclass(frozen=True)
class InstanceClass:
    """Size of a managed instance as its vendor states it."""

    vcpu: float
    memory_gib: float
    price: float | None = None
    """US dollars per hour: of RDS for PostgreSQL, or of ElastiCache; None: not known."""
    aurora_price: float | None = None
    """US dollars per hour of Aurora PostgreSQL; None: not offered, or not known."""
    connections: int | None = None
    """``max_connections`` where it does not follow from the memory."""

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)

    @property
    def max_connections(self) -> int:
        """The default: LEAST(DBInstanceClassMemory / 9531392, 5000), or the table's of a serverless one.

        The vendor subtracts what its own processes take from DBInstanceClassMemory without saying how
        much, so that a real instance has a few per cent less.
        """
        if self.connections is not None:
            return self.connections
        return min(self.memory_bytes // CONNECTION_BYTES, MOST_CONNECTIONS)


def _family(
    prefix: str,
    sizes: dict[str, tuple[float, float]],
    price: float | None,
    aurora: float | None = None,
    unit: str = "large",
) -> dict[str, InstanceClass]:
    """Classes of a family whose price grows with the vCPU, from the price of one size."""
    base = sizes[unit][0]

    def at(amount: float | None, vcpu: float) -> float | None:
        return None if amount is None else round(amount * vcpu / base, 4)

    return {
        f"{prefix}.{size}": InstanceClass(vcpu, memory, at(price, vcpu), at(aurora, vcpu))
        for size, (vcpu, memory) in sizes.items()
    }


def _steps(gib_per_vcpu: float, sizes: dict[str, float]) -> dict[str, tuple[float, float]]:
    return {size: (vcpu, vcpu * gib_per_vcpu) for size, vcpu in sizes.items()}


_R5 = {"large": 2.0, "xlarge": 4.0, "2xlarge": 8.0, "4xlarge": 16.0, "8xlarge": 32.0, "12xlarge": 48.0,
       "16xlarge": 64.0, "24xlarge": 96.0}  # fmt: skip
_M6I = {**_R5, "32xlarge": 128.0}

# Burstable (t) classes are taken at their full vCPU count: CPU credits are not modelled.
INSTANCE_CLASSES: dict[str, InstanceClass] = {
    "db.t3.micro": InstanceClass(2, 1, 0.018),
    "db.t3.small": InstanceClass(2, 2, 0.036),
    "db.t3.medium": InstanceClass(2, 4, 0.072, 0.082),
    "db.t3.large": InstanceClass(2, 8, 0.145, 0.164),
    "db.t3.xlarge": InstanceClass(4, 16, 0.29),
    "db.t3.2xlarge": InstanceClass(8, 32, 0.579),
    **_family("db.m6i", _steps(4, _M6I), 0.178),
    **_family("db.r5", _steps(8, _R5), 0.25, 0.29),
    "cache.t3.micro": InstanceClass(2, 0.5, 0.017),
    "cache.t3.small": InstanceClass(2, 1.37, 0.034),
    "cache.t3.medium": InstanceClass(2, 3.09, 0.068),
    "cache.r6g.large": InstanceClass(2, 13.07, 0.206),
    "cache.r6g.xlarge": InstanceClass(4, 26.32, 0.411),
    "cache.r6g.2xlarge": InstanceClass(8, 52.82, 0.821),
    "cache.r6g.4xlarge": InstanceClass(16, 105.81, 1.642),
    "cache.r6g.8xlarge": InstanceClass(32, 209.55, 3.284),
    "cache.r6g.12xlarge": InstanceClass(48, 317.77, 4.925),
    "cache.r6g.16xlarge": InstanceClass(64, 419.09, 6.567),
}  # fmt: skip

_LISTED = frozenset(
    f"{family}.{size}"
    for family, sizes in (
        ("db.t3", ("medium", "large", "xlarge", "2xlarge")),
        ("db.r5", ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "24xlarge")),
        ("cache.t3", ("micro", "small", "medium")),
        ("cache.r6g", ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge")),
    )
    for size in sizes
)
_ESTIMATED = frozenset({("db.t3.micro", False), ("db.t3.medium", True), ("db.t3.large", True)})

SERVERLESS = "db.serverless"
CUSTOM = "custom"
"""A node whose size the topology states itself (``vcpu``, ``memory_gib``): machines of one's own."""


def instance_class(name: str) -> InstanceClass:
    """The class of that name. UsageError, with the nearest names, where the table has none."""
    try:
        return INSTANCE_CLASSES[name]
    except KeyError:
        near = difflib.get_close_matches(name, INSTANCE_CLASSES, n=3)
        raise UsageError(
            f"unknown instance class {name!r}",
            hint=f"Known are: {', '.join(near or sorted(INSTANCE_CLASSES))}; {SERVERLESS} with acu; "
            f"{CUSTOM} with vcpu and memory_gib.",
        ) from None


def price_source(name: str, *, aurora: bool = False) -> str:
    """Where the price of a class comes from, with its date; says so where it could not be verified.

    Args:
        aurora: its price as an instance of Aurora.
    """
    if name == SERVERLESS:
        return QUOTED
    if not aurora and name in _LISTED:
        return LISTED
    return ESTIMATED if (name, aurora) in _ESTIMATED else UNVERIFIED


def serverless(maximum: float, minimum: float = 1.0) -> InstanceClass:
    """An Aurora Serverless v2 instance held at its largest capacity (ACU)."""
    connections = _acu_connections(maximum)
    if minimum <= ACU_RANGE[0]:
        connections = min(connections, LITTLE_ACU_CONNECTIONS)
    return InstanceClass(
        maximum * ACU_VCPU, maximum * ACU_GIB, None, round(maximum * ACU_PRICE, 4), connections
    )


def _acu_connections(maximum: float) -> int:
    sizes = [acu for acu, _ in _ACU_CONNECTIONS]
    after = min(max(bisect.bisect_left(sizes, maximum), 1), len(sizes) - 1)
    (low, few), (high, many) = _ACU_CONNECTIONS[after - 1], _ACU_CONNECTIONS[after]
    line = few + (many - few) * (maximum - low) / (high - low)
    return int(min(max(line, 1), MOST_CONNECTIONS))
