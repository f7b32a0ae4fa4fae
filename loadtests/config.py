"""The load's configuration: written by the host as JSON, read inside the client node.

Standard library only, since both sides import it. Durations are seconds, rates are requests per
second. The password travels as a file of its own (mode 0600), never in this document.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

Arrivals = Literal["poisson", "constant", "closed"]
Connections = Literal["lasting", "per-request"]


@dataclass(frozen=True)
class LoadTarget:
    """One endpoint that the load connects to."""

    name: str
    """Endpoint name such as ``pool-transaction.writer``; it is what the record says."""
    host: str
    """Name that the server's certificate carries."""
    port: int
    database: str
    address: str = ""
    """Where the connection goes, so that no name is resolved while things break; empty: ``host``.
    Several hosts, and their addresses, are separated by commas and tried in this order."""
    target_session_attrs: str = ""
    """libpq's: which of several hosts will do."""


@dataclass(frozen=True)
class CacheNode:
    """One Redis node or Sentinel, as the client node reaches it."""

    name: str
    """Endpoint name such as ``redis1.redis``."""
    address: str
    port: int
    announced: str = ""
    """The address under which the Sentinels know the node (the proxy may stand before it)."""


@dataclass(frozen=True)
class CacheConfig:
    """The cache beside the database."""

    nodes: tuple[CacheNode, ...]
    """The first is the primary where there are no Sentinels."""
    sentinels: tuple[CacheNode, ...]
    service: str
    """The name under which the Sentinels know the primary."""
    password_file: str
    ttl_s: float
    """How long an entry lives: the topology's TTL, divided by ``clock``."""
    clock: float = 1.0
    """How many times faster than the document's the cache's clock runs."""
    prefix: str = ""
    """Leads every key, so that what an earlier load left there, at another clock, is not found."""
    coalesce: bool = False
    """Whether clients that miss the same entry at one time wait for one of them to load it."""
    tls: bool = True
    ca_file: str = "/run/secrets/ca.crt"


@dataclass(frozen=True)
class Script:
    """A script of the workload ``custom``."""

    name: str
    """What its requests are called."""
    text: str
    """As pgbench's; see ``loadtests.scripts``."""
    weight: int = 1
    reads: bool = False
    """It only reads: to the reader endpoint."""


