"""A capacity run on a real lab that goes on where another ended; labs whose constraint is known beforehand.

Theirs has to name it, each time. What is served there takes time and next to no CPU (``pg_sleep``), so that a
busy machine is not what binds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.up import up
from lab.errors import UsageError
from lab.experiment.capacity import CapacityPlan, Depth, run_capacity
from lab.record.reader import RecordReader
from lab.topology.models import Topology
from reports.capacity.constraint import binding
from reports.capacity.loads import loads
from reports.capacity.steps import Run, read_run
from reports.pipeline import analyse_and_report
from tests.integration.conftest import Silent

# The engine's client leaves sockets to the garbage collector, in whatever test is running then.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SLEEP = "SELECT pg_sleep({});"


def nothing(_: Any) -> None:
    """As it is."""


@dataclass(frozen=True)
class Built:
    """A lab with one narrow place."""

    constraint: str
    sql: str
    """What a request is."""
    rate: float
    """Requests per second of the first step, which is good."""
    slo: str = "p95<400ms, errors<1%, dropped<1%"
    users: int = 40
    paper: Callable[[dict[str, Any]], None] = nothing
    """Changes the topology."""
    touch: Callable[[DockerLab], object] = nothing
    """Changes the running lab."""


def pool_of_two(paper: dict[str, Any]) -> None:
    paper["poolers"][0]["max_server_connections"] = 2


def few_connections(paper: dict[str, Any]) -> None:
    """Patroni takes 25 at the least: anything less becomes 100."""
    paper["postgres"]["parameters"] = {**paper["postgres"].get("parameters", {}), "max_connections": "25"}


BUILT = {
    # One connection for writes, 50 ms each: 20 a second.
    "pool-of-two": Built("pool", SLEEP.format(0.05), 10, paper=pool_of_two),
    # Every request locks the same row for 25 ms: less than 40 a second.
    "hot-row": Built(
        "lock",
        "BEGIN; UPDATE risk.risk_limit SET used = used + 1 WHERE limit_id = 1; SELECT pg_sleep(0.025); END;",
        20,
    ),
    # 22 connections (3 are kept for superusers), 200 ms each: 110 a second at most.
    "few-connections": Built("max_connections", SLEEP.format(0.2), 40, users=60, paper=few_connections),
    # Some 20 ms of the primary's CPU a request, of 0.2: 10 a second.
    "slow-primary": Built(
        "primary CPU",
        "SELECT sum(i) FROM generate_series(1, 100000) AS i;",
        2,
        "p50<400ms, errors<1%, dropped<1%",
        touch=lambda lab: lab.nodes["pg1"].limit_cpu(0.2),
    ),
    "capped-generator": Built(
        "generator", SLEEP.format(0.01), 100, touch=lambda lab: lab.nodes["client"].limit_cpu(0.25)
    ),
}


def measured(name: str, small: Topology, folder: Path) -> Run:
    """Bring the lab up, measure, take it down."""
    built = BUILT[name]
    workload = folder / "workload.yaml"
    workload.write_text(yaml.safe_dump({"scripts": [{"name": "request", "sql": built.sql}]}))
    paper = small.model_dump(mode="json")
    paper |= {"name": name, "workload": str(workload)}
    built.paper(paper)
    plan = CapacityPlan(
        "custom",
        built.slo,
        built.rate,
        users=built.users,
        depth=Depth(step_s=6, repeats=1, precision=0.7, levels=()),
    )
    lab = f"it-{os.getpid()}-{name}"
    try:
        made = up(lab, Topology.model_validate(paper), Silent()).lab
        built.touch(made)
        return read_run(RecordReader(run_capacity(made, plan, seed=1, runs=folder)))
    finally:
        down(lab)


def test_a_run_goes_on_with_the_steps_that_are_there(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    """The second run counts the first one's rate and level, and measures the next level only."""
    plan = CapacityPlan(
        "limit-check",
        "p50<5s, errors<10%, dropped<10%",
        rate=10,
        users=4,
        most=10,
        depth=Depth(step_s=4, repeats=1, levels=(1,), closed_s=4),
    )
    path = run_capacity(lab_risk_prod, plan, seed=1, runs=tmp_path)
    first = read_run(RecordReader(path))
    assert [step.users for step in first.closed] == [1]
    assert len(first.pace) == len(first.open)
    assert min(first.pace) > 0

    more = replace(plan, depth=replace(plan.depth, levels=(1, 2)))
    path = run_capacity(lab_risk_prod, more, seed=1, runs=tmp_path, resume=path)
    record = RecordReader(path)
    assert [row["name"] for row in record.cells()] == ["N = 2"]
    both = read_run(record)
    assert [step.users for step in both.closed] == [1, 2]
    assert [(s.rate, s.figures.requests) for s in both.open] == [
        (s.rate, s.figures.requests) for s in first.open
    ]
    report = analyse_and_report(path, quiet=True).paths["html"].read_text(encoding="utf-8")
    assert "pace, in samples that a collector takes" in report
    with pytest.raises(UsageError, match="its rate is 10"):
        run_capacity(lab_risk_prod, replace(more, rate=20), seed=1, runs=tmp_path, resume=path)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILT))
def test_the_narrow_place_is_named(name: str, state_dir: Path, small: Topology, tmp_path: Path) -> None:
    assert state_dir
    run = measured(name, small, tmp_path)
    found = binding(loads(run))
    shown = [(step.rate, step.why) for step in run.open], loads(run)

    assert any(not step.good for step in run.open), shown
    assert found.name == BUILT[name].constraint, (found, *shown)
    assert found.lower_bound == (found.name == "generator")
    # The report is made of the same record, and says the same.
    report = analyse_and_report(run.record.path, quiet=True).paths["html"].read_text(encoding="utf-8")
    assert f"What ends it: {found.name}" in report
