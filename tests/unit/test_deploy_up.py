"""``lab up`` where somebody else takes the networks that it has just chosen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.deploy import up as module
from lab.errors import EngineError
from lab.topology.loader import load_topology
from tests.integration.conftest import Silent

TAKEN = "Compose could not start the lab: Pool overlaps with other one on this address space"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was done, in order; ``errors`` of compose are taken from ``compose``."""
    done: list[str] = []
    lab = SimpleNamespace(expected=lambda: (), state_dir=tmp_path)
    opened: Any = lambda *_: lab  # noqa: E731
    opened.open = lambda _: lab
    for name, what in {
        "ensure_images": lambda *_, **__: {},
        "_remove_leftovers": lambda _: done.append("clean"),
        "make_allocation": lambda *_: done.append("allocate"),
        "write_project": lambda *_: tmp_path,
        "notes": lambda *_: [],
        "wait_ready": lambda *_: done.append("ready"),
        "DockerLab": opened,
    }.items():
        monkeypatch.setattr(module, name, what)
    return done


def fails(monkeypatch: pytest.MonkeyPatch, *said: str) -> None:
    left = list(said)

    def compose_up(*_: Any) -> None:
        if left:
            raise EngineError(left.pop(0))

    monkeypatch.setattr(module, "compose_up", compose_up)


def test_networks_that_another_took_meanwhile_are_chosen_anew(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, TAKEN, "Bind for 127.0.0.1:40000 failed: port is already allocated")
    reporter = Silent()
    module._make("x", load_topology("risk-dev"), reporter, 1.0)
    assert made == ["clean", "allocate"] * 3 + ["ready"]
    assert len(reporter.notes) == 2


def test_it_is_not_tried_for_ever(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, *[TAKEN] * 9)
    with pytest.raises(EngineError, match="overlaps"):
        module._make("x", load_topology("risk-dev"), Silent(), 1.0)
    assert made.count("allocate") == module.ALLOCATIONS


def test_another_failure_of_the_engine_is_told_at_once(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, "no space left on device")
    with pytest.raises(EngineError, match="no space"):
        module._make("x", load_topology("risk-dev"), Silent(), 1.0)
    assert made == ["clean", "allocate"]
