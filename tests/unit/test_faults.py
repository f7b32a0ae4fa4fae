"""Faults: injected, seen by another way, undone, and undone again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.driver import Completed
from lab.errors import LabError, UsageError
from lab.faults import Effect, faults, find
from tests.fake_lab import FakeLab


@pytest.fixture
def lab(tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


def says(text: str, code: int = 0):  # type: ignore[no-untyped-def]
    return lambda _: Completed(code, text, "")


def test_every_fault_is_complete() -> None:
    assert {"kill-node", "kill-postmaster", "none"} <= set(faults())
    for name, fault in faults().items():
        assert fault.name == name
        assert re.fullmatch(r"#[0-9a-f]{6}", fault.colour)
        assert fault.summary
        assert isinstance(fault.needs, tuple)
    with pytest.raises(UsageError, match="no fault 'kill'"):
        find("kill")


def test_kill_node(lab: FakeLab) -> None:
    fault, observer = find("kill-node"), lab.nodes["observer"]
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert (effect.wall_earliest, effect.wall_latest) == (1000.0, 1000.02)
    observer.answers["bash"] = says("")
    assert fault.verify(lab, effect).found
    # Negative controls: something still answers; the node still runs.
    observer.answers["bash"] = says("5432\n")
    evidence = fault.verify(lab, effect)
    assert not evidence.found
    assert "5432" in evidence.how
    lab.nodes["pg1"].running = True
    observer.answers["bash"] = says("")
    assert not fault.verify(lab, effect).found

    lab.nodes["pg1"].running = False
    fault.heal(lab, effect.heal)
    fault.heal(lab, effect.heal)
    assert lab.nodes["pg1"].started == 1
    observer.answers["bash"] = says("8008\n")
    assert fault.verify_healed(lab, effect.heal).found


def test_kill_postmaster(lab: FakeLab) -> None:
    fault, node = find("kill-postmaster"), lab.nodes["pg1"]
    running = "100 5000\n"

    def bash(argv: Sequence[str]) -> Completed:
        return Completed(0, "12.500000 12.500100\n" if "kill -9" in argv[2] else running, "")

    node.answers["bash"] = bash
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert (effect.wall_earliest, effect.wall_latest) == (12.5, 12.5001)
    assert node.calls[-1][-1] == "100"
    # Negative control: the same process still runs.
    assert not fault.verify(lab, effect).found
    # The same number, another process.
    running = "100 5001\n"
    assert fault.verify(lab, effect).found
    running = ""
    assert fault.verify(lab, effect).found
    with pytest.raises(LabError, match="no postmaster"):
        fault.inject(lab, "pg1", {})
    running = "120 6000\n"
    fault.heal(lab, effect.heal)
    assert node.started == 0
    assert fault.verify_healed(lab, effect.heal).found


def test_none_changes_nothing(lab: FakeLab) -> None:
    fault = find("none")
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert effect.node is None
    assert fault.verify(lab, effect).found
    fault.heal(lab, effect.heal)
    assert all(not node.calls and not node.killed for node in lab.nodes.values())


def test_a_node_that_is_not_there(lab: FakeLab) -> None:
    for name in ("kill-node", "kill-postmaster"):
        with pytest.raises(LabError, match="no node pg9"):
            find(name).plan(lab, "pg9")
        with pytest.raises(LabError, match="no node pg9"):
            find(name).heal(lab, {"node": "pg9"})
    assert isinstance(Effect("x", 0, 0, {}, {}), Effect)
