"""The state folder: private, found again, and locked by the living only."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lab.deploy import state
from lab.deploy.allocate import sample_allocation
from lab.errors import LabError, UsageError
from lab.topology.loader import load_topology


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / ".lab"))
    return tmp_path / ".lab"


def test_topology_and_allocation_come_back_as_they_were(root: Path) -> None:
    topology = load_topology("risk-prod", ["postgres.patroni.ttl=30"])
    allocation = sample_allocation("demo", topology)
    state.save(topology, allocation)
    assert state.load_topology("demo") == topology
    assert state.load_allocation("demo") == allocation
    assert state.lab_names() == ["demo"]
    assert stat.S_IMODE((root / "demo").stat().st_mode) == 0o700


def test_a_lab_that_is_not_there_is_a_usage_error_with_a_hint() -> None:
    with pytest.raises(UsageError, match="no lab named demo") as caught:
        state.load_allocation("demo")
    assert caught.value.hint
    with pytest.raises(UsageError, match="no lab is up"):
        state.the_lab(None)


def test_a_half_made_lab_says_how_to_remove_it(root: Path) -> None:
    state.make_private(root / "demo")
    with pytest.raises(LabError) as caught:
        state.load_allocation("demo")
    assert not isinstance(caught.value, UsageError)
    assert "lab down" in str(caught.value.hint)


def test_damaged_files_are_errors_and_no_tracebacks(root: Path) -> None:
    state.make_private(root / "demo")
    (root / "demo" / "allocation.json").write_text("{")
    (root / "demo" / "topology.yaml").write_text("name: [")
    with pytest.raises(LabError, match="damaged"):
        state.load_allocation("demo")
    with pytest.raises(LabError, match="damaged"):
        state.load_topology("demo")


@pytest.mark.parametrize("name", ["", "../x", "A", "1a", "a" * 40, "a_b", "a/b", "-x"])
def test_names_that_would_not_be_safe_in_a_path_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        state.lab_dir(name)


def test_several_labs_need_a_name(root: Path) -> None:
    for name in ("one", "two"):
        state.make_private(root / name)
    with pytest.raises(UsageError, match="one, two"):
        state.the_lab(None)
    assert state.the_lab("two") == "two"


def test_a_lock_is_held_by_a_living_process_and_let_go_by_a_killed_one(root: Path) -> None:
    path = root / "demo" / "lock"
    code = (
        "import sys, time; from pathlib import Path; from lab.deploy import state\n"
        f"with state.exclusive(Path({str(path)!r}), wait_s=0, busy='x'):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert state.is_held(path)
        with (
            pytest.raises(LabError, match="somebody has it"),
            state.exclusive(path, wait_s=0, busy="somebody has it"),
        ):
            pytest.fail("the lock was taken twice")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not state.is_held(path)
        with state.exclusive(path, wait_s=0, busy="x"):
            assert state.is_held(path)
    finally:
        process.kill()
        process.communicate()


def test_removing_the_last_lab_removes_everything(root: Path) -> None:
    with state.allocation_lock():
        state.make_private(root / "demo")
        assert state.remove("demo")
        state.remove_root_if_empty()
    assert not root.exists()
    assert not state.remove("demo")
