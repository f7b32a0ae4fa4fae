"""Names, ports and networks of a topology's nodes: where things are, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lab.deploy.allocation import Allocation, Endpoint
from lab.errors import UsageError
from lab.topology.models import Link, Topology

Network = Literal["app", "data", "control"]
NETWORKS: tuple[Network, ...] = ("app", "data", "control")

POSTGRES_PORT = 5432
PATRONI_PORT = 8008
ETCD_CLIENT_PORT = 2379
ETCD_PEER_PORT = 2380
WRITE_PORT = 5000
READ_PORT = 5001
STATS_PORT = 7000
POOLER_PORT = 6432
REDIS_PORT = 6379
SENTINEL_PORT = 26379
PROXY_API_PORT = 8474
CLOCK_PORT = 9999
UI_PORT = 8089
"""Locust's web interface on the client, where it runs."""
PROXIED_FROM = 20000
"""First port of the proxied links on the proxy."""

MULTI_HOST = "multi-host"
"""Name of the endpoints ``multi-host.write`` and ``multi-host.read``, where there is direct access."""

SENTINEL_SERVICE = "cache"
"""The name under which the Sentinels know the Redis primary."""

LINKS = (("client", "pooler"), ("pooler", "router"), ("router", "postgres"), ("client", "redis"))
"""Links that can be proxied."""


@dataclass(frozen=True)
class Hop:
    """One way into a node that Toxiproxy can stand in: the last part of a link."""

    source: str
    target: str
    """Kinds of node, as in a topology's ``links``."""
    node: str
    port: int
    network: Network
    """On which the proxy, or whoever connects directly, reaches the node."""
    listen: int
    """The proxy's port for it."""

    @property
    def proxy(self) -> str:
        """Name among Toxiproxy's own proxies."""
        return f"{self.node}-{self.port}"


@dataclass(frozen=True)
class Published:
    """A port that people reach on 127.0.0.1 of the host."""

    node: str
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"


def images_of(topology: Topology) -> dict[str, str]:
    """Node → short name of its image (a folder of ``compose/images``)."""
    kinds: dict[str, str] = {node.name: "postgres" for node in topology.postgres.nodes}
    kinds |= {node.name: "etcd" for node in topology.etcd}
    kinds |= {node.name: "haproxy" for node in topology.routers}
    kinds |= {node.name: "pgbouncer" for node in topology.poolers}
    if topology.cache:
        kinds |= {node.name: "redis" for node in (*topology.cache.nodes, *topology.cache.sentinels)}
    if topology.proxy:
        kinds[topology.proxy.name] = "toxiproxy"
    kinds |= {node.name: "client" for node in (*topology.clients, topology.observer)}
    return kinds


def entrance(topology: Topology) -> str:
    """Image of what applications connect to: the poolers, without them the routers, else the database."""
    return "pgbouncer" if topology.poolers else "haproxy" if topology.routers else "postgres"


def networks_of(topology: Topology) -> dict[str, tuple[Network, ...]]:
    """Node → networks that it is attached to, app before data before control.

    What applications connect to is on the application network, and what is behind it is not, unless they have
    direct access.
    """
    by_image: dict[str, tuple[Network, ...]] = {
        "postgres": ("data", "control"),
        "etcd": ("data", "control"),
        "haproxy": ("data", "control"),
        "pgbouncer": NETWORKS,
        "redis": ("app", "control"),
        "toxiproxy": NETWORKS,
        "client": ("app", "control"),
    }
    by_image[entrance(topology)] = NETWORKS
    if topology.direct_access:
        by_image |= {"postgres": NETWORKS, "haproxy": NETWORKS}
    result = {node: by_image[image] for node, image in images_of(topology).items()}
    result[topology.observer.name] = NETWORKS
    return result


