"""A full disk on a real lab: PostgreSQL cannot write, nothing acknowledged is lost, and it ends."""

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
    """Databases with file systems of their own."""
    assert state_dir
    name = f"it-{os.getpid()}-disk"
    try:
        yield up(name, load_topology("clinical-prod", ["postgres.disk_gib=2"]), Silent(), timeout_s=300).lab
    finally:
        down(name)


def test_a_full_disk_stops_writes_and_loses_none(lab: DockerLab, tmp_path: Path) -> None:
    fields = ["settle=3", "trials=1", "settle_within=120", "load.rate=20", "load.workload=bank"]
    done = run_scenario(lab, load_scenario("disk-full", fields), seed=3, runs_dir=tmp_path / "runs")
    record = RecordReader(done.path)
    assert record.manifest.state == "closed"
    assert record.manifest.not_run is None
    (trial,) = analyse(done.path).trials
    assert not trial.void, trial.void
    assert trial.verified
    assert trial.ledger.complete, trial.ledger.why
    assert trial.ledger.lost == trial.ledger.phantom == trial.ledger.duplicate == 0
    # Whoever could not write was told so, or led no more: the disk really was full.
    assert trial.write.state == "recovered"
    assert {event["kind"] for event in record.events()} >= {"fault-verified", "heal-verified", "redundant"}
