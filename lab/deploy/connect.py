"""How a person connects: `lab psql` inside the lab, `lab env` for clients on this host."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from lab.deploy import state
from lab.deploy.allocation import Endpoint
from lab.deploy.docker_driver import DockerLab
from lab.deploy.endpoints import application_endpoints, endpoints
from lab.deploy.secret_names import SUPERUSER, application_role, secret_names
from lab.errors import UsageError

PASSFILE = "pgpass"
MODES = ("transaction", "session", "statement")


@dataclass(frozen=True)
class Target:
    """Where to connect, and as whom."""

    endpoint: Endpoint
    role: str
    node: str
    """The node on which psql runs."""


def choose(lab: DockerLab, pool: str | None, direct: str | None, reader: bool, role: str | None) -> Target:
    """The target of the options of `lab psql` and `lab env`.

    Raises:
        UsageError: no such pool, node or role; options that exclude each other.
    """
    topology = lab.topology
    points = endpoints(topology, lab.allocation)
    node = topology.clients[0].name
    if direct is not None:
        if pool or reader:
            raise UsageError("--direct excludes --pool and --reader")
        names = [item.name for item in topology.postgres.nodes]
        if direct not in names:
            raise UsageError(f"there is no database node {direct}", hint=f"There are {', '.join(names)}.")
        endpoint, node = points[f"{direct}.direct"], topology.observer.name
    elif pool and topology.poolers:
        found = [p for p in topology.poolers if pool in (p.mode, p.name)]
        if not found:
            there = ", ".join(p.mode for p in topology.poolers)
            raise UsageError(f"there is no pool {pool}", hint=f"There are {there}.")
        endpoint = points[f"{found[0].name}.{'reader' if reader else 'writer'}"]
    elif pool:
        raise UsageError(f"topology {topology.name} has no pools")
    else:
        endpoint = points[application_endpoints(topology)[0][reader]]
    roles = secret_names(topology).roles
    chosen = role or (SUPERUSER if direct is not None else application_role(topology))
    if chosen not in roles:
        raise UsageError(f"there is no role {chosen}", hint=f"There are {', '.join(roles)}.")
    return Target(endpoint, chosen, node)


def psql_command(lab: DockerLab, target: Target, arguments: Sequence[str], *, terminal: bool) -> list[str]:
    """``docker exec`` of psql on the node. The password is in the environment, not in argv."""
    endpoint = target.endpoint
    variables = {
        "PGHOST": endpoint.host,
        "PGPORT": str(endpoint.port),
        "PGDATABASE": endpoint.database or lab.topology.postgres.database,
        "PGUSER": target.role,
        "PGSSLMODE": "verify-full" if lab.topology.tls.enabled else "disable",
        "PGSSLROOTCERT": "/run/secrets/ca.crt",
        "PGAPPNAME": "lab psql",
        "PSQL_HISTORY": "/dev/null",
        "PAGER": "cat",
        "TERM": os.environ.get("TERM", "dumb"),
    }
    argv = ["docker", "exec", "--interactive", "--env", "PGPASSWORD"]
    if terminal:
        argv.append("--tty")
    for key, value in variables.items():
        argv += ["--env", f"{key}={value}"]
    return [*argv, lab.nodes[target.node].container, "psql", *arguments]


def host_environment(lab: DockerLab, target: Target) -> dict[str, str]:
    """libpq's environment for a client on this host; the password is in a passfile (0600).

    Raises:
        UsageError: the endpoint is not published.
    """
    endpoint = target.endpoint
    if endpoint.published_port is None:
        raise UsageError(
            f"{endpoint.name} is not published on this host", hint="Use a pool, or `lab psql --direct`."
        )
    database = endpoint.database or lab.topology.postgres.database
    passfile = lab.state_dir / PASSFILE
    # Every role: switching PGUSER alone then works.
    lines = "".join(
        f"127.0.0.1:*:*:{role}:{lab.secret(f'password_{role}')}\n"
        for role in secret_names(lab.topology).roles
    )
    state.write_private(passfile, lines)
    found = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(endpoint.published_port),
        "PGDATABASE": database,
        "PGUSER": target.role,
        "PGPASSFILE": str(passfile),
        "PGSSLMODE": "verify-full" if lab.topology.tls.enabled else "disable",
    }
    if lab.topology.tls.enabled:
        found["PGSSLROOTCERT"] = str(lab.state_dir / "ca.crt")
    return found
