"""A topology: the architecture on paper, as data. Knows no Docker.

Durations are seconds, sizes are bytes unless a name says otherwise. Unknown fields are errors.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lab.errors import UsageError
from lab.topology.instances import ACU_RANGE, CUSTOM, SERVERLESS, instance_class

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
Zone = Annotated[str, Field(pattern=r"^[a-z]$")]
FilePath = Annotated[str, Field(pattern=r"^[^\n\x00]*/[^\n\x00]*$")]
"""A path with a ``/`` in it, such as ``./workload.yaml``; the loader makes it absolute."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]
PoolMode = Literal["transaction", "session", "statement"]
DatabaseRole = Literal["primary", "standby", "reader", "replica"]
"""``standby``: promotable, serves no reads (RDS Multi-AZ). ``reader``: promotable and serves reads (Aurora, a
hot standby). ``replica``: serves reads, never promoted by itself (an RDS read replica)."""


class Model(BaseModel):
    """Base of all models: frozen, and strict about unknown fields."""

    # The texts below fields become their descriptions in the JSON schema.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Patroni(Model):
    """Patroni's dynamic configuration (names and meanings as in its documentation)."""

    ttl: Annotated[int, Field(ge=20, le=3600)] = 30
    loop_wait: Annotated[int, Field(ge=1, le=300)] = 10
    retry_timeout: Annotated[int, Field(ge=3, le=300)] = 10
    primary_start_timeout: Annotated[int, Field(ge=0, le=3600)] = 300
    maximum_lag_on_failover: Annotated[int, Field(ge=0)] = 1_048_576
    failsafe_mode: bool = False

    @model_validator(mode="after")
    def _loop_fits_ttl(self) -> Patroni:
        if self.loop_wait + 2 * self.retry_timeout > self.ttl:
            raise ValueError(
                f"loop_wait + 2 * retry_timeout must not exceed ttl: "
                f"{self.loop_wait} + 2 * {self.retry_timeout} > {self.ttl}"
            )
        return self


class Acu(Model):
    """Capacity of a serverless instance, in Aurora capacity units of about 2 GiB; steps of a half."""

    minimum: Annotated[float, Field(ge=0, le=ACU_RANGE[1], multiple_of=0.5)]
    maximum: Annotated[float, Field(ge=1, le=ACU_RANGE[1], multiple_of=0.5)]

    @model_validator(mode="after")
    def _in_order(self) -> Acu:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum must not be more than maximum: {self.minimum:g} > {self.maximum:g}")
        return self


class DatabaseNode(Model):
    """One PostgreSQL instance."""

    name: Name
    role: DatabaseRole
    instance_class: str
    """A class of ``lab.topology.instances``, such as ``db.r5.xlarge``; ``db.serverless`` (with ``acu``); or
    ``custom`` (with ``vcpu`` and ``memory_gib``)."""
    acu: Acu | None = None
    vcpu: Annotated[float, Field(gt=0, le=1024)] | None = None
    memory_gib: Annotated[float, Field(gt=0, le=32_768)] | None = None
    zone: Zone = "a"
    label: str | None = None
    """The name that the document gives it."""

    @field_validator("instance_class")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if name in (SERVERLESS, CUSTOM) else _known_class(name)

    @model_validator(mode="after")
    def _sized(self) -> DatabaseNode:
        if (self.instance_class == SERVERLESS) != (self.acu is not None):
            raise ValueError(f"instance_class {SERVERLESS} and acu belong together")
        own = (self.vcpu is not None, self.memory_gib is not None)
        if (self.instance_class == CUSTOM) != any(own) or any(own) != all(own):
            raise ValueError(f"instance_class {CUSTOM}, vcpu and memory_gib belong together")
        return self


def _known_class(name: str) -> str:
    try:
        instance_class(name)
    except UsageError as error:
        raise ValueError(f"{error}; {error.hint}") from error
    return name


