"""Bench (a): what `lab up` adds to a bare ``docker compose up`` of the same rendered project.

Both start from images that are present, and end at the same readiness: leader elected, every replica
streaming, writes acknowledged through every pool, Sentinel quorum. They alternate, since the machine drifts.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable

from lab.bench.figure import Figure
from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.endpoints import images_of
from lab.deploy.images import ensure_images
from lab.deploy.readiness import wait_ready
from lab.deploy.secrets import FILE as SECRETS
from lab.deploy.up import Silent, make_allocation, up, write_project
from lab.errors import EngineError
from lab.topology.models import Topology

RATIO_AIM = 1.2
EXTRA_AIM_S = 5.0


def lab_up(name: str, topology: Topology) -> float:
    """Seconds that `lab up` takes from nothing to ready; the lab is taken down again."""
    try:
        began = time.monotonic()
        up(name, topology, Silent())
        return time.monotonic() - began
    finally:
        down(name)


def bare_up(name: str, topology: Topology) -> float:
    """Seconds from ``docker compose up`` of the same project to the same readiness."""
    images = ensure_images(set(images_of(topology).values()), progress=lambda _name, _doing: None)
    try:
        allocation = make_allocation(name, topology, images)
        project = write_project(topology, allocation)
        began = time.monotonic()
        done = subprocess.run(
            ["docker", "compose", "--env-file", str(project.parent / SECRETS), "up", "--detach"],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise EngineError(f"bare docker compose up failed: {done.stderr[-400:]}")
        wait_ready(DockerLab.open(name), timeout_s=180)
        return time.monotonic() - began
    finally:
        down(name)


def run(topology: Topology, pairs: int = 3, say: Callable[[str], None] = lambda _: None) -> list[Figure]:
    """Measure both, ``pairs`` times in turn.

    Returns:
        The ratio of medians, and the difference of medians in seconds.
    """
    ours: list[float] = []
    bare: list[float] = []
    for number in range(pairs):
        say(f"up: pair {number + 1} of {pairs}, bare docker compose up")
        bare.append(bare_up("bench-bare", topology))
        say(f"up: pair {number + 1} of {pairs}, lab up")
        ours.append(lab_up("bench-lab", topology))
    ratio = statistics.median(ours) / statistics.median(bare)
    extra = statistics.median(ours) - statistics.median(bare)
    detail = {"lab_up_s": ours, "bare_s": bare}
    return [
        Figure(
            name="up.ratio",
            value=round(ratio, 3),
            unit="lab up ÷ bare docker compose up",
            aim=f"≤ {RATIO_AIM}",
            better="less",
            holds=ratio <= RATIO_AIM,
            detail=detail,
        ),
        Figure(
            name="up.extra",
            value=round(extra, 2),
            unit="s more than bare",
            aim=f"≤ {EXTRA_AIM_S:g} s",
            better="less",
            holds=extra <= EXTRA_AIM_S,
            detail=detail,
        ),
    ]
