"""Many runs as one table: every cell against records with a known truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import cli
from lab.errors import Exit
from reports import overview
from tests.synthetic import make_record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_record(folder / "good", trials=3, outage_s=(20.1, 21.4, 19.8), request_rate=20)
    make_record(
        folder / "lossy", trials=1, outage_s=(None,), lost=4, request_rate=20,
        scenario="kill-postmaster", fault_effective=False,
    )  # fmt: skip
    return folder


def test_a_line_says_what_the_record_says(runs: Path) -> None:
    good, _ = overview.line(runs / "good")
    assert (good.scenario, good.trials, good.invalid, good.lost) == ("kill-primary", 3, 0, 0)
    assert good.rto_median == pytest.approx(20.1, abs=0.1)
    assert good.rto_worst == pytest.approx(21.4, abs=0.1)
    assert good.verdicts["met"] > 0
    assert good.injected == good.verified == 3
    assert overview.cells(good)[3].startswith("20.1")
    assert good.longest == pytest.approx(21.4, abs=0.2)

    bad, _ = overview.line(runs / "lossy")
    assert (bad.trials, bad.invalid) == (0, 1)
    assert bad.exit_code != 0
    assert bad.verified < bad.injected or bad.injected == 0
    assert "trial" in overview.notes([bad])[0] or "fault" in overview.notes([bad])[0]
    assert overview.cells(bad)[3] == "–"


def test_the_report_of_a_run_is_believed_only_where_it_can_be_read(runs: Path) -> None:
    before = overview.line(runs / "good")[0]
    (runs / "good/report").mkdir()
    (runs / "good/report/report.json").write_text('{"analysis": {"run": 1}}')
    assert overview.line(runs / "good")[0] == before


def test_the_newest_of_a_scenario_speaks(tmp_path: Path) -> None:
    states = {"a": "closed", "b": "closed", "c": "running", "d": "interrupted"}
    for day, (name, state) in enumerate(states.items(), 2):
        make_record(tmp_path / name, trials=0, request_rate=20)
        change(tmp_path / name, started_wall=f"2026-01-0{day}T00:00:00.000+00:00", state=state)
    assert overview.newest(tmp_path / name for name in "dacb") == [tmp_path / "b"]
    # One that was interrupted speaks where no other does.
    assert overview.newest([tmp_path / "d"]) == [tmp_path / "d"]


def change(record: Path, **fields: Any) -> None:
    file = record / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_what_stands_above_the_table_is_said_once(tmp_path: Path) -> None:
    for name, fields in (("rate", {"load": {"workload": "risk-api", "rate": 40}}), ("mute", {"machine": {}})):
        make_record(tmp_path / name, trials=0, request_rate=20)
        change(tmp_path / name, **fields)
    found = overview.setting([overview.line(path)[1] for path in (tmp_path / "rate", tmp_path / "mute")])
    assert len(found.machines) == 1
    assert "?" not in found.machines[0]
    (load,) = found.loads
    assert load.startswith("risk-api at ")
    assert " and 40 requests/s" in load or " at 40 and " in load


def test_the_command(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / ".lab"))
    file = tmp_path / "table.md"
    assert cli.run(["summary", "--runs", str(runs), "--markdown", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["scenario"] for one in document["runs"]] == ["kill-postmaster", "kill-primary"]
    lines = file.read_text().splitlines()
    assert "scale factor" in lines[0]
    assert sum(line.startswith("| kill-") for line in lines) == 2
    assert cli.run(["summary", "good", "--runs", str(runs)]) == 0
    said = capsys.readouterr().out
    assert "kill-primary" in said
    assert "kill-postmaster" not in said
    assert cli.run(["summary", "--runs", str(tmp_path / "none")]) == Exit.USAGE
    assert "no run record" in capsys.readouterr().err