@dataclass(frozen=True)
class LoadConfig:
    """Everything that ``python -m loadtests`` needs to know."""

    run: str
    out: str
    """Folder on the client node that the records go to."""
    workload: str
    """A name of ``loadtests.workloads.list_workloads``, such as ``risk-api``."""
    writer: LoadTarget
    user: str
    password_file: str
    node: str = "client"
    """Name of the client node, for what the load counts of itself."""
    reader: LoadTarget | None = None
    """Where reads that need not see the caller's own writes go; None: to the writer."""
    routes: dict[str, LoadTarget] | None = None
    """Further routes that requests may name, such as ``direct`` or ``session.reader``."""
    roles: dict[str, str] | None = None
    """Route → role, where it is not ``user``; its password is in ``<password_file>.<role>``."""
    cache: CacheConfig | None = None
    sslmode: str = "verify-full"
    sslrootcert: str = "/run/secrets/ca.crt"
    arrivals: Arrivals = "poisson"
    """``poisson`` and ``constant`` are open loop at ``rate``; ``closed`` sends as fast as answers come."""
    rate: float = 100.0
    """Offered requests per second over all workers; not used by ``closed``."""
    burst: int = 1
    """Requests that arrive at one moment; ``rate`` stays the mean."""
    connections: Connections = "lasting"
    """``per-request``: every request opens its connection and closes it; both are part of its time."""
    users: int = 20
    """Users over all workers: the greatest number of requests under way at once."""
    duration_s: float | None = 30.0
    """How long requests are scheduled; None: until SIGTERM or the deadline."""
    deadline_s: float = 3600.0
    """After this the load ends itself, whatever happened to who started it."""
    drop_after_s: float = 5.0
    """An arrival that found no free user for this long is recorded as ``dropped``."""
    proof: int = 50
    """Sessions that show at the start that users run at the same time, at most: no more than a pool has room
    for."""
    seed: int = 1
    workers: int = 1
    """1: one Locust process; more: a Locust master and this many workers."""
    clock: tuple[str, int] | None = None
    """Address of the observer's UDP clock; None: no offset is measured."""
    prepare_threshold: int | None = 2
    """psycopg's: how often a statement runs before the server prepares it, 0 at once, None never.

    A pooler in transaction mode needs None, unless it tracks prepared statements (PgBouncer 1.21 and
    later with ``max_prepared_statements`` > 0, which the lab's poolers have). Statement pooling too.
    """
    connect_timeout_s: int = 3
    """libpq's ``connect_timeout``."""
    tcp: dict[str, int] = field(default_factory=dict)
    """libpq's parameters for a peer that has gone silent: ``keepalives…``, ``tcp_user_timeout`` (ms)."""
    backoff_first_s: float = 0.05
    backoff_max_s: float = 1.0
    """Reconnects wait a random time up to first · 2ⁿ, at most this (full jitter)."""
    ui_port: int | None = None
    """Port of Locust's web UI on the client node; None: headless."""
    scripts: tuple[Script, ...] = ()
    """Of the workload ``custom``, which is nothing else."""
    variables: dict[str, int] | None = None
    """Values that each of these scripts begins with."""
    parameters: dict[str, int] | None = None
    """The workload's own settings, such as the number of portfolios in the data."""

    def __post_init__(self) -> None:
        def need(good: bool, field: str, expected: str) -> None:
            if not good:
                raise ValueError(f"load: {field}: expected {expected}, found {getattr(self, field)!r}")

        need(self.arrivals in get_args(Arrivals), "arrivals", "poisson, constant or closed")
        need(self.proof >= 1, "proof", "at least 1")
        need(self.connections in get_args(Connections), "connections", "lasting or per-request")
        need(0 < self.rate <= 1_000_000, "rate", "more than 0 and at most 1000000 requests per second")
        need(1 <= self.burst <= 10_000, "burst", "1 to 10000 requests")
        need(1 <= self.workers <= 64, "workers", "1 to 64 processes")
        need(self.workers <= self.users <= 10_000, "users", "at least one a worker, at most 10000")
        need(self.duration_s is None or self.duration_s > 0, "duration_s", "more than 0 seconds")
        need(0 < self.deadline_s <= 7 * 86_400, "deadline_s", "more than 0 seconds, at most a week")
        need(self.drop_after_s > 0, "drop_after_s", "more than 0 seconds")
        need(self.connect_timeout_s >= 2, "connect_timeout_s", "at least 2 seconds (libpq's minimum)")
        need(
            0 < self.backoff_first_s <= self.backoff_max_s,
            "backoff_first_s",
            "more than 0 and at most backoff_max_s",
        )
        need(
            self.prepare_threshold is None or self.prepare_threshold >= 0,
            "prepare_threshold",
            "0 or more, or null",
        )

    def to_json(self) -> str:
        """The document that ``from_json`` reads."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> LoadConfig:
        """Read a document.

        Raises:
            ValueError: no JSON, an unknown or missing field, or a value out of range.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"load: not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ValueError("load: expected a JSON object")
        unknown = sorted(raw.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"load: unknown fields: {', '.join(unknown)}")
        try:
            for name in ("writer", "reader"):
                if raw.get(name) is not None:
                    raw[name] = LoadTarget(**raw[name])
            if raw.get("routes") is not None:
                raw["routes"] = {route: LoadTarget(**target) for route, target in raw["routes"].items()}
            if raw.get("cache") is not None:
                raw["cache"] = _cache(raw["cache"])
            if "scripts" in raw:
                raw["scripts"] = tuple(Script(**script) for script in raw["scripts"])
            if raw.get("clock") is not None:
                host, port = raw["clock"]
                raw["clock"] = (str(host), int(port))
            return cls(**raw)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"load: {error}") from error

    @classmethod
    def load(cls, path: Path | str) -> LoadConfig:
        """Read a file; errors as ``from_json`` plus OSError."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def route(self, name: str) -> LoadTarget:
        """Where a route leads: ``writer``, ``reader`` or one of ``routes``.

        One that the topology does not have leads where the same kind of work goes otherwise:
        ``session.reader`` to the reader, everything else to the writer.
        """
        if self.routes and name in self.routes:
            return self.routes[name]
        if name.rpartition(".")[2] == "reader" and self.reader is not None:
            return self.reader
        return self.writer


def _cache(raw: dict[str, Any]) -> CacheConfig:
    nodes = {name: tuple(CacheNode(**node) for node in raw[name]) for name in ("nodes", "sentinels")}
    return CacheConfig(**{**raw, **nodes})
