"""A lab whose constraint is known by construction: the capacity run has to name it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.up import up
from lab.experiment.capacity import CapacityPlan, run_capacity
from lab.record.reader import RecordReader
from lab.topology.models import Topology
from reports.capacity.constraint import binding
from reports.capacity.loads import loads
from reports.capacity.steps import read_run
from reports.pipeline import analyse_and_report
from tests.integration.conftest import Silent

# The engine's client leaves sockets to the garbage collector, in whatever test is running then.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def pool_of_two(state_dir: Path, small: Topology) -> Iterator[DockerLab]:
    assert state_dir
    paper = small.model_dump(mode="json")
    paper["name"] = "pool-of-two"
    paper["poolers"][0]["max_server_connections"] = 2
    name = f"it-{os.getpid()}-capacity"
    try:
        yield up(name, Topology.model_validate(paper), Silent()).lab
    finally:
        down(name)


def test_a_pool_of_two_is_named(pool_of_two: DockerLab, tmp_path: Path) -> None:
    plan = CapacityPlan(
        "risk-api", "p99<50ms, errors<1%", rate=100, users=40, step_s=5, repeats=1, precision=0.5, levels=()
    )
    path = run_capacity(pool_of_two, plan, seed=1, runs=tmp_path)
    run = read_run(RecordReader(path))

    assert any(not step.good for step in run.open)
    found = binding(loads(run))
    assert "pool" in (found.name, *(text.partition(":")[0] for text in found.also)), found
    # The rest of the report is made of the same record, and says the same.
    report = analyse_and_report(path, quiet=True).paths["html"].read_text(encoding="utf-8")
    assert f"What ends it: {found.name}" in report
