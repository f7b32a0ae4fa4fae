"""Runs that nobody ended: an engine that goes away, a runner killed at the worst moment, a lab in use."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import EngineError, LabError
from lab.load import LoadSpec
from lab.load_run import run_load
from lab.record.reader import RecordReader
from lab.record.writer import RecordWriter
from lab.scenario import runner
from lab.scenario.journal import Journal, heal_pending, hold
from lab.scenario.loader import load_scenario
from lab.scenario.plan import make_plan
from lab.scenario.session import announce_run
from tests.fake_lab import FakeLab

GONE = "could not run: connection refused (no engine is running)"


def engine(lab: FakeLab, *, gone: bool) -> None:
    for node in lab.nodes.values():
        node.broken = gone


def run(lab: FakeLab, tmp_path: Path) -> None:
    runner.run_scenario(lab, load_scenario("kill-primary"), seed=1, runs_dir=tmp_path / "runs")


def test_an_engine_that_goes_away_ends_the_run_and_the_next_command_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = FakeLab(tmp_path)

    def middle(_session: object, journal: Journal, _progress: object) -> int:
        journal.begin("heal", fault="kill-node", instructions={"node": "pg1"}, trial=1)
        lab.nodes["pg1"].kill()
        engine(lab, gone=True)
        raise EngineError(GONE)

    monkeypatch.setattr(runner, "_run", middle)
    monkeypatch.setattr(runner, "cannot", lambda *_: "")
    with pytest.raises(EngineError, match="no engine is running"):
        run(lab, tmp_path)
    said = capsys.readouterr().err
    assert "not healed" in said.replace("\n", " ")
    assert "record of what was seen" in said.replace("\n", " ")
    (record,) = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]

    # While the engine is away, the next command says what is open, and forgets nothing.
    with pytest.raises(LabError, match=r"not healed.*pg1") as told:
        heal_pending(lab)
    assert "lab down" in str(told.value.hint)
    assert RecordReader(record).events() == []

    engine(lab, gone=False)
    healed = heal_pending(lab)
    assert healed[0] == "healed kill-node on pg1"
    assert lab.nodes["pg1"].running
    assert RecordReader(record).manifest.state == "interrupted"
    assert heal_pending(lab) == []


def test_a_runner_killed_right_after_the_record_was_made_leaves_none_that_runs(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    plan = make_plan(load_scenario("steady"), lab.topology, lab.allocation, 1)
    record, _ = runner.open_record(lab, plan, tmp_path / "runs", "", Journal(lab.state_dir))
    record.release()
    assert RecordReader(record.path).manifest.state == "running"
    assert "closed its record as interrupted" in heal_pending(lab)[0]
    assert RecordReader(record.path).manifest.state == "interrupted"


def test_the_journal_knows_of_a_record_before_it_says_that_it_runs(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    journal = Journal(lab.state_dir)

    def killed(path: Path) -> None:
        announce_run(lab, journal, path)
        assert not (path / "manifest.json").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RecordWriter.create(
            tmp_path / "runs", "s", topology="t", lab="fake", seed=1, trials_asked=1, announce=killed
        )
    (entry,) = journal.pending()
    assert Path(entry.data["record"]).parent == tmp_path / "runs"
    assert {program["part"] for program in entry.data["remote"]} == {"observer", "client"}
    assert heal_pending(lab) == ["stopped probes and load"]


def test_a_load_holds_the_lab(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    with hold(lab), pytest.raises(LabError, match="in use by another run"):
        run_load(lab, LoadSpec(duration_s=1), tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


def test_a_load_heals_what_was_left_behind_and_is_noted_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = FakeLab(tmp_path)
    Journal(lab.state_dir).begin("heal", fault="kill-node", instructions={"node": "pg1"})
    lab.nodes["pg1"].kill()
    seen: list[Any] = []

    def pretend(*_: object, **__: object) -> dict[str, Any]:
        seen.extend(Journal(lab.state_dir).pending())
        return {}

    monkeypatch.setattr("lab.load_run._run", pretend)
    run_load(lab, LoadSpec(duration_s=1), tmp_path / "runs", quiet=True)
    assert lab.nodes["pg1"].running
    assert [entry.do for entry in seen] == ["run"]
    assert Journal(lab.state_dir).pending() == []


@pytest.mark.parametrize(
    ("rounds", "mark", "kept"),
    [("", "", ["quick"]), ("5", "", ["quick", "rounds"]), ("", "slow", ["quick", "slow", "rounds"])],
)
def test_the_number_of_kill_rounds_chooses_nothing_else(
    monkeypatch: pytest.MonkeyPatch, rounds: str, mark: str, kept: list[str]
) -> None:
    conftest = importlib.import_module("tests.integration.conftest")
    monkeypatch.setenv("LAB_KILL_ROUNDS", rounds)
    monkeypatch.delenv("LAB_SLOW", raising=False)
    folder = Path(conftest.__file__).parent

    def item(name: str, file: str, slow: bool) -> Any:
        return SimpleNamespace(
            name=name, path=folder / file, add_marker=lambda _: None, get_closest_marker=lambda _: slow
        )

    items = [
        item("quick", "test_load.py", slow=False),
        item("slow", "test_faults_network.py", slow=True),
        item("rounds", "test_kill_nine.py", slow=True),
    ]
    config: Any = SimpleNamespace(
        getoption=lambda _: mark, hook=SimpleNamespace(pytest_deselected=lambda **_: None)
    )
    conftest.pytest_collection_modifyitems(config, items)
    assert [one.name for one in items] == kept
