"""The report of a run: every verdict and figure is in it, nothing from the record can break it."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from lab import cli
from lab.errors import Exit, LabError, RecordError
from reports import pipeline, view
from reports.analysis import Analysis
from reports.charts import build, charts
from reports.findings import Finding, Status, Target, Verdict
from reports.junit import clean, junit
from reports.markdown import safe
from reports.pipeline import Report, analyse_and_report
from reports.terminal import verdict_table
from tests.synthetic import make_record

HOSTILE = "</script><script>alert(1)</script> \"'&<b> | `x` **y** \x00\x1b[31m @someone"


def verdict(status: Status, *, value: float | None = 21.4, why: str = "because", **fields: object) -> Verdict:
    target = {
        "id": f"T.{status}",
        "quote": "**Promise** of a document:",
        "place": "section 4",
        "metric": "rto.write",
        "comparison": "<",
        "limit": 300.0,
        "unit": "s",
        "stand_in": "Patroni for RDS Multi-AZ",
    } | fields
    finding = Finding(metric="rto.write", unit="s", value=value, samples=(20.1, 21.4), detail={"trials": 2})
    return Verdict(target=Target.model_validate(target), status=status, why=why, finding=finding)


ALL: tuple[Status, ...] = ("met", "not met", "inconclusive", "not run", "invalid")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "20251009T085320Z-kill-primary"
    return make_record(path, seconds=10, window_s=40, lost=2, phantom=1, unknown_present=3, duplicates=1)


@pytest.fixture(scope="module")
def done(run: Path) -> Report:
    return analyse_and_report(run, quiet=True)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The record, to be spoilt."""
    path = tmp_path / "20251009T085320Z-copy"
    shutil.copytree(run, path, ignore=shutil.ignore_patterns("report"))
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No charts: they take seconds, and have their own tests."""
    monkeypatch.setattr(
        build, "draw_all", lambda _: [build.Drawn(chart, why="not asked for") for chart in charts()]
    )


class Page(HTMLParser):
    """Text, links and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self._skip = 0
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.said))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._skip += tag == "style"
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        self._skip -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.said.append(data)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_every_verdict_and_figure(done: Report) -> None:
    page = Page(done.paths["html"].read_text(encoding="utf-8"))
    assert len(done.verdicts) >= 8
    for one in done.verdicts:
        assert view.quote(one.target) in page.text
        assert view.measured(one) in page.text
        assert view.limit(one) in page.text
        assert one.target.place in page.text
    assert view.answer(done.verdicts)[0] in page.text
    for figure in ("20.10", "21.40", "19.80"):  # the outages that the record was made with
        assert figure in page.text
    analysis = json.loads(done.paths["json"].read_text())["analysis"]
    assert analysis["ledger"]["lost"] == 6
    assert f"6 of {analysis['ledger']['acknowledged']:,} acknowledged writes were lost" in page.text
    for word in ("Patroni for RDS Multi-AZ", "PostgreSQL 14 → 15", "detect", "reconnect", "seed"):
        assert word in page.text
    assert done.exit_code == Exit.NOT_MET


def test_the_page_opens_offline_and_links_to_evidence_that_exists(done: Report) -> None:
    text = done.paths["html"].read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.findall(r"url\(\s*['\"]?https?:", text)
    evidence = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert len(evidence) > 20
    for link in evidence:
        assert "://" not in link
        assert (done.paths["html"].parent / link).exists(), link
    assert len(text) < 5_000_000


def test_every_file_of_the_report_is_there(run: Path, done: Report) -> None:
    assert done.paths["html"].parent == run / "report"
    for path in done.paths.values():
        assert path.exists()
    pictures = sorted(path.name for path in done.paths["charts"].iterdir())
    assert {"timeline.png", "waterfall.png", "trial-1.png", "trial-3.png", "pool.png"} <= set(pictures)


@pytest.mark.usefixtures("undrawn")
def test_a_report_made_again_replaces_the_old_one(run: Path, copy: Path) -> None:
    first = analyse_and_report(copy, quiet=True)
    stale = copy / "report" / "charts" / "stale.png"
    stale.write_bytes(b"")
    again = analyse_and_report(copy, quiet=True)
    assert not stale.exists()
    assert again.paths["html"].exists()
    assert again.exit_code == first.exit_code
    assert run != copy