class Postgres(Model):
    """The PostgreSQL cluster."""

    version: str
    """The version that the document names; what runs instead is reported as *substituted*."""
    database: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    schema_set: Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{0,30}|[^\n\x00]*/[^\n\x00]*)$")]
    """A folder with roles.sql, schema.sql and data.sql: the name of one in ``compose/sql``, or, with a ``/``
    in it, a path from the topology's file."""
    service: Literal["rds", "aurora", "self-managed"] = "self-managed"
    """Who runs it in the document; the lab's own parts then stand in for the service's."""
    synchronous: Literal["off", "on", "strict"] = "off"
    high_availability: Literal["patroni", "none"] = "patroni"
    patroni: Patroni = Patroni()
    parameters: dict[str, str] = {}
    """PostgreSQL settings beyond the lab's own."""
    disk_gib: Annotated[float, Field(ge=1, le=16)] | None = None
    """Size of a file system of each database's own, in memory: what it holds is gone when its node stops.
    None: the engine's disk, which no fault ever fills."""
    data_scale: Annotated[int, Field(ge=1, le=10_000)] = 1
    data_seed: int = 1
    nodes: Annotated[tuple[DatabaseNode, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_primary(self) -> Postgres:
        primaries = [node.name for node in self.nodes if node.role == "primary"]
        if len(primaries) != 1:
            raise ValueError(f"exactly one node has the role primary, found {primaries or 'none'}")
        if self.high_availability == "none" and len(self.nodes) > 1:
            raise ValueError("several database nodes need high_availability: patroni")
        return self

    @property
    def primary(self) -> DatabaseNode:
        """The node that leads at the start."""
        return next(node for node in self.nodes if node.role == "primary")

    @property
    def promotable(self) -> tuple[DatabaseNode, ...]:
        """Nodes that may lead."""
        return tuple(node for node in self.nodes if node.role != "replica")

    @property
    def readable(self) -> tuple[DatabaseNode, ...]:
        """Nodes that serve reads while they do not lead; among readers that is the first primary too."""
        readers = any(node.role == "reader" for node in self.nodes)
        serve = {"replica", "reader", *(("primary",) if readers else ())}
        return tuple(node for node in self.nodes if node.role in serve)


class Member(Model):
    """A node that is known by its name and its availability zone alone."""

    name: Name
    zone: Zone = "a"


class Router(Member):
    """HAProxy with a write and a read endpoint that follow Patroni's health checks."""

    connect_timeout: Seconds = 0.25
    check_interval: Seconds = 0.25
    fast_check_interval: Seconds = 0.1


class Pooler(Member):
    """One PgBouncer: one pool mode, a writer and a reader database."""

    mode: PoolMode
    role: Literal["pool", "proxy"] = "pool"
    """``proxy``: it stands in for RDS Proxy, which is no pooler of the application's own."""
    max_server_connections: Annotated[int, Field(ge=2)]
    """The limit of the document: the sum over databases and users."""
    writer_share: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Share of the limit that the writer database gets, the reader gets the rest."""
    max_client_connections: Annotated[int, Field(ge=1)] = 2000
    server_idle_timeout: Seconds = 300
    server_lifetime: Seconds = 3600
    server_login_retry: Seconds = 0.2
    query_wait_timeout: Seconds = 120
    max_prepared_statements: Annotated[int, Field(ge=0)] = 200


class Cache(Model):
    """Redis, with Sentinel where there is more than one node."""

    nodes: Annotated[tuple[Member, ...], Field(min_length=1)]
    """The first is the primary at the start."""
    sentinels: tuple[Member, ...] = ()
    instance_class: str = "cache.t3.micro"
    ttl: Seconds = 300
    down_after: Seconds = 5
    failover_timeout: Seconds = 60
    min_replicas: Annotated[int, Field(ge=0, le=16)] = 0
    """``min-replicas-to-write``: a primary with fewer replicas refuses writes (``NOREPLICAS``); 0: never."""
    min_replicas_max_lag: Annotated[int, Field(ge=1, le=3600)] = 10
    """``min-replicas-max-lag``, seconds: a replica that has been silent for longer does not count. Redis'
    default; a primary that is cut off goes on acknowledging for so long."""

    @field_validator("instance_class")
    @classmethod
    def _known(cls, name: str) -> str:
        return _known_class(name)

    @model_validator(mode="after")
    def _enough_replicas(self) -> Cache:
        if self.min_replicas >= len(self.nodes):
            replicas = len(self.nodes) - 1
            raise ValueError(f"min_replicas is {self.min_replicas}, but there are {replicas} replicas")
        return self

    @model_validator(mode="after")
    def _sentinels_watch_something(self) -> Cache:
        if self.sentinels and len(self.sentinels) < 3:
            raise ValueError("Sentinel needs at least 3 members for a majority that survives one")
        return self


class Link(Model):
    """A connection between two kinds of node, *direct* or through Toxiproxy."""

    source: Literal["client", "pooler", "router"]
    target: Literal["pooler", "router", "postgres", "redis"]
    path: Literal["direct", "proxied"] = "direct"


class Tls(Model):
    """TLS on every hop; off is for negative controls."""

    enabled: bool = True
    min_version: Literal["1.2", "1.3"] = "1.2"


class TcpTimeouts(Model):
    """When one side of a connection gives up another side that has gone silent.

    Off means the kernel's own times, which are far longer (``tcp(7)``): two hours until the first keepalive,
    and some 15 minutes of sending again what nobody acknowledges.
    """

    keepalives: bool = True
    """Whether a silent peer is asked for a sign of life, while nothing is on its way to it."""
    idle: Annotated[int, Field(ge=1, le=32_767)] = 10
    """Seconds of silence before the first keepalive."""
    interval: Annotated[int, Field(ge=1, le=32_767)] = 2
    """Seconds between keepalives."""
    count: Annotated[int, Field(ge=1, le=127)] = 3
    """Keepalives without an answer after which the connection is dead."""
    user_timeout: Annotated[float, Field(ge=0, le=86_400)] = 10.0
    """Seconds that sent data may stay unacknowledged (``tcp_user_timeout``); 0: off."""


class ClientTcp(TcpTimeouts):
    """Of load and probes; the load's defaults are those of a careful application."""

    idle: Annotated[int, Field(ge=1, le=32_767)] = 5


class PoolerTcp(TcpTimeouts):
    """Of PgBouncer, towards clients and servers alike: being in the middle, it gives up first."""

    idle: Annotated[int, Field(ge=1, le=32_767)] = 5
    interval: Annotated[int, Field(ge=1, le=32_767)] = 1
    user_timeout: Annotated[float, Field(ge=0, le=86_400)] = 5.0


class Tcp(Model):
    """Half-open connections, by who has to notice them."""

    client: ClientTcp = ClientTcp()
    pooler: PoolerTcp = PoolerTcp()
    server: TcpTimeouts = TcpTimeouts()
    """PostgreSQL, towards its clients. It cannot switch keepalives off, but leaves the kernel its times."""


class Topology(Model):
    """The whole architecture of one environment of one system."""

    name: Name
    system: Name
    environment: Name
    title: str
    document: str
    """The document that describes it, by title."""
    postgres: Postgres
    etcd: tuple[Member, ...] = ()
    routers: tuple[Router, ...] = ()
    poolers: tuple[Pooler, ...] = ()
    cache: Cache | None = None
    proxy: Member | None = None
    """Toxiproxy."""
    clients: Annotated[tuple[Member, ...], Field(min_length=1)] = (Member(name="client"),)
    observer: Member = Member(name="observer")
    links: tuple[Link, ...] = ()
    tls: Tls = Tls()
    tcp: Tcp = Tcp()
    direct_access: bool = False
    """Whether clients can also do without a pooler: routers and database nodes are on the application network
    too, and there is the endpoint ``multi-host``, a connection string that names several database nodes."""
    pinned: bool = False
    """Whether clients and observer run on processor cores of their own, and everything else on the others: so
    that figures of several runs can be compared. Takes two cores at least."""
    instances: Annotated[int, Field(ge=1)] = 20
    """Application instances that the document names; clients of the load."""
    workload: FilePath | None = None
    """A file of SQL scripts with weights, for the workload ``custom``: a path from the topology's file."""
    targets: FilePath | None = None
    """A file of targets that runs on this topology are judged by: a path from the topology's file. None:
    those of ``scenarios/targets/<system>.yaml``, where there are any."""
    not_built: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Parts of the document's architecture that the lab does not build yet; every report names them."""

    @model_validator(mode="after")
    def _consistent(self) -> Topology:
        names = [member.name for member in self.members()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"node names must be unique, found twice: {', '.join(twice)}")
        if self.postgres.high_availability == "patroni":
            if not self.etcd:
                raise ValueError("high_availability: patroni needs etcd members")
            if len(self.etcd) % 2 == 0:
                raise ValueError(f"etcd needs an odd number of members, found {len(self.etcd)}")
        elif self.etcd:
            raise ValueError("high_availability: none has no use for etcd members")
        if any(link.path == "proxied" for link in self.links) and self.proxy is None:
            raise ValueError("a proxied link needs a proxy")
        return self

    def members(self) -> tuple[Member | DatabaseNode, ...]:
        """Every node of the topology, in the order in which they are listed."""
        cache = (*self.cache.nodes, *self.cache.sentinels) if self.cache else ()
        proxy = (self.proxy,) if self.proxy else ()
        return (
            *self.postgres.nodes,
            *self.etcd,
            *self.routers,
            *self.poolers,
            *cache,
            *proxy,
            *self.clients,
            self.observer,
        )
