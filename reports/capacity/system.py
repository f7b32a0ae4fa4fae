"""What the model consists of: requests with their demands, and the stations that serve them.

All times are seconds, CPU is cores, demands are seconds of one core.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PoolMode = Literal["transaction", "session", "statement"]

FOREVER = float("inf")


@dataclass(frozen=True)
class Demand:
    """One class of request, as it was measured where nothing queued."""

    name: str
    share: float
    """Of all requests."""
    writes: bool
    """Whether it goes to the writer endpoint."""
    service: Floats
    """Service times, one a request measured: what the model draws from."""
    held: float = 1.0
    """Share of the service time in which a transaction holds a server connection."""
    queried: float = 1.0
    """Share of the held time in which a statement runs: what statement pooling holds it for."""
    cpu: float = 1.0
    """Share of the service time that is work of a database node's CPU. It is at most ``held``."""
    cacheable: bool = False
    """Whether a cache may answer it."""
    pooler: int = 0
    """Index into ``System.pools``."""
    fresh: bool = False
    """Whether it opens a session for itself, so that session pooling gets its connection back at once."""
    background: bool = False
    """Whether nobody waits for it: percentiles are of the others."""


@dataclass(frozen=True)
class Pool:
    """A pooler that the application uses. Sizes are server connections."""

    mode: PoolMode = "transaction"
    writer: int = 60
    reader: int = 40
    wait_timeout: float = 120.0
    """PgBouncer's query_wait_timeout."""
    session_length: int = 0
    """Requests after which a session is closed and its connection given back; 0: never."""
    direct: bool = False
    """No pooler at all: connections to the database itself, as many as are asked for."""


@dataclass(frozen=True)
class System:
    """An architecture, as far as the model knows it."""

    instances: int = 20
    """Application instances; each runs ``concurrency`` requests at a time."""
    concurrency: int = 1
    pool: Pool = Pool()
    """The application's own."""
    more: tuple[Pool, ...] = ()
    """Others that some classes of requests go through."""
    primary: float = 1.0
    """Cores of the primary."""
    replicas: tuple[float, ...] = ()
    """Cores of each node that serves reads. None: the primary serves them."""
    machine: float = FOREVER
    """Cores that all parts share (the lab's own machine); infinite where each has its own."""
    machine_cpu: float = 0.0
    """Mean demand of a request on those cores beside that at its node: pooler, router, standby, generator.

    Each has its part in proportion to its service time: more statements, more to pass on."""
    cache_hit: float = 0.0
    """Share of the cacheable requests that the cache answers."""
    cache_time: float = 0.0005
    """Service time of an answer from the cache."""
    drop_after: float = 5.0
    """An arrival that found no free client for this long is given up."""
    max_connections: int = 0
    """The database's own limit on connections; 0: not modelled."""

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Every pooler; ``Demand.pooler`` counts along these."""
        return (self.pool, *self.more)

    @property
    def clients(self) -> int:
        """Requests that can be under way at a time."""
        return self.instances * self.concurrency


@dataclass(frozen=True)
class Outage:
    """The primary serves nothing for a while, then every connection to it has to be made anew."""

    begin: float
    length: float
    connect_cpu: float = 0.0
    """Demand of one new connection on the primary's CPU."""
    connections: int = 0
    """How many come back at once."""

    @property
    def end(self) -> float:
        return self.begin + self.length


@dataclass(frozen=True)
class Traffic:
    """Requests to simulate: open arrivals at ``rate``, or closed clients that think in between."""

    demands: tuple[Demand, ...]
    requests: int
    rate: float | None = None
    """Poisson arrivals per second; None: closed loop."""
    think: Floats = field(default_factory=lambda: np.zeros(1))
    """Closed loop: pauses between an answer and the client's next request, one is drawn each time."""
    seed: int = 1

    def at(self, rate: float, requests: int | None = None) -> Traffic:
        """The same requests at another rate."""
        return replace(self, rate=rate, requests=requests or self.requests)


def mean_service(demands: tuple[Demand, ...]) -> float:
    """Mean service time over all classes, seconds."""
    return sum(d.share * float(d.service.mean()) for d in demands) / sum(d.share for d in demands)
