"""The report of one run: one HTML file that opens offline, and its charts as PNG files."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from lab import terminal
from lab.record.reader import RecordReader
from reports import view
from reports.analysis.model import PARTS, Analysis, Trial
from reports.charts import build, style
from reports.charts.build import Drawn, Picture
from reports.experiments import Outcome, Section
from reports.findings import Verdict

TEMPLATES = Path(__file__).parent / "templates"
PLACED = ("waterfall", "timeline", "trials", "sessions", "nodes", "pool", "replication", "cpu")
"""Charts that the template has a place for; any other comes after them."""
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Shown:
    """An experiment's outcome with its drawings as pictures."""

    outcome: Outcome
    pictures: dict[str, Picture]

    @classmethod
    def of(cls, outcome: Outcome) -> Shown:
        """Draw them."""
        drawings = [drawing for section in outcome.sections for drawing in section.drawings]
        return cls(outcome, {drawing.id: build.picture(drawing) for drawing in drawings})

    def of_section(self, section: Section) -> list[Picture]:
        """Those of one section."""
        return [self.pictures[drawing.id] for drawing in section.drawings]


def render(
    record: RecordReader,
    analysis: Analysis,
    verdicts: Sequence[Verdict],
    elsewhere: Sequence[Verdict],
    drawn: Sequence[Drawn],
    shown: Shown | None = None,
) -> str:
    """The HTML page. Everything from the record is escaped; drawings are our own.

    Args:
        elsewhere: promises that other scenarios test.
        shown: of an experiment: its outcome, which leads the page.
    """
    said, tone = view.answer(verdicts)
    head = analysis.manifest
    load = analysis.load
    requests = [
        (title, (*rows, *((total.model_copy(update={"name": "all", "endpoint": None}),) if total else ())))
        for title, rows, total in (
            ("Steady state", load.steady_by_name, load.steady),
            ("Whole run, faults included", load.by_name, load.all),
        )
        if rows or total
    ]
    charts = {one.chart.id: one for one in drawn}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            **words(record, analysis, verdicts, shown),
            css=Markup(css()),
            title=title(record),
            answer=said,
            tone=tone,
            lead=shown.outcome.lead if shown else view.lead(analysis),
            when=when(head.started_wall),
            length=_length(analysis.duration_s),
            reasons=_reasons(analysis),
            elsewhere=elsewhere,
            checked=view.checked(analysis),
            num=view.number,
            bytes=terminal.bytes_text,
            seconds=lambda value: view.NONE if value is None else f"{value:.2f}",
            outage=lambda o: f"{o.seconds:.2f} s" if o.seconds is not None else build.note(o),
            part_of=_part,
            part_names=PARTS,
            trials=analysis.trials,
            ledgers=[(str(t.trial), t.ledger) for t in analysis.trials]
            + ([("all", analysis.ledger)] if len(analysis.trials) > 1 else []),
            audits=[(trial.trial, node) for trial in analysis.trials for node in trial.ledger.nodes],
            predicted=list((analysis.predicted or head.predicted).items()),
            requests=requests,
            errors=sorted(load.errors.items(), key=lambda item: -item[1]),
            pools=analysis.pools,
            usage=analysis.usage,
            statements=list(analysis.statements.items()),
            findings=analysis.findings,
            charts=charts,
            more_charts=[id for id in charts if id not in PLACED],
            setup=setup(record, analysis),
            files=_files(record.path),
        )
    )


def environment() -> jinja2.Environment:
    """Where the pages' templates are found. What is put into them is escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["fig"] = view.figure
    found.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return found


def words(
    record: RecordReader,
    analysis: Analysis,
    verdicts: Sequence[Verdict],
    shown: Shown | None,
    *,
    base: str = "../",
    prefix: str = "",
) -> dict[str, Any]:
    """What the templates of verdicts, headlines and an experiment's sections take of one run.

    Args:
        base: leads from the page to the run's folder.
        prefix: of the sections' ids, where a page holds several runs.
    """
    return {
        "base": base,
        "prefix": prefix,
        "head": analysis.manifest,
        "verdicts": view.ordered(verdicts),
        "shared": view.shared_asides(verdicts),
        "how": view.how(analysis),
        "about": view.about,
        "quote": view.quote,
        "reason": view.reason,
        "measured": view.measured,
        "trials_of": view.trials_of,
        "marks": view.MARK,
        "tones": view.TONE,
        "figure": view.figure,
        "limit": view.limit,
        "located": lambda name: _located(record.path, str(name)),
        "headlines": shown.outcome.headlines if shown else view.headlines(analysis),
        "sections": shown.outcome.sections if shown else (),
        "pictures_of": shown.of_section if shown else lambda _: [],
    }


def css() -> str:
    """The page's style sheet, with the charts' colours as variables for light and dark."""
    text = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    light = "".join(f"--{name}:{colour};" for colour, (name, _) in style.VARIABLES.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in style.VARIABLES.values())
    return text.replace("@@LIGHT@@", light).replace("@@DARK@@", dark)


def title(record: RecordReader) -> str:
    """The run's scenario and topology in words."""
    topology, scenario = _yaml(record, "topology.yaml"), _yaml(record, "scenario.yaml")
    said = [str(part) for part in (scenario.get("title"), topology.get("title")) if part]
    return " · ".join(said) or record.manifest.run


