"""A real ``risk-prod`` for the whole session, under a name of its own, taken down whatever happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.engine import forget_client
from lab.deploy.readiness import Check
from lab.deploy.up import up
from lab.topology.loader import load_topology
from lab.topology.models import Topology


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything in this folder needs an engine; what is slow is left to the nightly set.

    ``-m slow``, or ``LAB_SLOW=1`` in the environment, chooses it.
    """
    chosen = "slow" in str(config.getoption("markexpr")) or os.environ.get("LAB_SLOW") == "1"
    left_out = []
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            # The number of rounds chooses the rounds, and nothing else that is slow.
            rounds = item.path.name == "test_kill_nine.py" and bool(os.environ.get("LAB_KILL_ROUNDS"))
            if item.get_closest_marker("slow") and not chosen and not rounds:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


class Silent:
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []
        self.checks: list[Check] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def image(self, name: str, doing: str) -> None:
        pass

    def plan(self, nodes: list[str]) -> None:
        pass

    def node(self, name: str, state: str) -> None:
        pass

    def check(self, check: Check) -> None:
        self.checks.append(check)


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of the session's own, so that the user's labs stay out of it."""
    before = os.environ.get("LAB_STATE_DIR")
    folder = tmp_path_factory.mktemp("state") / ".lab"
    os.environ["LAB_STATE_DIR"] = str(folder)
    yield folder
    forget_client()
    if before is None:
        del os.environ["LAB_STATE_DIR"]
    else:
        os.environ["LAB_STATE_DIR"] = before


@pytest.fixture(scope="session")
def lab_risk_prod(state_dir: Path) -> Iterator[DockerLab]:
    """``risk-prod``, ready."""
    assert state_dir
    name = f"it-{os.getpid()}"
    try:
        yield up(name, load_topology("risk-prod"), Silent(), timeout_s=300).lab
    finally:
        down(name)


@pytest.fixture(scope="session")
def small() -> Topology:
    """The smallest topology that has a leader, a router and a pool: for tests that bring labs up and down."""
    paper = load_topology("risk-prod").model_dump(mode="json")
    paper["name"] = "small"
    paper["postgres"]["nodes"] = paper["postgres"]["nodes"][:1]
    paper["postgres"]["synchronous"] = "off"
    paper["etcd"] = paper["etcd"][:1]
    paper["poolers"] = paper["poolers"][:1]
    paper["cache"] = paper["proxy"] = None
    paper["links"] = []
    return Topology.model_validate(paper)
