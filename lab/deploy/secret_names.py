"""Which secrets a topology needs, and under which names they travel.

A secret reaches ``docker compose`` as the environment variable :func:`variable` of its name, from
an env file, and the containers that need it as ``/run/secrets/<name>``, without a line break at its end
(root only; ``ca.crt`` is readable by all). Values in an env file must stand in *single quotes*: a SCRAM
secret holds ``$``, which Compose would replace elsewhere, and certificates hold line breaks, which single
quotes keep.

    password_<role>   in clear, for those that log in themselves
    verifier_<role>   the same password as PostgreSQL stores it (``SCRAM-SHA-256$4096:<salt>$<key>:<key>``):
                      goes into PostgreSQL and into PgBouncer's userlist, identical in both, so that
                      PgBouncer can pass a client's proof on to the server
    password_redis    Redis and Sentinel (both ask for it)
    ca.crt            the lab's CA
    <node>.crt, .key  certificate and private key (PEM) of a node that serves TLS
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lab.deploy.allocation import Allocation
from lab.errors import UsageError
from lab.topology.loader import COMPOSE_DIR
from lab.topology.models import DatabaseNode, Member, Topology

SUPERUSER = "postgres"
REPLICATION = "replicator"
PROBE = "lab_probe"
MONITOR = "lab_monitor"
POOLER_ADMIN = "lab_admin"
"""May use PgBouncer's console (RELOAD, RECONNECT, PAUSE); has no role in PostgreSQL."""

_VERIFIER = re.compile(r":'verifier_([a-z][a-z0-9_]*)'")


@dataclass(frozen=True)
class SecretNames:
    """Everything that has to be generated for a lab. All tuples are sorted."""

    roles: tuple[str, ...]
    """Needs ``password_<role>`` and ``verifier_<role>``, made from the same password."""
    plain: tuple[str, ...]
    """Needs a random value only: ``password_redis``."""
    certificates: tuple[str, ...]
    """Nodes that need ``<node>.crt`` and ``<node>.key``; besides them there is ``ca.crt``."""

    def all(self) -> tuple[str, ...]:
        """Names of every secret, sorted."""
        names = set(self.plain)
        for role in self.roles:
            names |= {f"password_{role}", f"verifier_{role}"}
        for node in self.certificates:
            names |= {f"{node}.crt", f"{node}.key"}
        if self.certificates:
            names.add("ca.crt")
        return tuple(sorted(names))


@dataclass(frozen=True)
class SubjectNames:
    """Subject alternative names of one node's certificate. Both sorted."""

    dns: tuple[str, ...]
    addresses: tuple[str, ...]


def variable(secret: str) -> str:
    """Environment variable of a secret: ``LAB_SECRET_PG1_CRT`` for ``pg1.crt``."""
    return "LAB_SECRET_" + re.sub(r"[^A-Z0-9]", "_", secret.upper())


def schema_dir(topology: Topology) -> Path:
    """The folder of the topology's schema set: one of ``compose/sql``, or the user's own."""
    return COMPOSE_DIR / "sql" / topology.postgres.schema_set  # an absolute path replaces what is before it


def document_roles(topology: Topology) -> tuple[str, ...]:
    """The login roles of the document: those whose secret ``roles.sql`` of its schema set asks for."""
    path = schema_dir(topology) / "roles.sql"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"schema set {topology.postgres.schema_set!r} of topology {topology.name!r}: cannot read {path}",
            hint="postgres.schema_set names a folder with roles.sql, schema.sql and data.sql.",
        ) from error
    return tuple(sorted(set(_VERIFIER.findall(text))))


def application_role(topology: Topology) -> str:
    """The document's role that reads and writes: by its name, else its first; the superuser without any."""
    roles = document_roles(topology)
    names = ("app_readwrite", "app_user", "app", "app_service")
    writers = [name for name in names if name in roles]
    writers += [role for role in roles if "readwrite" in role or role.endswith("_rw")]
    return next(iter((*writers, *roles)), SUPERUSER)


def pool_roles(topology: Topology) -> tuple[str, ...]:
    """Roles that may log in through a pooler: the document's, the probe and the monitor."""
    return tuple(sorted({*document_roles(topology), PROBE, MONITOR}))


def secret_names(topology: Topology) -> SecretNames:
    """Everything that has to be generated for a lab of this topology."""
    roles = {*pool_roles(topology), SUPERUSER, REPLICATION}
    if topology.poolers:
        roles.add(POOLER_ADMIN)
    servers: list[DatabaseNode | Member] = [*topology.postgres.nodes, *topology.poolers]
    if topology.cache:
        servers += [*topology.cache.nodes, *topology.cache.sentinels]
    return SecretNames(
        roles=tuple(sorted(roles)),
        plain=("password_redis",) if topology.cache else (),
        certificates=tuple(sorted(node.name for node in servers)),
    )


def certificate_names(topology: Topology, allocation: Allocation) -> dict[str, SubjectNames]:
    """Names and addresses under which each TLS server is reached, by node.

    Routers and the proxy pass TLS through, so certificates carry their names besides the node's own; and
    ``localhost``, for people who come through a published port.
    """
    proxy = [topology.proxy.name] if topology.proxy else []
    routers = [router.name for router in topology.routers]
    databases = {node.name for node in topology.postgres.nodes}
    result = {}
    for node in secret_names(topology).certificates:
        via = [node, *proxy, *(routers if node in databases else [])]
        addresses = {address for name in via for address in allocation.addresses[name].values()}
        result[node] = SubjectNames(
            dns=tuple(sorted({"localhost", *via, *(f"{name}.control" for name in via)})),
            addresses=tuple(sorted({"127.0.0.1", *addresses})),
        )
    return result
