"""``pool-size``: which pool is large enough, and no larger.

A further PgBouncer per size serves an open-loop load at each rate; the lab's own poolers stay as they are, so
that there is nothing to restore. Cells of one repeat come in an order drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.deploy.parameters import max_connections
from lab.driver import Lab
from lab.errors import UsageError
from lab.experiment.bouncer import Settings, bouncer
from lab.experiment.core import experiment
from lab.experiment.jobs import Job, Kind
from lab.experiment.pooling import CELL_OVERHEAD_S, stats
from lab.load import LoadSpec, workload_for
from lab.scenario.progress import Progress
from lab.topology.models import Topology

NAME = "pool-size"
SIZES = (1, 2, 4, 8, 16, 32)
RATES = (100.0, 200.0, 400.0)
RESERVE = 150
"""Connections that no pool may have: batch jobs, probes, collectors, people, Patroni, superuser."""


def run_sizing(
    lab: Lab,
    *,
    mode: str = "transaction",
    sizes: Sequence[int] = SIZES,
    rates: Sequence[float] = RATES,
    workload: str = "trade-booking",
    clients: int = 100,
    latency_ms: float = 100.0,
    repeats: int = 3,
    seconds: float = 8.0,
    seed: int,
    runs_dir: Path = Path("runs"),
    command: str = "",
    progress: Progress | None = None,
) -> Path:
    """Sweep sizes against offered rates; the path of the record.

    Args:
        latency_ms: the 99th percentile of the response time that a size must hold.
        clients: how many transactions can be under way or wait at once.

    Raises:
        UsageError: the lab has no pooler of that mode, or a size is beyond its limit.
        LabError: it could not be run.
    """
    topology = lab.topology
    pooler = next((p for p in topology.poolers if p.mode == mode), None)
    if pooler is None:
        known = ", ".join(p.mode for p in topology.poolers) or "none"
        raise UsageError(f"topology {topology.name} has no {mode} pool", hint=f"It has: {known}.")
    if max(sizes) > budget(topology):
        raise UsageError(
            f"a pool of {max(sizes)} is beyond the connection budget of {budget(topology)}",
            hint="sizes must leave room for the other pools and the reserve: max_connections − reserve",
        )
    told = progress or Progress()
    count = len(sizes) * len(rates) * repeats
    told.say(f"{len(sizes)} sizes × {len(rates)} rates × {repeats} repeats")
    length = count * (seconds + 9)
    told.say(f"about {length / 60:.0f} min")
    with experiment(
        lab,
        NAME,
        title="How large the pool has to be",
        claim="The smallest pool that holds the latency at a rate; a larger one only costs connections.",
        seed=seed,
        deadline_s=3 * length + 300,
        runs_dir=runs_dir,
        command=command,
        progress=told,
    ) as run:
        for repeat in range(1, repeats + 1):
            cells = [(size, rate) for size in sizes for rate in rates]
            run.rng.shuffle(cells)
            for size, rate in cells:
                settings = Settings(mode=mode, pool_size=size)
                name = f"{mode} {size} at {rate:g}/s"
                given = {
                    "mode": mode, "pooler": pooler.name, "size": size, "rate": rate, "workload": workload,
                    "clients": clients, "latency_ms": latency_ms, "seconds": seconds,
                    "max_connections": budget(topology) + RESERVE, "reserve": RESERVE,
                    "others": sum(
                        p.max_server_connections for p in topology.poolers if p.name != pooler.name
                    ),
                    "instance_class": topology.postgres.nodes[0].instance_class,
                }  # fmt: skip
                with (
                    bouncer(run, pooler.name, f"size-{size}", settings, seconds + 120) as other,
                    run.cell(name, repeat=repeat, **given) as cell,
                ):
                    before = stats(lab, pooler.name, other.port)
                    spec = LoadSpec(
                        workload=workload, rate=rate, users=clients, duration_s=seconds, pool=pooler.name,
                        port=other.port, room=size, seed=seed + repeat, drop_after_s=2.0,
                    )  # fmt: skip
                    run.load(cell, spec)
                    after = stats(lab, pooler.name, other.port)
                    cell.result["pooler"] = {key: after[key] - before.get(key, 0) for key in after}
        return run.record.path


def budget(topology: Topology) -> int:
    """Server connections that all pools together may hold: max_connections − reserve."""
    return max_connections(topology) - RESERVE


def _job(topology: Topology, quick: bool) -> Job:
    if not any(pooler.mode == "transaction" for pooler in topology.poolers):
        raise UsageError(f"topology {topology.name} has no transaction pool")
    settings: dict[str, Any] = {"workload": "trade-booking"}
    workload_for(topology, settings["workload"])
    if quick:
        settings |= {"sizes": [1, 4, 16], "rates": [100.0, 200.0], "repeats": 1, "seconds": 6.0}
    sizes, rates = settings.get("sizes", SIZES), settings.get("rates", RATES)
    repeats, seconds = settings.get("repeats", 3), settings.get("seconds", 8.0)
    return Job(
        name=NAME,
        settings=settings,
        trials=repeats,
        estimate_s=len(sizes) * len(rates) * repeats * (seconds + CELL_OVERHEAD_S) + 20,
    )


def _run_job(lab: Lab, settings: Mapping[str, Any], **how: Any) -> Path:
    return run_sizing(lab, **settings, **how)


JOB = Kind(NAME, _job, _run_job)
