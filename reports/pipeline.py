"""From a run record to the report: analyse, judge, draw, write. Needs no lab."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lab import terminal
from lab.errors import Exit, LabError
from lab.record.reader import RecordReader
from reports import report, view
from reports.analysis import analyse
from reports.analysis.model import Analysis
from reports.charts import build, style
from reports.experiments import Outcome, experiments
from reports.findings import Finding, Target, Verdict
from reports.junit import junit
from reports.markdown import summary
from reports.report import Shown
from reports.story import own_targets

FOLDER = "report"
"""Of the run record, where everything goes; made anew each time."""


class Report(NamedTuple):
    """What came of a run; unpacks as (verdicts, paths, exit code)."""

    verdicts: list[Verdict]
    paths: dict[str, Path]
    """html, json, junit, markdown, charts."""
    exit_code: Exit


def analyse_and_report(run: Path, *, quiet: bool = False) -> Report:
    """Analyse a run record, judge it, and write the report into ``<run>/report/``.

    Writes ``report.html``, ``charts/*.png``, ``report.json``, ``junit.xml`` and ``summary.md``; the summary
    is also appended to the file that ``$GITHUB_STEP_SUMMARY`` names.

    Args:
        quiet: say nothing on standard error.

    Raises RecordError where the record is missing or damaged, UsageError where a targets file is wrong.
    """
    record = RecordReader(run)
    _say("reading and analysing the record", quiet)
    analysis, outcome, verdicts, elsewhere = examine(record)
    _say("drawing", quiet)
    drawn = build.draw_all(build.scene(record, analysis, verdicts)) if outcome is None else []
    shown = Shown.of(outcome) if outcome is not None else None
    folder = _fresh(run / FOLDER)
    pictures = [picture for chart in drawn for picture in chart.pictures]
    for picture in [*pictures, *(shown.pictures.values() if shown else ())]:
        (folder / "charts" / f"{picture.id}.png").write_bytes(picture.png)
    paths = {
        "html": folder / "report.html",
        "json": folder / "report.json",
        "junit": folder / "junit.xml",
        "markdown": folder / "summary.md",
        "charts": folder / "charts",
    }
    paths["html"].write_text(
        report.render(record, analysis, verdicts, elsewhere, drawn, shown), encoding="utf-8"
    )
    paths["json"].write_text(_document(analysis, verdicts, elsewhere), encoding="utf-8")
    paths["junit"].write_text(junit(analysis, verdicts), encoding="utf-8")
    paths["markdown"].write_text(summary(analysis, verdicts, outcome), encoding="utf-8")
    _step_summary(paths["markdown"].read_text(encoding="utf-8"))
    return Report(verdicts, paths, view.exit_code(verdicts))


class Examined(NamedTuple):
    """What a record holds, judged."""

    analysis: Analysis
    outcome: Outcome | None
    """Of an experiment."""
    verdicts: list[Verdict]
    elsewhere: list[Verdict]
    """*Not run*: the targets of the run's environment that other scenarios test."""


def examine(record: RecordReader) -> Examined:
    """Analyse a record and judge it. UsageError where a targets file is wrong."""
    analysis = analyse(record)
    outcome = _outcome(record)
    if outcome is not None:
        analysis = analysis.model_copy(update={"findings": _merged(analysis.findings, outcome.findings)})
    return Examined(analysis, outcome, *judged(record, analysis))


def _outcome(record: RecordReader) -> Outcome | None:
    """What the record's experiment found; None where it is the record of no experiment."""
    known = experiments().get(record.manifest.scenario)
    if known is None:
        return None
    with style.styled():
        return known.analyse(record)


def _merged(findings: Sequence[Finding], mine: Sequence[Finding]) -> tuple[Finding, ...]:
    metrics = {finding.metric for finding in mine}
    return (*mine, *(finding for finding in findings if finding.metric not in metrics))


def judged(record: RecordReader, analysis: Analysis) -> tuple[list[Verdict], list[Verdict]]:
    """Verdicts on the targets that this run's scenario tests, and *not run* for its environment's others."""
    from reports.judge import judge
    from reports.targets import load_targets, targets_of

    scenario = analysis.manifest.scenario
    checks = _names(_yaml(record, "scenario.yaml").get("checks"))
    topology = _yaml(record, "topology.yaml")
    system, environment = topology.get("system"), topology.get("environment")
    named = isinstance(system, str) and re.fullmatch(r"[a-z][a-z0-9-]{0,30}", system)
    own = record.path / "targets.yaml"
    # A run on a topology with targets of its own carries them.
    of_system: Sequence[Target] = targets_of(str(system)) if named else ()
    if own.is_file():
        of_system = load_targets(own).targets
    targets = [t for t in of_system if t.concerns(str(environment) if environment else None)]
    mine = [t for t in targets if scenario in t.scenarios and (not checks or t.metric in checks)]
    others = [t for t in targets if t not in mine]
    mine += own_targets(record, analysis)
    return [judge(analysis, target) for target in mine], [
        Verdict(target=t, status="not run", why=_elsewhere(t, scenario)) for t in others
    ]


def _elsewhere(target: Target, scenario: str) -> str:
    if scenario in target.scenarios:
        return f"the scenario's checks leave out {target.metric}"
    if target.not_built:
        return f"not built yet: {target.not_built}"
    if not target.scenarios:
        return "it is answered on paper: lab check"
    known = experiments()
    where = (f"lab {name}" if name in known else f"scenarios/{name}.yaml" for name in target.scenarios)
    return "tested by " + ", ".join(where)


def summary_json(done: Report) -> dict[str, Any]:
    """What ``--json`` prints: verdicts, paths, exit code."""
    return {
        "verdicts": [verdict.model_dump(mode="json") for verdict in done.verdicts],
        "paths": {name: str(path) for name, path in done.paths.items()},
        "run": str(done.paths["html"].parent.parent),
        "exit_code": int(done.exit_code),
    }


def _document(analysis: Analysis, verdicts: Sequence[Verdict], elsewhere: Sequence[Verdict]) -> str:
    document = {
        "schema_version": 1,
        "answer": view.answer(verdicts)[0],
        "exit_code": int(view.exit_code(verdicts)),
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
        "not_run": [verdict.model_dump(mode="json") for verdict in elsewhere],
        "analysis": analysis.model_dump(mode="json"),
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def _fresh(folder: Path) -> Path:
    """An empty folder for the report; what an earlier report left there goes."""
    try:
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        (folder / "charts").mkdir(parents=True)
    except OSError as error:
        raise LabError(f"cannot write the report to {folder}: {error}") from error
    return folder


def _step_summary(text: str) -> None:
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        terminal.warn(f"cannot write the summary to {file}: {error}")


def _yaml(record: RecordReader, name: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(record.text(name) or "{}")
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _names(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        terminal.say(text, style="dim")
