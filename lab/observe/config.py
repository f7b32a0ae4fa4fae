"""What the observer is told: one JSON file, made by the runner, read by every process of the observer.

Standard library only, since it is imported on the host and inside the observer node alike.
Durations are seconds, addresses are IP addresses, and passwords are *paths* of files (mode 0600)
inside the observer: no secret stands in the configuration, a command line or the environment.
Only ``token`` is not meant for others; it guards the control channel of one run and is worth
nothing after it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

CLOCK_PORT = 9999
"""UDP: ``clock`` and ``trial <n> <token>``, see :mod:`lab.observe.clock`. Published on 127.0.0.1."""
AGENT_PORT = 9998
"""UDP: figures of the agents on the nodes, see :mod:`lab.observe.agents`. Control network only."""


@dataclass(frozen=True)
class Endpoint:
    """A PostgreSQL (or PgBouncer) endpoint as the observer reaches it.

    ``host`` is the name that the server's certificate must carry; ``address`` is where the
    connection goes, so that no name is resolved while the network is being broken.
    """

    name: str
    """Endpoint name as in the allocation: ``pool-transaction.writer``, ``pg1.direct``, …"""
    host: str
    address: str
    port: int
    database: str
    user: str
    password_file: str
    """Path in the observer of a file that holds the password, mode 0600. Empty: no password."""
    sslmode: str = "verify-full"
    sslrootcert: str = "/run/secrets/ca.crt"
    target_session_attrs: str = ""
    """libpq's; where ``host`` and ``address`` are several, separated by commas, which of them will do."""
    tcp: Mapping[str, int] = field(default_factory=dict)
    """libpq's parameters for a peer that has gone silent: ``keepalives…``, ``tcp_user_timeout`` (ms)."""


@dataclass(frozen=True)
class Http:
    """An HTTP(S) source on a node: Patroni's REST API, HAProxy's statistics, an etcd member."""

    node: str
    url: str
    """``http://10.1.2.3:8008`` (Patroni, etcd: no path), ``http://…:7000/stats;csv`` (HAProxy)."""
    host: str = ""
    """Name in the certificate where ``url`` is https and holds an address; empty: taken from the URL."""
    sslrootcert: str = "/run/secrets/ca.crt"


@dataclass(frozen=True)
class Redis:
    """A Redis server, or a Sentinel."""

    node: str
    host: str
    """Name in the certificate."""
    address: str
    port: int = 6379
    username: str = ""
    password_file: str = ""
    tls: bool = True
    sslrootcert: str = "/run/secrets/ca.crt"


@dataclass(frozen=True)
class Probes:
    """How often the probes ask, and when they give up. Seconds, unless a name says otherwise."""

    writer_interval_s: float = 0.010
    """Writes over lasting sessions; 0 switches the probe off (so for all intervals here)."""
    fresh_writer_interval_s: float = 0.100
    """Writes that connect, insert and close."""
    reader_interval_s: float = 0.020
    fresh_reader_interval_s: float = 0.200
    node_interval_s: float = 0.100
    redis_writer_interval_s: float = 0.020
    fresh_redis_writer_interval_s: float = 0.200
    router_interval_s: float = 0.100
    collector_interval_s: float = 1.0
    leader_poll_s: float = 0.050
    """How often etcd is asked where its watch cannot be followed."""
    sessions: int = 20
    """Lasting sessions that each of writer and reader opens at the start."""
    redis_sessions: int = 5
    """The same of the Redis writer."""
    max_in_flight: int = 300
    """Operations that wait at one time; beyond it an operation is *failed*, ``not sent``."""
    connect_timeout_s: float = 1.5
    """A new session that is not usable after this long is given up: T plus a margin."""
    answer_timeout_s: float = 60.0
    """How long an open session waits for its answer, so that half-open sockets show."""


@dataclass(frozen=True)
class Config:
    """Everything that the observer needs for one run. An empty list switches its source off."""

    run: str
    out: str
    """Folder in the observer; made if absent. Holds ``pid``, ``<table>-<probe>.jsonl``, ``done``."""
    deadline_s: float
    """Seconds after its start at which the observer ends itself, whatever happens."""
    token: str
    """Shared by runner, agents and observer of this run: letters and digits."""
    trial: int = 0
    """Trial at the start; changed while it runs by ``trial <n> <token>`` (see lab.observe.clock)."""
    slow_after_s: float = 1.0
    """T: a write that takes longer counts as failed for the RTO."""
    clock_address: str = "0.0.0.0"
    clock_port: int = CLOCK_PORT
    agent_address: str = "0.0.0.0"
    """Give the observer's own address on the control network."""
    agent_port: int = AGENT_PORT
    writer: Endpoint | None = None
    reader: Endpoint | None = None
    router: Endpoint | None = None
    """The router's write endpoint."""
    nodes: tuple[Endpoint, ...] = ()
    """Every database node directly, over the control network; named ``<node>.direct``."""
    poolers: tuple[Endpoint, ...] = ()
    """PgBouncer's console: database ``pgbouncer``, a stats user; named ``<node>.console``."""
    patroni: tuple[Http, ...] = ()
    etcd: tuple[Http, ...] = ()
    haproxy: tuple[Http, ...] = ()
    redis: tuple[Redis, ...] = ()
    redis_clients: tuple[Redis, ...] = ()
    """The same servers as clients reach them, perhaps through a proxy."""
    sentinels: tuple[Redis, ...] = ()
    """Where the Redis writer asks who is primary; without them it does not run."""
    sentinel_service: str = ""
    """The name under which Sentinel knows the Redis primary."""
    scope: str = ""
    """Patroni's scope: the leader key is ``<namespace>/<scope>/leader``."""
    namespace: str = "/service"
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Address → node, for every address of every node."""
    probes: Probes = field(default_factory=Probes)

    def __post_init__(self) -> None:
        if not self.token.isalnum():
            raise ValueError("token: letters and digits only, at least one")
        if self.deadline_s <= 0:
            raise ValueError(f"deadline_s: must be greater than 0, is {self.deadline_s}")
        for item in fields(self.probes):
            if getattr(self.probes, item.name) < 0:
                raise ValueError(f"probes.{item.name}: must not be negative")

    def to_json(self) -> str:
        """One JSON document; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Config:
        """Read what :meth:`to_json` wrote. ValueError names an unknown, missing or ill-typed field."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from error
        return _build(cls, data, "config")


def node_of(endpoint: Endpoint) -> str:
    """The node of an endpoint name: ``pg1`` of ``pg1.direct``."""
    return endpoint.name.partition(".")[0]


_T = TypeVar("_T")


def _build(cls: type[_T], data: Any, where: str) -> _T:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: expected an object, found {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ValueError(f"{where}: unknown field {', '.join(unknown)}")
    values = {name: _value(hints[name], item, f"{where}.{name}") for name, item in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _value(hint: Any, item: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if item is None:
            return None
        return _value(next(arg for arg in args if arg is not type(None)), item, where)
    if origin is tuple:
        if not isinstance(item, list):
            raise ValueError(f"{where}: expected a list")
        return tuple(_value(args[0], one, f"{where}[{index}]") for index, one in enumerate(item))
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, item, where)
    if hint is float and isinstance(item, int) and not isinstance(item, bool):
        return float(item)
    expected = dict if origin is not None else hint
    if not isinstance(item, expected) or (expected is int and isinstance(item, bool)):
        raise ValueError(f"{where}: expected {expected.__name__}, found {type(item).__name__}")
    return item
