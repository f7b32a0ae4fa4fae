"""PgBouncer's console, asked from the observer over the control network, and its process."""

from __future__ import annotations

import csv
import io

from lab.deploy.endpoints import POOLER_PORT
from lab.deploy.secret_names import POOLER_ADMIN
from lab.driver import Lab
from lab.faults._base import node_of

# PgBouncer's process: the one of that name, whoever is its parent.
PID = "pgrep -x -o pgbouncer"


def command(lab: Lab, pooler: str) -> tuple[list[str], dict[str, str]]:
    """(words, environment) of a psql in the observer that talks to the console; add ``-c …``."""
    sslmode = "verify-full" if lab.topology.tls.enabled else "disable"
    target = (
        f"host={pooler}.control port={POOLER_PORT} dbname=pgbouncer user={POOLER_ADMIN} "
        f"sslmode={sslmode} sslrootcert=/run/secrets/ca.crt connect_timeout=5"
    )
    return ["psql", "-X", "-q", "--csv", target], {"PGPASSWORD": lab.secret(f"password_{POOLER_ADMIN}")}


def ask(lab: Lab, pooler: str, *commands: str, check: bool = True) -> list[dict[str, str]]:
    """Rows, by column name, of the last of some console commands. LabError where it refuses."""
    words, env = command(lab, node_of(lab, pooler).name)
    for text in commands:
        words += ["-c", text]
    observer = node_of(lab, lab.topology.observer.name)
    done = observer.run(words, env=env, timeout_s=15, check=check)
    return list(csv.DictReader(io.StringIO(done.stdout)))
