"""Charts: what they count, and that they draw whatever a record holds or lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.record.reader import RecordReader
from lab.record.schema import NS, TABLES
from lab.record.writer import RecordWriter
from reports.analysis import analyse
from reports.charts import build, charts, style
from reports.charts.series import Grid, bin_requests, metric, rate, runs, summed
from reports.charts.waterfall import Outages, Row
from tests.synthetic import make_record, truth


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RecordReader:
    path = tmp_path_factory.mktemp("runs") / "20251009T085320Z-kill-primary"
    make_record(path, trials=2, seconds=5, window_s=30, lost=1, acknowledged_locally=2)
    return RecordReader(path)


def batch(intended: Sequence[int], done: Sequence[int | None], outcome: Sequence[str]) -> pa.RecordBatch:
    return pa.record_batch(
        {"intended": pa.array(intended), "done": pa.array(done, pa.int64()), "outcome": pa.array(outcome)}
    )


# --- series ---------------------------------------------------------------------------------------


@given(
    start=st.integers(0, 10**15),
    span=st.integers(1, 10**14),
    least=st.sampled_from([0.25, 1.0]),
)
def test_a_grid_covers_its_span_in_few_bins(start: int, span: int, least: float) -> None:
    grid = Grid.over(start, start + span, least_s=least)
    assert grid.start == start
    assert grid.end >= start + span
    assert grid.end - grid.width < start + span
    assert grid.bins <= 421
    assert grid.seconds >= least


def test_requests_are_counted_by_bin_and_class() -> None:
    rows = batch(
        [0, 100, NS, NS + 1, 2 * NS + 5, 2 * NS + 6],
        [500, NS + 100, NS + 9, None, 2 * NS + 9, 9 * NS],
        ["ok", "ok", "08006", "dropped", "ok", "ok"],
    )
    binned, zoomed = bin_requests([rows], [Grid(0, NS, 3), Grid(2 * NS, NS, 1)])
    assert binned.offered.tolist() == [2, 2, 2]
    assert binned.done.tolist() == [1, 1, 1]  # the last one ended after the last bin
    assert {name: count.tolist() for name, count in binned.failed.items()} == {
        "08006": [0, 1, 0],
        "dropped": [0, 1, 0],
    }
    assert binned.errors.tolist() == [0, 2, 0]
    assert binned.longest[0] == pytest.approx(1.0)
    assert np.isnan(binned.longest[1])
    assert zoomed.offered.tolist() == [2]
    assert zoomed.errors.tolist() == [0]


def test_percentiles_are_right_within_one_percent() -> None:
    rng = np.random.default_rng(7)
    took = (rng.lognormal(np.log(5e6), 0.8, 40_000)).astype(np.int64)
    intended = np.sort(rng.integers(0, 40 * NS, 40_000))
    rows = batch(intended.tolist(), (intended + took).tolist(), ["ok"] * len(took))
    (binned,) = bin_requests([rows], [Grid(0, NS, 40)])
    for q in (0.5, 0.95):
        position, value = binned.percentile(q)
        assert position.tolist() == list(range(40))
        exact = [np.quantile(took[(intended // NS) == i], q, method="inverted_cdf") / NS for i in range(40)]
        np.testing.assert_allclose(value, exact, rtol=0.0101)


def test_a_percentile_with_too_few_samples_beyond_it_is_left_out() -> None:
    intended = np.repeat(np.arange(40) * NS, 100)
    rows = batch(intended.tolist(), (intended + 1000).tolist(), ["ok"] * len(intended))
    (binned,) = bin_requests([rows], [Grid(0, NS, 40)])
    assert np.isfinite(binned.percentile(0.5)[1]).all()
    merged = binned.percentile(0.95)[0]
    assert len(merged) < 40  # neighbouring bins are put together
    assert not len(binned.percentile(0.99)[1])


def test_a_reset_counter_has_no_rate() -> None:
    _, per_second = rate(np.array([0, NS, 2 * NS, 4 * NS]), np.array([1.0, 3.0, 0.0, 4.0]))
    assert per_second[0] == 2.0
    assert np.isnan(per_second[1])
    assert per_second[2] == 2.0


def test_gauges_are_averaged_in_time_and_then_added() -> None:
    grid = Grid(0, NS, 2)
    first = (np.array([0, NS // 2]), np.array([2.0, 4.0]))
    total = summed([first, (np.array([1]), np.array([10.0]))], grid)
    assert total[0] == 13.0
    assert np.isnan(total[1])


def test_states_become_stretches_and_a_gap_ends_one() -> None:
    t = np.array([0, 1, 2, 3, 10, 11])
    assert runs(["a", "a", "b", "b", "b", "b"], t, gap=2) == [(0, 2, "a"), (2, 3, "b"), (10, 11, "b")]
    assert runs([], np.array([], np.int64), gap=2) == []


def test_a_metric_is_split_by_node_and_label() -> None:
    table = pa.table(
        {
            "t": [3, 1, 2],
            "node": ["a", "a", "b"],
            "metric": ["x", "x", "x"],
            "label": [None, None, "l"],
            "value": [3.0, 1.0, 2.0],
        }
    )
    found = metric(table, "x")
    assert found[("a", "")][0].tolist() == [1, 3]
    assert found[("b", "l")][1].tolist() == [2.0]
    assert metric(table, "y") == {}


# --- drawing --------------------------------------------------------------------------------------


def test_every_chart_has_its_own_id_and_says_what_it_needs() -> None:
    found = charts()
    assert {"timeline", "trials", "waterfall", "sessions", "nodes", "pool", "replication", "cpu"} <= {
        chart.id for chart in found
    }
    assert len({chart.id for chart in found}) == len(found)
    for chart in found:
        assert set(chart.needs) <= set(TABLES)


def test_every_chart_draws_a_full_record(record: RecordReader) -> None:
    drawn = build.draw_all(build.scene(record, analyse(record)))
    # This record is of a load without a cache or a Redis probe, and of before statements were tagged.
    assert [one.chart.id for one in drawn if one.why] == ["redis", "reads", "cache"]
    pictures = [picture for one in drawn for picture in one.pictures]
    assert {"trial-1", "trial-2", "waterfall", "timeline"} <= {picture.id for picture in pictures}
    ids: list[str] = []
    for picture in pictures:
        assert picture.png.startswith(b"\x89PNG")
        assert picture.svg is not None
        ET.fromstring(picture.svg)
        assert not [colour for colour in style.VARIABLES if colour in picture.svg.lower()]
        ids += re.findall(r' id="([^"]+)"', picture.svg)
    assert len(ids) == len(set(ids)), "two drawings of one page share an id"


def test_where_statements_ran_and_what_the_cache_answered(tmp_path: Path) -> None:
    writer = RecordWriter.create(tmp_path, "latency", topology="t", lab="l", seed=1, trials_asked=0)
    rows = [
        {"intended": n * NS // 10, "started": n * NS // 10, "done": n * NS // 10 + 1, "name": name,
         "endpoint": "redis1.redis", "outcome": "ok", "worker": 0}
        for n in range(200)
        for name in (("redis GET hit",) if n % 4 else ("redis GET miss", "redis SET"))
    ]  # fmt: skip
    writer.rows("requests", rows)
    writer.event("run-start", 0)
    writer.event("run-end", 20 * NS)
    nodes = [{"name": "pg1", "role": "primary"}, {"name": "pg3", "role": "replica"}]
    writer.put("topology.yaml", json.dumps({"postgres": {"nodes": nodes}}))
    tags = {"pg1": "risk-api writer", "pg3": "analytics session.reader"}
    told = {node: [{"query": f"/* {tag} */ SELECT 1", "calls": 7}] for node, tag in tags.items()}
    writer.put("statements.json", json.dumps(told))
    writer.close("closed")
    reader = RecordReader(writer.path)
    drawn = {one.chart.id: one for one in build.draw_all(build.scene(reader, analyse(reader)))}
    assert "75.0 % of 200 look-ups" in str(drawn["cache"].pictures[0].svg)
    said = str(drawn["reads"].pictures[0].svg)
    assert "pg3 (replica)" in said
    assert "of these, analytics" in said


def test_the_scene_knows_the_trials_as_they_were(record: RecordReader) -> None:
    known = truth(record.path)
    scene = build.scene(record, analyse(record))
    assert [trial.effect for trial in scene.trials] == [trial.effect for trial in known.trials]
    for drawn, true in zip(scene.trials, known.trials, strict=True):
        assert drawn.recovered == pytest.approx(true.recovered, abs=1000)
        assert [mark.kind for mark in drawn.marks] == [
            "fault-effect",
            "leader-expired",
            "leader-elected",
            "promoted",
            "pooler-connected",
            "recovered",
        ]
    assert int(scene.requests(scene.grid).offered.sum()) == known.requests


def bare(path: Path, full: RecordReader, **tables: list[dict[str, Any]]) -> RecordReader:
    """A record as a killed run leaves it: a manifest and some lines."""
    path.mkdir()
    manifest = json.loads((full.path / "manifest.json").read_text())
    manifest |= {"state": "running", "ended_wall": None, "anchor": None, "offsets": [], "predicted": {}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    for name, rows in tables.items():
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RecordReader(path)


def event(t: int, kind: str, trial: int = 0) -> dict[str, Any]:
    return {"t": t, "kind": kind, "trial": trial, "node": None, "source": "runner", "detail": "{}"}


def test_an_empty_record_gives_reasons(tmp_path: Path, record: RecordReader) -> None:
    empty = bare(tmp_path / "empty", record)
    for one in build.draw_all(build.scene(empty, analyse(empty))):
        assert one.why, one.chart.id
        assert not one.pictures


@pytest.mark.parametrize("upto", range(1, 6))
def test_a_run_killed_at_any_moment_still_draws(tmp_path: Path, record: RecordReader, upto: int) -> None:
    events = [
        event(5 * NS, "run-start"),
        event(6 * NS, "load-start"),
        event(9 * NS, "trial-start", 1),
        event(10 * NS, "fault-effect", 1),
        event(30 * NS, "promoted", 1),
    ]
    writes = [
        {"k": "i", "n": 1, "trial": 1, "endpoint": "e", "session": 1, "intended": 11 * NS, "sent": 11 * NS}
    ]
    killed = bare(tmp_path / "killed", record, events=events[:upto], writes=writes)
    drawn = {one.chart.id: one for one in build.draw_all(build.scene(killed, analyse(killed)))}
    assert drawn["timeline"].pictures
    assert bool(drawn["trials"].pictures) == (upto >= 4)
    assert drawn["waterfall"].why


def test_a_trial_without_an_outage_still_has_its_timeline(tmp_path: Path) -> None:
    path = make_record(tmp_path / "calm", trials=1, outage_s=(None,), seconds=3, window_s=10)
    calm = RecordReader(path)
    drawn = {one.chart.id: one for one in build.draw_all(build.scene(calm, analyse(calm)))}
    assert "no outage" in drawn["waterfall"].why
    assert drawn["trials"].pictures


def test_the_waterfall_says_what_has_no_length() -> None:
    from reports.charts import waterfall
    from reports.charts.scene import Scene

    outages = Outages(
        rows=(
            Row(1, 2.0, (("detect", 1.5), ("unattributed", 0.5))),
            Row(2, None, note="not recovered: more than 9 s"),
        ),
        median=2.0,
        worst=2.0,
        interval=(1.0, 3.0),
        confidence=0.95,
        limit=5.0,
    )  # fmt: skip
    scene = Scene.__new__(Scene)
    scene.outages = outages
    with style.styled():
        drawn = waterfall.draw(scene)
        assert not isinstance(drawn, str)
        drawing = drawn[0]
        text = style.svg(drawing.figure, "x")
    for said in ("2.00 s", "not recovered: more than 9 s", "detect 1.50"):
        assert said in text
    assert "95% confidence interval of the median 1.00 to 3.00 s" in drawing.caption


def test_a_label_keeps_its_digits() -> None:
    with style.styled():
        figure, axes = style.panels((1.0,))
        axes[0].set_yticks([0.0, 0.025], ["0.00000", "0.02512"])
        text = style.svg(figure, "x")
    assert ">0.02512<" in text
    assert not re.search(r"<[^>]*\d\.\d{3,}[^>]*>", text)


def test_a_name_from_the_record_cannot_break_a_drawing(tmp_path: Path, record: RecordReader) -> None:
    name = "$\\frac$ <script>alert(1)</script> & ]]>"
    rows = [
        {
            "intended": 6 * NS + i,
            "started": 6 * NS + i,
            "done": 7 * NS,
            "name": "x",
            "endpoint": "e",
            "outcome": name,
        }
        for i in range(5)
    ]
    hostile = bare(tmp_path / "hostile", record, events=[event(5 * NS, "run-start")], requests=rows)
    drawn = {one.chart.id: one for one in build.draw_all(build.scene(hostile, analyse(hostile)))}
    (picture,) = drawn["timeline"].pictures
    assert picture.svg is not None
    assert "<script" not in picture.svg
    ET.fromstring(picture.svg)