def published_ports(topology: Topology) -> dict[str, Published]:
    """Name (key of ``Allocation.published``) → what is published on 127.0.0.1.

    Writer and reader of a pooler (or of a database without one) share one port, under the writer's name.
    """
    ports: dict[str, Published] = {}
    for pooler in topology.poolers:
        ports[f"{pooler.name}.writer"] = Published(pooler.name, POOLER_PORT)
    if entrance(topology) == "postgres":
        primary = topology.postgres.primary.name
        ports[f"{primary}.writer"] = Published(primary, POSTGRES_PORT)
    for router in topology.routers:
        ports[f"{router.name}.write"] = Published(router.name, WRITE_PORT)
        ports[f"{router.name}.read"] = Published(router.name, READ_PORT)
        ports[f"{router.name}.stats"] = Published(router.name, STATS_PORT)
    ports[f"{topology.observer.name}.clock"] = Published(topology.observer.name, CLOCK_PORT, "udp")
    ports[f"{topology.clients[0].name}.ui"] = Published(topology.clients[0].name, UI_PORT)
    return ports


def proxied(topology: Topology, source: str, target: str) -> bool:
    """Whether the link between two kinds of node goes through the proxy."""
    found: list[Link] = [item for item in topology.links if (item.source, item.target) == (source, target)]
    return any(item.path == "proxied" for item in found)


def check_links(topology: Topology, allocation: Allocation) -> None:
    """UsageError where a link is proxied that cannot be, here or at all."""
    for link in topology.links:
        if link.path == "direct":
            continue
        if (link.source, link.target) not in LINKS:
            known = ", ".join(f"{source} → {target}" for source, target in LINKS)
            raise UsageError(
                f"link {link.source} → {link.target} cannot be proxied", hint=f"Those that can: {known}."
            )
        if not allocation.toxiproxy:
            raise UsageError(
                f"link {link.source} → {link.target} is proxied, but Toxiproxy could not be had here",
                hint="`lab doctor` says why; or set the link's path to direct.",
            )


def hops(topology: Topology) -> tuple[Hop, ...]:
    """Every way into a node that could be proxied.

    Covers all links, proxied or not, so that the proxy's port does not depend on which links are.
    """
    found: list[tuple[str, str, str, int, Network]] = []
    found += [("client", "pooler", pooler.name, POOLER_PORT, "app") for pooler in topology.poolers]
    for router in topology.routers:
        found += [("pooler", "router", router.name, port, "data") for port in (WRITE_PORT, READ_PORT)]
    found += [("router", "postgres", node.name, POSTGRES_PORT, "data") for node in topology.postgres.nodes]
    if topology.cache:
        found += [("client", "redis", node.name, REDIS_PORT, "app") for node in topology.cache.nodes]
    return tuple(Hop(*one, listen=PROXIED_FROM + index) for index, one in enumerate(found))


def proxied_hops(topology: Topology) -> tuple[Hop, ...]:
    """Those whose link is proxied."""
    return tuple(hop for hop in hops(topology) if proxied(topology, hop.source, hop.target))


def proxy_ports(topology: Topology) -> dict[tuple[str, int], int]:
    """(node, port) of everything that could be proxied → its port on the proxy."""
    return {(hop.node, hop.port): hop.listen for hop in hops(topology)}


def via(
    topology: Topology, allocation: Allocation, source: str, target: str, node: str, port: int
) -> tuple[str, int]:
    """(node, port) that a node of kind ``source`` connects to for ``node:port`` of kind ``target``."""
    if topology.proxy and allocation.toxiproxy and proxied(topology, source, target):
        return topology.proxy.name, proxy_ports(topology)[node, port]
    return node, port


def application_endpoints(topology: Topology) -> list[tuple[str, str]]:
    """(writer, reader) by name, of everything that applications connect to; the first is their usual one."""
    if topology.poolers:
        # Transaction pooling first: it serves every kind of short request.
        poolers = sorted(topology.poolers, key=lambda pooler: pooler.mode != "transaction")
        return [(f"{pooler.name}.writer", f"{pooler.name}.reader") for pooler in poolers]
    if topology.routers:
        return [(f"{router.name}.write", f"{router.name}.read") for router in topology.routers]
    primary = topology.postgres.primary.name
    return [(f"{primary}.writer", f"{primary}.reader")]


def shared_network(topology: Topology, one: str, other: str) -> Network:
    """The network on which two nodes meet: where one of them is a client (or the observer) app before data,
    else data before app; control at last."""
    networks = networks_of(topology)
    clients = {member.name for member in (*topology.clients, topology.observer)}
    order: tuple[Network, ...] = NETWORKS if {one, other} & clients else ("data", "app", "control")
    return next(name for name in order if name in networks[one] and name in networks[other])


