"""Clients without pooler or router: a connection string over several database nodes finds the new primary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.up import up
from lab.record.reader import RecordReader
from lab.scenario.loader import load_scenario
from lab.scenario.runner import run_scenario
from lab.topology.loader import load_topology
from lab.topology.models import Topology
from reports.analysis import analyse
from tests.integration.conftest import Silent

# The engine's client leaves sockets to the garbage collector, in whatever test is running then.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def lab(state_dir: Path) -> Iterator[DockerLab]:
    """A primary and a synchronous standby that clients can reach themselves."""
    assert state_dir
    paper = load_topology("risk-prod", ["direct_access=true"]).model_dump(mode="json")
    paper["postgres"]["nodes"] = paper["postgres"]["nodes"][:2]
    paper["poolers"] = paper["poolers"][:1]
    paper["cache"] = paper["proxy"] = None
    paper["links"] = []
    name = f"it-{os.getpid()}-hosts"
    try:
        yield up(name, Topology.model_validate(paper), Silent(), timeout_s=300).lab
    finally:
        down(name)


def test_clients_find_the_new_primary_by_themselves(lab: DockerLab, tmp_path: Path) -> None:
    fields = [
        "settle=3",
        "trials=1",
        "settle_within=120",
        "load.rate=20",
        "load.pool=multi-host",
        "load.workload=web",
    ]
    done = run_scenario(lab, load_scenario("kill-primary", fields), seed=3, runs_dir=tmp_path / "runs")
    record = RecordReader(done.path)
    assert record.manifest.state == "closed"
    (trial,) = analyse(done.path).trials
    assert not trial.void, trial.void
    assert (trial.target, trial.new_primary) == ("pg1", "pg2")
    assert trial.ledger.complete, trial.ledger.why
    assert trial.ledger.lost == trial.ledger.phantom == trial.ledger.duplicate == 0
    writes = record.frame("writes", ["endpoint", "outcome", "server", "fresh"])
    good = writes[writes.outcome == "acknowledged"]
    assert set(writes.endpoint) == {"multi-host.write"}
    # Sessions that lasted and new ones, before and after.
    assert set(good.server) == {"pg1", "pg2"}
    assert set(good[good.server == "pg2"].fresh) == {True, False}
    requests = record.frame("requests", ["endpoint"])
    # The load only reads.
    assert set(requests.endpoint) == {"multi-host.read"}