@pytest.mark.usefixtures("undrawn")
def test_hostile_text_is_escaped_everywhere(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    hostile = HOSTILE.replace("\x00", "")
    manifest |= {"notes": [hostile], "command": hostile, "substitutions": [hostile], "lab": hostile}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "statements.json").write_text(
        json.dumps({hostile: [{"query": hostile, "calls": 1, "total_ms": 1.0, "mean_ms": 1.0, "rows": 1}]})
    )
    (copy / "scenario.yaml").write_text(json.dumps({"name": "kill-primary", "title": hostile}))
    done = analyse_and_report(copy, quiet=True)
    page = Page(done.paths["html"].read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "alert(1)" in page.text
    ET.parse(done.paths["junit"])
    assert "<script" not in done.paths["markdown"].read_text(encoding="utf-8")


# --- JUnit ----------------------------------------------------------------------------------------


def test_junit_counts_match(done: Report) -> None:
    suite = ET.parse(done.paths["junit"]).getroot().find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert len(cases) == len(done.verdicts) == int(suite.attrib["tests"])
    failed = [case for case in cases if case.find("failure") is not None]
    assert len(failed) == int(suite.attrib["failures"]) == sum(v.status == "not met" for v in done.verdicts)
    assert float(suite.attrib["time"]) == pytest.approx(
        sum(float(case.attrib["time"]) for case in cases), abs=0.01 * len(cases)
    )


def test_junit_of_every_status_and_of_hostile_text(done: Report) -> None:
    analysis = Analysis.model_validate(json.loads(done.paths["json"].read_text())["analysis"])
    verdicts = [verdict(status, why=HOSTILE, quote=HOSTILE) for status in ALL]
    root = ET.fromstring(junit(analysis, verdicts))
    cases = root.findall("testsuite/testcase")
    found = {
        case.findall("properties/property")[0].attrib["value"]: [
            tag for tag in ("failure", "skipped") if case.find(tag) is not None
        ]
        for case in cases
    }
    assert found == {
        "met": [],
        "not met": ["failure"],
        "inconclusive": ["skipped"],
        "not run": ["skipped"],
        "invalid": ["skipped"],
    }
    skipped = cases[2].find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == clean(f"inconclusive: {HOSTILE}")
    assert root.attrib["failures"] == "1"
    assert root.attrib["skipped"] == "3"


# --- Markdown -------------------------------------------------------------------------------------


def test_the_summary_is_tables_that_render(done: Report) -> None:
    text = done.paths["markdown"].read_text(encoding="utf-8")
    assert text.startswith("## kill-primary on risk-prod")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block
    assert sum("❌ not met" in row for row in rows) == sum(v.status == "not met" for v in done.verdicts)
    assert "21.40 s" in text


def test_markdown_cannot_be_broken_out_of() -> None:
    text = safe(HOSTILE + "\n| x |")
    assert "\n" not in text
    assert "<" not in text
    assert not re.search(r"(?<!\\)[|`*]", text)
    assert "@" not in text


def test_the_summary_goes_to_the_ci_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    pipeline._step_summary("after\n")
    assert step.read_text() == "before\nafter\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "absent" / "step.md"))
    pipeline._step_summary("never\n")  # a warning: the report itself is there


# --- exit codes and the terminal ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (("met", "met"), 0),
        (("met", "not met", "invalid"), 1),
        (("met", "inconclusive"), 2),
        (("not run",), 2),
        (("invalid",), 2),
        ((), 2),
    ],
)
def test_exit_codes(statuses: tuple[Status, ...], code: int) -> None:
    assert view.exit_code([verdict(status) for status in statuses]) == code


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_fits_the_terminal(width: int) -> None:
    console = Console(width=width, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as caught:
        console.print(verdict_table([verdict(status, why="a reason " * 12) for status in ALL]))
    text = caught.get()
    for status in ALL:
        assert f"{view.MARK[status]} {status}" in text
    assert max(map(len, text.splitlines())) <= width
    assert "21.40 s" in text
    assert "< 300 s" in text
    assert "Patroni for RDS Multi-AZ" in text
    assert "Of 5 promises: 1 not met" in text


def test_nothing_judged_is_not_green() -> None:
    console = Console(width=80)
    with console.capture() as caught:
        console.print(verdict_table([]))
    assert "Nothing was judged" in caught.get()


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (21.4, "s", "21.40 s"),
        (43.0000000001, "s", "43 s"),
        (0.0828, "s", "0.0828 s"),
        (0.0, "rows", "0 rows"),
        (12345.0, "rows", "12,345 rows"),
        (99.6, "%", "99.6 %"),
        (60.0, "1", "60"),
        (None, "s", "–"),
        (float("nan"), "s", "–"),
    ],
)
def test_figures_as_text(value: float | None, unit: str, said: str) -> None:
    assert view.figure(value, unit) == said