def endpoints(topology: Topology, allocation: Allocation) -> dict[str, Endpoint]:
    """Everything a client can connect to, by endpoint name.

    Besides those that the architecture names there are ``<pg>.patroni``, ``<etcd>.client``,
    ``<router>.stats``, ``<proxy>.api`` and ``<observer>.clock``, which have no database and speak plain HTTP
    or UDP; and, where there is neither pooler nor router, ``<pg>.writer`` and ``<pg>.reader`` of the primary.
    An endpoint whose link from the client is proxied leads to the proxy.
    """
    result: dict[str, Endpoint] = {}
    database = topology.postgres.database

    def add(
        name: str, node: str, network: Network, port: int, *,
        database: str | None = None, through: tuple[str, int] | None = None, published: str | None = None,
    ) -> None:  # fmt: skip
        host, port = through or (node, port)
        result[name] = Endpoint(
            name=name,
            node=node,
            host=f"{host}.control" if network == "control" else host,
            address=allocation.addresses[host][network],
            port=port,
            database=database,
            published_port=allocation.published.get(published or name),
        )

    for node in topology.postgres.nodes:
        add(f"{node.name}.direct", node.name, "control", POSTGRES_PORT, database=database)
        if topology.postgres.high_availability == "patroni":
            add(f"{node.name}.patroni", node.name, "control", PATRONI_PORT)
    for member in topology.etcd:
        add(f"{member.name}.client", member.name, "control", ETCD_CLIENT_PORT)
    if entrance(topology) == "postgres":
        primary = topology.postgres.primary.name
        for kind in ("writer", "reader"):
            add(f"{primary}.{kind}", primary, "app", POSTGRES_PORT,
                database=database, published=f"{primary}.writer")  # fmt: skip
    front: Network = "app" if topology.direct_access or entrance(topology) == "haproxy" else "data"
    for router in topology.routers:
        add(f"{router.name}.write", router.name, front, WRITE_PORT, database=database)
        add(f"{router.name}.read", router.name, front, READ_PORT, database=database)
        add(f"{router.name}.stats", router.name, "control", STATS_PORT)
    for pooler in topology.poolers:
        through = via(topology, allocation, "client", "pooler", pooler.name, POOLER_PORT)
        for kind, name in (("writer", database), ("reader", f"{database}_ro")):
            add(f"{pooler.name}.{kind}", pooler.name, "app", POOLER_PORT,
                database=name, through=through, published=f"{pooler.name}.writer")  # fmt: skip
    if topology.cache:
        for member in topology.cache.nodes:
            through = via(topology, allocation, "client", "redis", member.name, REDIS_PORT)
            add(f"{member.name}.redis", member.name, "app", REDIS_PORT, through=through)
        for member in topology.cache.sentinels:
            add(f"{member.name}.sentinel", member.name, "app", SENTINEL_PORT)
    if topology.proxy and allocation.toxiproxy:
        add(f"{topology.proxy.name}.api", topology.proxy.name, "control", PROXY_API_PORT)
    if topology.direct_access:
        result |= {endpoint.name: endpoint for endpoint in _multi_host(topology, allocation)}
    add(f"{topology.observer.name}.clock", topology.observer.name, "control", CLOCK_PORT)
    add(f"{topology.clients[0].name}.ui", topology.clients[0].name, "app", UI_PORT)
    return result


def _multi_host(topology: Topology, allocation: Allocation) -> list[Endpoint]:
    """One connection string over the nodes that a router would choose from, without the router.

    Writes: the nodes that may become primary, the first that takes writes. Reads: the replicas (where there
    are none, the others too), any of them.
    """
    nodes = topology.postgres.nodes
    promotable = [node.name for node in nodes if node.role != "replica"]
    replicas = [node.name for node in nodes if node.role == "replica"]
    ways: tuple[tuple[str, list[str], Literal["any", "read-write"]], ...] = (
        ("write", promotable, "read-write"),
        ("read", replicas or promotable, "any"),
    )
    return [
        Endpoint(
            name=f"{MULTI_HOST}.{kind}",
            node=",".join(names),
            host=",".join(names),
            address=",".join(allocation.addresses[name]["app"] for name in names),
            port=POSTGRES_PORT,
            database=topology.postgres.database,
            target_session_attrs=attributes,
        )
        for kind, names, attributes in ways
    ]
