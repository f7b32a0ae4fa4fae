"""A client takes every server connection of a pool's writer and keeps it: transactions that are never ended.

As an application that leaks transactions does it: what comes after has to wait until ``query_wait_timeout``.
The client ends itself at the deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.deploy.endpoints import endpoints
from lab.deploy.parameters import split_limit
from lab.deploy.secret_names import document_roles
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves, On, first_true, node_of
from lab.faults._console import ask
from lab.faults._jobs import job_status, start_job, stop_job, wait_job

KEY = "exhaust-pool"
LONGEST_S = 600.0
WITHIN_S = 40.0
USERS = ("app_readwrite", "app_user", "app_service")
"""Whose transactions they are: the first of these that the document names, so that they share its pool."""

_PROGRAM = """
import psycopg
held, lock, links = [0], threading.Lock(), []
def take():
    link = psycopg.connect(S["dsn"], password=S["password"], autocommit=False, prepare_threshold=None)
    links.append(link)
    before = time.time()
    link.execute("SELECT 1")
    with lock:
        held[0] += 1
        mine = held[0]
        tell(held=mine, **({"full": [before, time.time()]} if mine == S["count"] else {}))
for _ in range(S["count"]):
    threading.Thread(target=take, daemon=True).start()
while True:
    time.sleep(1)
"""


@dataclass(frozen=True)
class ExhaustPool:
    name: str = KEY
    summary: str = "a client keeps every server connection of the pool's writer in open transactions"
    needs: tuple[str, ...] = ()
    colour: str = "#d01884"
    kind: Kind = "resource"
    moves_leader: Moves = "no"
    on: tuple[On, ...] = ("pooler",)
    lasts_s: float = 20

    def lacks(self, lab: Lab, node: str) -> str:
        """Why this lab cannot perform it, "" where it can."""
        mode = next((p.mode for p in lab.topology.poolers if p.name == node), None)
        return f"{node} pools statements: it has no transactions to keep open" if mode == "statement" else ""

    def plan(self, lab: Lab, node: str) -> Instructions:
        return {"node": node_of(lab, node).name, "count": _limit(lab, node)}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        client, count = _client(lab), int(plan["count"])
        start_job(
            lab, client, KEY, _PROGRAM, _settings(lab, node, count), plan.get("deadline_s") or LONGEST_S
        )
        earliest, latest = wait_job(lab, client, KEY, "full", WITHIN_S)["full"]
        return Effect(node, earliest, latest, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The pooler says that every server connection of the database is in use."""
        node, count = str(effect.node), int(effect.heal["count"])

        def look() -> Evidence:
            rows = [
                r for r in ask(lab, node, "SHOW POOLS") if r["database"] == lab.topology.postgres.database
            ]
            active, waiting = (sum(int(row[name]) for row in rows) for name in ("sv_active", "cl_waiting"))
            how = f"{node}: {active} of {count} server connections in use, {waiting} clients wait"
            return Evidence(active >= count, how)

        return first_true(look, 10, lambda: None)

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        stop_job(lab, _client(lab), KEY)
        node = node_of(lab, str(instructions["node"]))
        if not node.state().running:
            node.start()

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:  # noqa: ARG002
        left = job_status(lab, _client(lab), KEY)
        return Evidence(
            left is None, f"the client {'still holds connections' if left else 'has let go of all'}"
        )


def _client(lab: Lab) -> str:
    return lab.topology.clients[0].name


def _limit(lab: Lab, node: str) -> int:
    for pooler in lab.topology.poolers:
        if pooler.name == node:
            return split_limit(pooler.max_server_connections, pooler.writer_share)[0]
    raise LabError(f"{node} is no pooler")


def _settings(lab: Lab, node: str, count: int) -> dict[str, Any]:
    known = document_roles(lab.topology)
    user = next((user for user in USERS if user in known), known[0])
    place = endpoints(lab.topology, lab.allocation)[f"{node}.writer"]
    sslmode = "verify-full" if lab.topology.tls.enabled else "disable"
    dsn = (
        f"host={place.host} port={place.port} dbname={place.database} user={user} sslmode={sslmode} "
        "sslrootcert=/run/secrets/ca.crt connect_timeout=10 application_name=lab-exhaust"
    )
    return {"dsn": dsn, "password": lab.secret(f"password_{user}"), "count": count}


FAULT = ExhaustPool()
