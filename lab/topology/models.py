"""A topology: the architecture on paper, as data. Knows no Docker.

Durations are seconds, sizes are bytes unless a name says otherwise. Unknown fields are errors.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
Zone = Annotated[str, Field(pattern=r"^[a-z]$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
PoolMode = Literal["transaction", "session", "statement"]
DatabaseRole = Literal["primary", "standby", "replica"]
"""``standby``: promotable, serves no reads. ``replica``: serves reads, never promoted by itself."""


class Model(BaseModel):
    """Base of all models: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class DatabaseNode(Model):
    """One PostgreSQL instance."""

    name: Name
    role: DatabaseRole
    instance_class: str
    """An instance class of ``lab.topology.instances``, such as ``db.r5.xlarge``."""
    zone: Zone = "a"
    label: str | None = None
    """The name that the document gives it."""


class Postgres(Model):
    """The PostgreSQL cluster."""

    version: str
    """The version that the document names; what runs instead is reported as *substituted*."""
    database: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    schema_set: Name
    """A folder of ``compose/sql`` with roles.sql, schema.sql and data.sql."""
    synchronous: Literal["off", "on", "strict"] = "off"
    high_availability: Literal["patroni", "none"] = "patroni"
    patroni: Patroni = Patroni()
    parameters: dict[str, str] = {}
    """PostgreSQL settings beyond the lab's own."""
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
    instances: Annotated[int, Field(ge=1)] = 20
    """Application instances that the document names; clients of the load."""

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
