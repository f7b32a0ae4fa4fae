"""The load generator's own ceiling for a workload, measured on the lab it will load."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace

from lab.driver import Lab
from lab.errors import LabError
from lab.load import LoadSpec, start_load
from lab.scenario.models import Load

SECONDS = 5.0
FILE = "generator.json"
"""Of the run record; what `reports/checks/generator.py` reads."""
SCENARIO = "latency"
"""The scenario whose load is held against the ceiling."""


@dataclass(frozen=True)
class Ceiling:
    """How much of a workload the generator could send at most.

    ``per_s`` = requests ÷ the generator's CPU seconds × its processes, in a closed loop: one process uses one
    core at most, whatever the databases do. ``reached_per_s`` is what the closed loop came to, with databases
    and generator on one machine; it is lower where they were the limit.
    """

    per_s: float
    reached_per_s: float
    cpu_ms_per_request: float
    requests: int


def measure(lab: Lab, spec: LoadSpec, seconds: float = SECONDS) -> Ceiling:
    """Send the workload in a closed loop for so long. LabError where the load fails or sends nothing."""
    closed = replace(spec, arrivals="closed", duration_s=seconds, deadline_s=seconds + 60, ui=False)
    handle = start_load(lab, closed, f"ceiling-{time.time_ns()}")
    try:
        result = handle.wait(seconds + 60)
    finally:
        handle.stop()
    served, cpu = int(result.detail["served"]), float(result.detail["cpu_seconds"])
    if not served or not cpu:
        raise LabError("the load generator's ceiling could not be measured: no request came through")
    return Ceiling(
        per_s=served / cpu * spec.workers,
        reached_per_s=served / result.detail["seconds"],
        cpu_ms_per_request=1000 * cpu / served,
        requests=served,
    )


def file_for(lab: Lab, load: Load, seed: int) -> dict[str, str]:
    """Measure the ceiling for a scenario's load, as a file of its run record (name → text)."""
    spec = LoadSpec(
        workload=load.workload,
        users=load.users,
        pool=load.pool,
        workers=load.workers,
        seed=seed,
        cache=load.cache,
        clock=load.clock,
    )
    return {FILE: json.dumps(asdict(measure(lab, spec)), indent=1)}
