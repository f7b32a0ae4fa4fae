"""Topology and allocation in, every file of the deployment out. Pure: no clock, no network, no secret.

What a node gets is described by :class:`File`; ``compose.yaml`` holds the same texts inline, so that it runs
alone, given an env file of secrets (see :mod:`lab.deploy.secret_names`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2

from lab.deploy import compose_file, endpoints, parameters
from lab.deploy.allocation import Allocation
from lab.deploy.secret_names import MONITOR, POOLER_ADMIN, REPLICATION, SUPERUSER, schema_dir
from lab.errors import UsageError
from lab.topology.loader import COMPOSE_DIR
from lab.topology.models import DatabaseNode, Pooler, Topology

TEMPLATE_DIR = COMPOSE_DIR / "templates"

DIRS = {
    "run": "/run/lab",
    "data": "/var/lib/postgresql/data",
    "evidence": "/var/lib/postgresql/evidence",
    "redis": "/var/lib/redis",
    "scripts": "/opt/lab/bin",
}
"""Directories inside the nodes. ``run`` holds the secrets of the service's user, ``scripts`` what the
entrypoint made executable."""

PORTS = {
    "postgres": endpoints.POSTGRES_PORT,
    "patroni": endpoints.PATRONI_PORT,
    "etcd_client": endpoints.ETCD_CLIENT_PORT,
    "etcd_peer": endpoints.ETCD_PEER_PORT,
    "pooler": endpoints.POOLER_PORT,
    "redis": endpoints.REDIS_PORT,
    "sentinel": endpoints.SENTINEL_PORT,
    "stats": endpoints.STATS_PORT,
}


@dataclass(frozen=True)
class File:
    """One configuration file of one or more nodes."""

    key: str
    """Path among the rendered files."""
    target: str
    """Path inside the nodes."""
    text: str
    nodes: tuple[str, ...]


def render(topology: Topology, allocation: Allocation) -> dict[str, str]:
    """Every file by its relative path, sorted; ``compose.yaml`` is what a bare ``docker compose up`` runs.

    The same input gives the same bytes. Secrets appear as references only.

    Raises:
        UsageError: the topology asks for what cannot be rendered here (a proxied link without Toxiproxy, …).
    """
    endpoints.check_links(topology, allocation)
    files = config_files(topology, allocation)
    result = {file.key: file.text for file in files}
    result["compose.yaml"] = compose_file.render_compose(topology, allocation, files)
    return dict(sorted(result.items()))


def config_files(topology: Topology, allocation: Allocation) -> list[File]:
    """Every configuration file, with the nodes that it goes to."""
    files: list[File] = []
    common: dict[str, Any] = {
        "ports": PORTS,
        "dirs": DIRS | {"bin": f"/usr/lib/postgresql/{allocation.postgres_version.split('.')[0]}/bin"},
        "networks": allocation.networks,
        "tls": topology.tls,
        "database": topology.postgres.database,
        "roles": {
            "superuser": SUPERUSER,
            "replication": REPLICATION,
            "monitor": MONITOR,
            "admin": POOLER_ADMIN,
        },
    }
    for node in topology.postgres.nodes:
        files += _database(topology, allocation, node, common)
    files += _bootstrap(topology, common)
    for member in topology.etcd:
        cluster = ",".join(
            f"{item.name}=http://{allocation.addresses[item.name]['data']}:{endpoints.ETCD_PEER_PORT}"
            for item in topology.etcd
        )
        text = _template(
            "etcd.yml.j2",
            common
            | {
                "node": member,
                "addresses": allocation.addresses[member.name],
                "initial_cluster": cluster,
                "token": f"pglab-{allocation.lab}",
            },
        )
        files.append(File(f"etcd/{member.name}/etcd.yml", "/etc/lab/etcd.yml", text, (member.name,)))
    for router in topology.routers:
        text = _template(
            "haproxy.cfg.j2", common | {"node": router, "backends": _backends(topology, allocation)}
        )
        files.append(File(f"haproxy/{router.name}/haproxy.cfg", "/etc/lab/haproxy.cfg", text, (router.name,)))
    for pooler in topology.poolers:
        text = _template("pgbouncer.ini.j2", common | _pooler(topology, allocation, pooler))
        files.append(
            File(f"pgbouncer/{pooler.name}/pgbouncer.ini", "/etc/lab/pgbouncer.ini", text, (pooler.name,))
        )
    files += _cache(topology, allocation, common)
    if topology.proxy and allocation.toxiproxy:
        name = topology.proxy.name
        text = json.dumps(_proxies(topology, allocation), indent=2) + "\n"
        files.append(File(f"toxiproxy/{name}/toxiproxy.json", "/etc/lab/toxiproxy.json", text, (name,)))
    return files


def _database(
    topology: Topology, allocation: Allocation, node: DatabaseNode, common: dict[str, Any]
) -> list[File]:
    postgres = topology.postgres
    addresses = allocation.addresses
    folder = f"postgres/{node.name}"
    common = common | {
        "node": node,
        "parameters": parameters.cluster_parameters(topology),
        "node_parameters": parameters.node_parameters(allocation.resources.get(node.name)),
        "hba": parameters.host_rules(topology, allocation),
    }

    def file(name: str) -> File:
        return File(f"{folder}/{name}", f"/etc/lab/{name}", _template(f"{name}.j2", values), (node.name,))

    if postgres.high_availability == "none":
        values = common
        return [file(name) for name in ("postgres.run", "postgres.stop", "postgresql.conf", "pg_hba.conf")]
    etcd = [f"{addresses[item.name]['data']}:{endpoints.ETCD_CLIENT_PORT}" for item in topology.etcd]
    tags: dict[str, bool] = {}
    if node not in postgres.promotable:
        tags |= {"nofailover": True, "nosync": True}
    if node not in postgres.readable:
        tags["noloadbalance"] = True
    values = common | {
        "addresses": addresses[node.name],
        "scope": topology.name,
        "etcd": etcd,
        "etcd_shell": " ".join(etcd),
        "initialize_key": parameters.base64_key(f"/service/{topology.name}/initialize"),
        "patroni": postgres.patroni,
        "synchronous": postgres.synchronous,
        "tags": tags,
    }
    return [file("patroni.yml"), file("patroni.run")]


def _bootstrap(topology: Topology, common: dict[str, Any]) -> list[File]:
    postgres = topology.postgres
    nodes = tuple(node.name for node in postgres.nodes)
    first = (postgres.primary.name,)
    values = common | {
        "scale": postgres.data_scale,
        "seed": postgres.data_seed,
        "environment": topology.environment,
    }
    bootstrap = _template("bootstrap.sh.j2", values)
    files = [File("postgres/bootstrap.sh", "/etc/lab/bootstrap.sh", bootstrap, first)]
    if postgres.high_availability == "patroni":
        rewind = _template("pg_rewind.j2", values)
        files.append(File("postgres/pg_rewind", "/etc/lab/pg_rewind", rewind, nodes))
    sources = [schema_dir(topology) / name for name in ("roles.sql", "schema.sql", "data.sql")]
    for source in (*sources, COMPOSE_DIR / "sql" / "lab.sql"):
        try:
            text = source.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"topology {topology.name!r}: cannot read {source}",
                hint="postgres.schema_set names a folder with roles.sql, schema.sql and data.sql.",
            ) from error
        files.append(File(f"postgres/sql/{source.name}", f"/etc/lab/sql/{source.name}", text, first))
    return files


def _backends(topology: Topology, allocation: Allocation) -> list[dict[str, Any]]:
    """Write: nodes that can become primary. Read: those that serve reads, or without any the primary.

    Where any reader may come to lead, the last one left leads and serves the reads too.
    """
    postgres = topology.postgres
    patroni = postgres.high_availability == "patroni"

    def servers(chosen: Iterable[DatabaseNode]) -> list[dict[str, Any]]:
        result = []
        for node in chosen:
            host, port = endpoints.via(
                topology, allocation, "router", "postgres", node.name, endpoints.POSTGRES_PORT
            )
            result.append(
                {
                    "name": node.name,
                    "address": allocation.addresses[host]["data"],
                    "port": port,
                    "check_address": allocation.addresses[node.name]["data"],
                }
            )
        return result

    return [
        {
            "name": "write",
            "port": endpoints.WRITE_PORT,
            "balance": "first",
            "check": "/primary" if patroni else None,
            "spare": None,
            "servers": servers(postgres.promotable),
        },
        {
            "name": "read",
            "port": endpoints.READ_PORT,
            "balance": "leastconn",
            "check": ("/replica" if postgres.readable else "/primary") if patroni else None,
            "spare": "write" if any(node.role == "reader" for node in postgres.nodes) else None,
            "servers": servers(postgres.readable or postgres.promotable),
        },
    ]


def _pooler(topology: Topology, allocation: Allocation, pooler: Pooler) -> dict[str, Any]:
    writer, reader = parameters.split_limit(pooler.max_server_connections, pooler.writer_share)

    def hosts(port: int) -> tuple[str, int]:
        if not topology.routers:
            return topology.postgres.primary.name, endpoints.POSTGRES_PORT
        reached = [
            endpoints.via(topology, allocation, "pooler", "router", router.name, port)
            for router in topology.routers
        ]
        # Ports differ between routers only where they are proxied; PgBouncer takes one port for all hosts.
        same = [name for name, there in reached if there == reached[0][1]]
        return ",".join(same), reached[0][1]

    entries = []
    for name, port, limit in (
        (topology.postgres.database, endpoints.WRITE_PORT, writer),
        (f"{topology.postgres.database}_ro", endpoints.READ_PORT, reader),
    ):
        host, to_port = hosts(port)
        entries.append({"name": name, "host": host, "port": to_port, "limit": limit})
    return {
        "node": pooler,
        "databases": entries,
        "tls_protocols": "tlsv1.3" if topology.tls.min_version == "1.3" else "tlsv1.2,tlsv1.3",
        "tcp": topology.tcp.pooler,
    }


def _cache(topology: Topology, allocation: Allocation, common: dict[str, Any]) -> list[File]:
    if not topology.cache:
        return []
    cache = topology.cache
    first = allocation.addresses[cache.nodes[0].name]["app"]
    values = common | {
        "cache": cache,
        "service": endpoints.SENTINEL_SERVICE,
        "quorum": len(cache.sentinels) // 2 + 1,
        "redis_protocols": "TLSv1.3" if topology.tls.min_version == "1.3" else "TLSv1.2 TLSv1.3",
    }
    files = []
    for index, member in enumerate(cache.nodes):
        limit = allocation.resources.get(member.name)
        text = _template(
            "redis.conf.j2",
            values
            | {
                "node": member,
                "addresses": allocation.addresses[member.name],
                "primary": first if index else None,
                # The rest is for buffers, and for the copy that a rewrite of the log makes.
                "maxmemory": limit.memory_bytes * 3 // 4 if limit and limit.memory_bytes else None,
            },
        )
        files.append(File(f"redis/{member.name}/redis.conf", "/etc/lab/redis.conf", text, (member.name,)))
    for member in cache.sentinels:
        text = _template(
            "sentinel.conf.j2",
            values | {"node": member, "addresses": allocation.addresses[member.name], "primary": first},
        )
        files.append(
            File(f"redis/{member.name}/sentinel.conf", "/etc/lab/sentinel.conf", text, (member.name,))
        )
    return files


def _proxies(topology: Topology, allocation: Allocation) -> list[dict[str, Any]]:
    """Toxiproxy's own configuration: one proxy per target node and port of the links that are proxied."""
    return [
        {
            "name": hop.proxy,
            "listen": f"0.0.0.0:{hop.listen}",
            "upstream": f"{allocation.addresses[hop.node][hop.network]}:{hop.port}",
            "enabled": True,
        }
        for hop in endpoints.proxied_hops(topology)
    ]


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        comment_start_string="{%#",  # the shell's ${#name} is no comment
        comment_end_string="#%}",
    )
    environment.filters["combined"] = lambda one, other: {**one, **other}
    environment.filters["ms"] = lambda seconds: f"{round(float(seconds) * 1000)}ms"
    environment.filters["number"] = lambda value: f"{float(value):g}"
    return environment


def _template(name: str, values: dict[str, Any]) -> str:
    return _environment().get_template(name).render(values)