def _yaml(record: RecordReader, name: str) -> dict[str, Any]:
    """A YAML file of the record; empty where it is absent or damaged (the figures do not depend on it)."""
    try:
        found = yaml.safe_load(record.text(name) or "{}")
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def when(wall: str) -> str:
    """A moment of the wall clock for a reader."""
    try:
        return dt.datetime.fromisoformat(wall).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return wall


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _part(trial: Trial, name: str) -> float | None:
    if trial.breakdown is None:
        return None
    return next((part.seconds for part in trial.breakdown.parts if part.name == name), None)


def _reasons(analysis: Analysis) -> list[str]:
    """Why something must not be judged, and what the runner noted, each said once."""
    said = [f"Trial {r.trial}: {r.why}" if r.trial else r.why for r in analysis.reasons]
    return list(dict.fromkeys([*said, *analysis.manifest.notes]))


def _located(root: Path, name: str) -> str | None:
    """The file or folder of the record behind a piece of evidence: its segments where a run was killed."""
    name = name.rstrip("/")
    if (root / name).exists() or name.startswith("report/"):
        return name
    stem = name.removesuffix(".parquet")
    return next((path.name for path in sorted(root.glob(f"{stem}*.jsonl"))), None) if stem != name else None


def _files(root: Path) -> list[tuple[str, int]]:
    own = root / "report"
    found = [path for path in root.rglob("*") if path.is_file() and own not in path.parents]
    return sorted((path.relative_to(root).as_posix(), path.stat().st_size) for path in found)


def setup(record: RecordReader, analysis: Analysis) -> list[tuple[str, Rows]]:
    """What ran, as tables of name and value: the run, stand-ins, settings, machine, versions, clocks."""
    head = analysis.manifest
    topology = _yaml(record, "topology.yaml")
    run: Rows = [
        ("run", head.run),
        ("command", head.command or view.NONE),
        ("seed", str(head.seed)),
        ("lab", head.lab),
        ("load", _flat(head.load)),
        ("overrides", _flat(head.overrides)),
        ("slow after", f"{head.slow_after_s:g} s"),
    ]
    if head.window_s is not None:
        run.append(("observation window", f"{head.window_s:g} s"))
    if head.probe_interval_s is not None:
        run.append(("probe interval", f"{head.probe_interval_s * 1000:g} ms"))
    stands: Rows = [(name, value) for name, value in head.stand_ins.items()]
    stands += [("substituted", text) for text in head.substitutions]
    stands += [("not built", text) for text in head.not_built]
    machine: Rows = [
        (
            name.replace("_", " ").removesuffix(" bytes"),
            terminal.bytes_text(value) if name.endswith("_bytes") else _flat(value),
        )
        for name, value in head.machine.items()
    ]
    machine.append(("scale factor of instance classes", view.number(head.scale)))
    machine += [
        (
            f"limit of {node}",
            f"{of.get('cpus') or 'no limit of'} cores, {terminal.bytes_text(of.get('memory_bytes'))}",
        )
        for node, of in head.resources.items()
        if isinstance(of, dict)
    ]
    clocks: Rows = [
        (f"{o.clock}, {o.when}", f"{o.offset_ns / 1e6:+,.3f} ms ± {o.uncertainty_ns / 1e6:.3f} ms")
        for o in head.offsets
        if abs(o.offset_ns) < 3600 * 1e9
    ]
    clocks += [
        (f"{o.clock}, {o.when}", f"± {o.uncertainty_ns / 1e6:.3f} ms (another epoch)")
        for o in head.offsets
        if abs(o.offset_ns) >= 3600 * 1e9
    ]
    if analysis.clock_uncertainty_s is not None:
        clocks.append(("uncertainty of the run", f"± {analysis.clock_uncertainty_s * 1000:.3f} ms"))
    found = [
        ("Run", run),
        ("Stand-ins and substitutions", stands),
        ("Topology and settings", _topology(topology)),
        ("Machine", machine),
        ("Versions", [(name, str(value)) for name, value in head.versions.items()]),
        ("Clocks relative to the observer", clocks),
    ]
    return [(title, rows) for title, rows in found if rows]


def _topology(topology: dict[str, Any]) -> Rows:
    rows: Rows = [(key, str(topology[key])) for key in ("name", "document") if topology.get(key)]
    postgres = topology.get("postgres")
    if isinstance(postgres, dict):
        rows += [(key, str(postgres[key])) for key in ("version", "synchronous") if key in postgres]
        rows += [(f"patroni {key}", str(value)) for key, value in _dict(postgres.get("patroni")).items()]
        for node in _dicts(postgres.get("nodes")):
            said = [node.get(key) for key in ("role", "instance_class", "label")]
            zone = f"zone {node.get('zone')}" if node.get("zone") else None
            rows.append(
                (str(node.get("name", "node")), ", ".join(str(part) for part in (*said, zone) if part))
            )
        rows += [
            (f"postgresql {key}", str(value)) for key, value in _dict(postgres.get("parameters")).items()
        ]
    for kind in ("routers", "poolers"):
        for node in _dicts(topology.get(kind)):
            rows.append(
                (
                    str(node.get("name", kind)),
                    _flat({k: v for k, v in node.items() if k not in ("name", "zone")}),
                )
            )
    proxied = [
        f"{link.get('source')} → {link.get('target')}"
        for link in _dicts(topology.get("links"))
        if link.get("path") == "proxied"
    ]
    if topology.get("links"):
        rows.append(("links through Toxiproxy", ", ".join(proxied) or "none, all direct"))
    if topology.get("tls"):
        rows.append(("tls", _flat(topology["tls"])))
    return rows


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, (list, tuple)) else []


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{str(key).replace('_', ' ')} {_flat(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(one) for one in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