@pytest.mark.usefixtures("undrawn")
def test_one_trial_is_inconclusive(tmp_path: Path) -> None:
    path = make_record(tmp_path / "one", trials=1, seconds=5, window_s=40)
    done = analyse_and_report(path, quiet=True)
    status = {v.target.metric: v.status for v in done.verdicts}
    assert status["rto.write"] == "inconclusive"
    assert done.exit_code == Exit.UNDECIDED


@pytest.mark.usefixtures("undrawn")
def test_a_kill_does_not_prove_that_nothing_can_be_lost(tmp_path: Path) -> None:
    done = analyse_and_report(make_record(tmp_path / "good", seconds=20, window_s=40), quiet=True)
    # The synthetic record has no topology, by which the nodes with statements are counted.
    open_ones = {v.target.metric: v.status for v in done.verdicts if v.status != "met"}
    assert open_ones == {"rpo.rows": "inconclusive", "statements.nodes": "not run"}
    assert done.exit_code == Exit.UNDECIDED


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("tables", [{}, {"events": '{"t": 1, "kind": "run-start"}\n{"t": 2, "ki'}])
def test_a_killed_run_has_a_report(copy: Path, tmp_path: Path, tables: dict[str, str]) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest |= {"state": "running", "ended_wall": None, "anchor": None, "offsets": [], "trials_done": 0}
    manifest |= {
        "load": None,
        "window_s": None,
        "scale": None,
        "machine": {},
        "resources": {},
        "predicted": {},
    }
    (killed / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(copy / "topology.yaml", killed)
    for name, text in tables.items():
        (killed / f"{name}.jsonl").write_text(text)
    done = analyse_and_report(killed, quiet=True)
    assert done.verdicts
    assert {v.status for v in done.verdicts} <= {"not run", "invalid", "inconclusive"}
    assert done.exit_code == Exit.UNDECIDED
    assert "the run did not end" in done.paths["html"].read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_trials_of_every_kind_are_told(tmp_path: Path) -> None:
    path = make_record(
        tmp_path / "mixed", trials=2, outage_s=(None, 20.0), late_failure_s=39.0, split_brain=0.5
    )
    page = Page(analyse_and_report(path, quiet=True).paths["html"].read_text(encoding="utf-8"))
    assert "not recovered: more than" in page.text
    assert "two nodes accepted writes at one time" in page.text


# --- what can be wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["manifest.json", "events.parquet", "writes.parquet", "statements.json"])
def test_a_damaged_record_is_a_message(copy: Path, broken: str) -> None:
    (copy / broken).write_bytes(b"{ this is not it")
    with pytest.raises(RecordError, match=re.escape(broken.split(".")[0])):
        analyse_and_report(copy, quiet=True)


def test_a_folder_that_cannot_be_written_is_a_message(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(LabError, match="cannot write the report"):
        pipeline._fresh(run / "elsewhere")


def lab(*arguments: str) -> int:
    """``lab report …`` in this process; its exit code."""
    return cli.run(["report", *arguments])


@pytest.fixture(autouse=True)
def no_labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / ".lab"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.mark.usefixtures("undrawn")
def test_the_command_ends_with_the_path(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab(str(copy)) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == str((copy / "report" / "report.html").resolve())
    assert "not met" in said


@pytest.mark.usefixtures("undrawn")
def test_the_command_prints_one_json_document(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab(str(copy), "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == 1
    assert Path(document["paths"]["html"]).exists()
    assert {v["status"] for v in document["verdicts"]} >= {"not met"}


def test_the_command_says_what_is_wrong(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("nothing-there", "--runs", str(copy.parent)) == 3
    assert "no run record" in capsys.readouterr().err
    (copy / "events.parquet").write_bytes(b"PAR1 not PAR1")
    assert lab(str(copy)) == 3
    assert "events" in capsys.readouterr().err
