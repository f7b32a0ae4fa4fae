"""What a connection that nobody uses costs: memory of the server's backends and of the pooler.

PSS (proportional set size, ``/proc/<pid>/smaps_rollup``) shares what processes have in common among them, so
that shared buffers do not count once a backend. The pooler is a fresh one: one that has served clients before
keeps the memory that it had for them, and new ones cost it nothing.
"""

from __future__ import annotations

from typing import Any

from lab.deploy.allocation import Endpoint
from lab.deploy.endpoints import endpoints
from lab.experiment.bouncer import Bouncer, Settings, bouncer
from lab.experiment.core import Cell, Experiment
from lab.faults._jobs import start_job, stop_job, wait_job

KEY = "lab-idle"
USER = "app_readwrite"
LONGEST_S = 120
STATEMENT = "SELECT count(*) FROM risk.risk_limit WHERE portfolio_id = 1"

_HOLD = """
import psycopg
links = []
for n in range(S["count"]):
    link = psycopg.connect(S["dsn"], password=S["password"], autocommit=True, prepare_threshold=None)
    link.execute(S["statement"])
    links.append(link)
tell(held=len(links))
while True: time.sleep(1)
"""

# $1: what the command line of a process must hold. Prints how many there are, and the sum of their PSS (KiB).
_PSS = """
n=0; sum=0
for d in /proc/[0-9]*; do
  case $(tr '\\0' ' ' < "$d/cmdline" 2>/dev/null) in
    bash*) ;;
    *"$1"*)
      kib=$(awk '/^Pss:/ {print $2}' "$d/smaps_rollup" 2>/dev/null)
      [ -n "$kib" ] && n=$((n + 1)) && sum=$((sum + kib));;
  esac
done
echo "$n $sum"
"""


def idle_memory(run: Experiment, pool: str, primary: str, count: int, repeat: int) -> None:
    """Two cells: ``count`` clients that have run one statement and idle, direct and through a fresh pooler.

    Args:
        pool: node of the pooler that the fresh one is like, and beside.
        primary: node whose backends are looked at.
    """
    places = endpoints(run.lab.topology, run.lab.allocation)
    direct, pooled = places[f"{primary}.direct"], places[f"{pool}.writer"]
    with bouncer(run, pool, "idle", Settings("transaction"), LONGEST_S) as fresh:
        for way, place, port in (("direct", direct, direct.port), ("pooled", pooled, fresh.port)):
            with run.cell(f"idle-memory/{way}", repeat=repeat, count=count, pool=pool) as cell:
                _hold(run, cell, place, port, count, primary, fresh)


def _hold(
    run: Experiment, cell: Cell, place: Endpoint, port: int, count: int, primary: str, fresh: Bouncer
) -> None:
    lab, client = run.lab, run.session.client.name
    before = pss(run, primary, fresh)
    sslmode = "verify-full" if lab.topology.tls.enabled else "disable"
    dsn = (
        f"host={place.host} port={port} dbname={place.database} user={USER} sslmode={sslmode} "
        "sslrootcert=/run/secrets/ca.crt connect_timeout=10 application_name=lab-idle"
    )
    settings = {
        "dsn": dsn,
        "password": lab.secret(f"password_{USER}"),
        "count": count,
        "statement": STATEMENT,
    }
    start_job(lab, client, KEY, _HOLD, settings, LONGEST_S)
    try:
        wait_job(lab, client, KEY, "held", 90)
        after = pss(run, primary, fresh)
    finally:
        stop_job(lab, client, KEY)
    cell.result.update(before=before, after=after)


def pss(run: Experiment, primary: str, pooler: Bouncer) -> dict[str, Any]:
    """Backends of the role on the primary, and the pooler's process: how many, and their PSS in bytes."""
    found: dict[str, Any] = {}
    ini = f"{pooler.folder}/pgbouncer.ini"
    for name, node, words in (("backends", primary, f" {USER} "), ("pooler", pooler.node, ini)):
        # As their own user: what is root here may not look into the memory of others' processes.
        said = run.lab.nodes[node].run(["bash", "-c", _PSS, "bash", words], user="postgres").stdout.split()
        found[name] = {"count": int(said[0]), "pss_bytes": int(said[1]) * 1024}
    return found
