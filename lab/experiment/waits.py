"""What a pooler does with those who idle and those who wait: two timeouts, tried on a scaled clock."""

from __future__ import annotations

import time
from typing import Any

from lab.deploy.endpoints import endpoints
from lab.experiment.bouncer import Settings, bouncer
from lab.experiment.core import Experiment
from lab.faults._jobs import start_job, stop_job, wait_job
from lab.topology.models import Topology

KEY = "lab-waits"
DATABASE = "waits"
FACTOR = 60.0
"""Every duration of the promise divided by it: 300 s become 5 s."""
WAIT_S = 2.0
POLL_S = 0.1

_IDLE = """
import psycopg
link = psycopg.connect(S["dsn"], password=S["password"], autocommit=True, prepare_threshold=None)
link.execute("SELECT 1")
link.close()
tell(used=time.time())
while True: time.sleep(1)
"""

_WAIT = """
import psycopg
def link():
    return psycopg.connect(S["dsn"], password=S["password"], autocommit=False, prepare_threshold=None)
holder, waiter = link(), link()
holder.execute("SELECT 1")
begin = time.monotonic()
try:
    waiter.execute("SELECT 1")
    said = "served"
except psycopg.Error as error:
    said = str(error).strip().splitlines()[0]
tell(waited=time.monotonic() - begin, said=said)
while True: time.sleep(1)
"""


def idle_timeout(run: Experiment, node: str, repeat: int) -> None:
    """A cell: for how long a server connection that nobody uses is kept; promise and clock scaled alike."""
    timeout = _promised(run.lab.topology, node)
    scaled = timeout / FACTOR
    values = {"server_idle_timeout": f"{scaled:g}"}
    settings = Settings(mode="transaction", databases={DATABASE: 2}, values=values)
    with (
        bouncer(run, node, "idle", settings, scaled + 60) as pooler,
        run.cell("idle-timeout", repeat=repeat, node=node, timeout_s=timeout, factor=FACTOR) as cell,
    ):
        client = run.session.client.name
        start_job(run.lab, client, KEY, _IDLE, _settings(run, node, pooler.port), scaled + 60)
        try:
            wait_job(run.lab, client, KEY, "used", 20)
            since = time.monotonic()
            seen = last = 0.0
            while time.monotonic() - since < 3 * scaled + 5:
                if pooler.ask("SHOW SERVERS"):
                    seen = time.monotonic() - since
                else:
                    last = time.monotonic() - since
                    break
                time.sleep(POLL_S)
        finally:
            stop_job(run.lab, client, KEY)
        cell.result.update(open_until_s=seen, gone_at_s=last or None)


def query_wait(run: Experiment, node: str, repeat: int) -> None:
    """A cell: for how long a client waits for a server connection before it is told."""
    values = {"query_wait_timeout": f"{WAIT_S:g}"}
    settings = Settings(mode="transaction", databases={DATABASE: 1}, values=values)
    with (
        bouncer(run, node, "wait", settings, 60) as pooler,
        run.cell("query-wait-timeout", repeat=repeat, node=node, timeout_s=WAIT_S) as cell,
    ):
        client = run.session.client.name
        start_job(run.lab, client, KEY, _WAIT, _settings(run, node, pooler.port), 60)
        try:
            said = wait_job(run.lab, client, KEY, "waited", WAIT_S + 25)
        finally:
            stop_job(run.lab, client, KEY)
        cell.result.update(waited_s=said["waited"], said=said["said"])


def _promised(topology: Topology, node: str) -> float:
    return next(float(p.server_idle_timeout) for p in topology.poolers if p.name == node)


def _settings(run: Experiment, node: str, port: int) -> dict[str, Any]:
    place = endpoints(run.lab.topology, run.lab.allocation)[f"{node}.writer"]
    sslmode = "verify-full" if run.lab.topology.tls.enabled else "disable"
    user = "app_readwrite"
    dsn = (
        f"host={place.host} port={port} dbname={DATABASE} user={user} sslmode={sslmode} "
        "sslrootcert=/run/secrets/ca.crt connect_timeout=10 application_name=lab-waits"
    )
    return {"dsn": dsn, "password": run.lab.secret(f"password_{user}")}
