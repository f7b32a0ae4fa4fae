"""The record of an experiment, and its way into the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from lab.deploy.allocate import sample_allocation
from lab.experiment.core import QUIET, plan_on
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from lab.topology.loader import list_topologies, load_topology
from reports import pipeline
from reports.charts.scene import Drawing
from reports.experiments import Experiment, Outcome, Section, Table, experiments
from reports.findings import Finding


@pytest.fixture
def record(tmp_path: Path) -> Iterator[RecordWriter]:
    writer = RecordWriter.create(
        tmp_path, "trying", topology="risk-prod", lab="x", seed=1, trials_asked=0, command="lab trying"
    )
    writer.event("run-start", 0)
    for number in (2, 1):
        row = {
            "cell": number,
            "name": "direct",
            "repeat": number,
            "begin": number * NS,
            "end": (number + 1) * NS,
            "parameters": '{"clients": 20}',
            "result": None if number == 1 else '{"per_s": 7}',
        }
        writer.rows("cells", [row])
    writer.event("run-end", 4 * NS)
    yield writer
    writer.release()


@pytest.mark.parametrize("closed", [True, False])
def test_cells_come_back_in_their_order(record: RecordWriter, *, closed: bool) -> None:
    if closed:
        record.close()
    cells = RecordReader(record.path).cells()
    assert [cell["cell"] for cell in cells] == [1, 2]
    assert cells[0]["parameters"] == {"clients": 20}
    assert [cell["result"] for cell in cells] == [{}, {"per_s": 7}]


def trying(record: RecordReader) -> Outcome:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    section = Section(
        "which",
        "Which <one>?",
        ("Take the second.",),
        (Drawing("rates", "Rates.", figure),),
        (Table(("mode", "per s"), (("a & b", "7"),), frozenset({1}), "a note", (("", "bad"),)),),
        ("cells.parquet",),
    )
    found = Finding(metric="pool.wait", unit="ms", value=float(len(record.cells())))
    return Outcome((found,), "The second is best.", (), (section,))


def test_a_report_shows_what_the_experiment_found(
    record: RecordWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pipeline, "experiments", lambda: {"trying": Experiment("trying", ("pool.wait",), trying)}
    )
    record.close()
    done = pipeline.analyse_and_report(record.path, quiet=True)
    page = done.paths["html"].read_text(encoding="utf-8")
    for said in ("The second is best.", "Which &lt;one&gt;?", "a &amp; b", "<svg", "Take the second."):
        assert said in page
    assert (done.paths["charts"] / "rates.png").stat().st_size > 0
    # Its own finding takes the place of the one that the check of the whole run makes.
    assert '"pool.wait"' in done.paths["json"].read_text(encoding="utf-8")
    assert "Not drawn" not in page
    text = done.paths["markdown"].read_text(encoding="utf-8")
    assert "| a &amp; b | 7 |" in text
    assert "Take the second." in text


def test_every_experiment_is_found_by_its_name() -> None:
    assert all(name == one.name for name, one in experiments().items())


@pytest.mark.parametrize("name", list_topologies())
def test_an_experiment_can_be_planned_on_every_topology(name: str) -> None:
    topology = load_topology(name)
    lab: Any = SimpleNamespace(topology=topology, allocation=sample_allocation("x", topology))
    plan = plan_on(lab, "capacity", "Capacity", "How much?", None, 1)
    assert not plan.not_run
    assert not plan.scenario.faults


def test_no_probe_writes_or_reads_beside_an_experiment() -> None:
    intervals = {name: value for name, value in vars(QUIET).items() if name.endswith("_interval_s")}
    assert intervals.pop("collector_interval_s") > 0
    assert intervals
    assert not any(intervals.values()), intervals
