"""One page to decide pooling from: which mode, how large, what breaks, and what the promises say.

It joins the newest closed record of each experiment with the pools of one topology: ``pooling``,
``pool-size``, ``pool-compat`` and ``latency``. Each is analysed and judged as for its own report.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from jinja2 import Environment
from markupsafe import Markup

from lab.errors import LabError, RecordError
from lab.record.reader import RecordReader
from reports import report, view
from reports.analysis.pool_cells import cells
from reports.charts import style
from reports.charts.scene import Drawing
from reports.experiments import Outcome, Section, Table
from reports.experiments import pool_compat as compat
from reports.experiments._pooling_charts import PATHS, panels_beside
from reports.experiments._pooling_groups import (
    DIRECT,
    STORED,
    Group,
    Overhead,
    grouped,
    judged,
    lasting,
    overheads,
)
from reports.pipeline import Examined, examine
from reports.view import figure, number

NAMES = ("pooling", "pool-size", "pool-compat", "latency")
FILE = "pooling.html"
MODES = ("transaction", "session", "statement")
WORKLOAD = "limit-check"


@dataclass(frozen=True)
class Mode:
    """What the experiments say of one pool mode. None: not known."""

    name: str
    saved: float | None
    """Percent of what connecting costs, median over the repeats."""
    rate: float | None
    """Transactions per second of lasting clients ÷ those without a pool, percent, paired by repeat."""
    sharing: float | None
    """Clients a server connection, with the most lasting clients that were tried."""
    features: Counter[str]
    """What was found of the session features → how many."""
    transactions: str
    """What a transaction of several statements comes to."""


def newest(runs: Path, topology: str | None = None) -> dict[str, RecordReader]:
    """The newest closed record of each experiment, all of one topology: by default that of the newest.

    Raises:
        RecordError: there is none.
    """
    found: dict[str, RecordReader] = {}
    for file in sorted(runs.glob("*/manifest.json"), reverse=True):
        if file.parent.is_symlink():
            continue
        try:
            record = RecordReader(file.parent)
        except RecordError:
            continue
        head = record.manifest
        if head.scenario in NAMES and head.state == "closed" and head.topology == (topology or head.topology):
            topology = head.topology
            found.setdefault(head.scenario, record)
    if not found:
        what = f" on {topology}" if topology else ""
        raise RecordError(
            f"{runs} holds no closed record of {', '.join(NAMES)}{what}", hint="`make pooling` makes them"
        )
    return {name: found[name] for name in NAMES if name in found}


def write(runs: Path, topology: str | None = None, out: Path | None = None) -> Path:
    """Write the page; its path (``<runs>/pooling.html`` by default).

    Raises:
        RecordError: no record, or a damaged one.
        LabError: the page cannot be written.
    """
    records = newest(runs, topology)
    page = out or runs / FILE
    examined = {name: examine(record) for name, record in records.items()}
    names = {record.manifest.topology for record in records.values()}
    modes = compared(records)
    said, tone = view.answer([v for one in examined.values() for v in one.verdicts])
    environment = report.environment()
    with style.styled():
        decided = _decision(modes, examined, records)
        choice = _sections(environment, decided)
    text = environment.get_template("pools.html.j2").render(
        css=Markup(report.css()),
        topology=", ".join(sorted(names)),
        title=_title(modes, examined),
        lead=decided.lead,
        tone=tone,
        answer=said,
        missing=[name for name in NAMES if name not in records],
        choice=choice,
        parts=[_part(environment, record, examined[name], page) for name, record in records.items()],
        folder=runs,
    )
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {page}: {error.strerror}") from error
    return page


def compared(records: Mapping[str, RecordReader]) -> list[Mode]:
    """The pool modes side by side, as far as there are records."""
    groups = grouped(cells(records["pooling"])) if "pooling" in records else []
    over = overheads(groups)
    found = compat.matrix(records["pool-compat"]) if "pool-compat" in records else {}
    base = judged(over)
    clients = base.clients if base else 20
    return [_mode(name, groups, over, found, clients) for name in MODES]


def _mode(
    name: str,
    groups: Sequence[Group],
    over: Sequence[Overhead],
    found: Mapping[str, Mapping[str, compat.Cell]],
    clients: int,
) -> Mode:
    mine = next(
        (o for o in over if (o.path, o.clients, o.authentication) == (name, clients, STORED) and o.reduction),
        None,
    )
    kept, direct = (lasting(groups, path, WORKLOAD, clients) for path in (name, DIRECT))
    most = [g.clients for g in groups if g.path == name and g.connections == "lasting" and g.valid]
    crowd = lasting(groups, name, WORKLOAD, max(most, default=clients))
    shares = (
        [100 * kept.valid[r].per_s / direct.valid[r].per_s for r in kept.valid if r in direct.valid]
        if kept and direct
        else []
    )
    features = Counter(row[name].outcome for row in found.values() if name in row)
    transaction = found.get("transaction", {}).get(name)
    return Mode(
        name,
        median(mine.reduction) if mine else None,
        median(shares) if shares else None,
        crowd.middle(lambda c: c.multiplexing) if crowd else None,
        features,
        transaction.outcome if transaction else "",
    )


def _title(modes: Sequence[Mode], examined: Mapping[str, Examined]) -> str:
    """The answer in a line."""
    fit = [m for m in modes if m.transactions == "works"]
    best = max(fit, key=lambda m: m.saved or 0.0, default=None)
    if best is None:
        return "Which mode: run lab pool-compat, which tells what breaks"
    size = _size(examined)
    return f"{best.name.capitalize()} pooling" + (f", {size:g} server connections" if size else "")


def _size(examined: Mapping[str, Examined]) -> float | None:
    found = examined["pool-size"].analysis.finding("pool.size") if "pool-size" in examined else None
    return found.value if found else None


def _decision(
    modes: Sequence[Mode], examined: Mapping[str, Examined], records: Mapping[str, RecordReader]
) -> Outcome:
    leaks = {m.name: m.features["leaks"] for m in modes if m.features}
    said = []
    if leaks.get("transaction"):
        said.append(
            f"Transaction pooling, unless the application uses one of the {leaks['transaction']} session "
            "features that leak through it to another client without a word; then session pooling, which "
            "takes a server connection for each client."
        )
    if any(m.name == "statement" and m.transactions == "fails loudly" for m in modes):
        said.append("Statement pooling refuses transactions of several statements.")
    sizes = examined["pool-size"].outcome if "pool-size" in examined else None
    if sizes is not None:
        said.append(sizes.lead)
    rows = tuple(
        (
            m.name,
            figure(m.saved, "%"),
            figure(m.rate, "%"),
            number(m.sharing),
            *(
                str(m.features[kind]) if m.features else view.NONE
                for kind in ("works", "fails loudly", "leaks")
            ),
            m.transactions or view.NONE,
        )
        for m in modes
    )
    tones = tuple(
        ("",) * 6 + ("bad" if m.features["leaks"] else "good" if m.features else "",)
        + ("good" if m.transactions == "works" else "bad" if m.transactions else "",)
        for m in modes
    )  # fmt: skip
    head = (
        "mode", "connecting costs less by", "rate of lasting clients, of that without a pool",
        "clients a server connection", "features that work", "fail loudly", "leak silently",
        "transactions of several statements",
    )  # fmt: skip
    text = (
        "What a mode saves shows where clients connect for each transaction; clients that keep their "
        "connections pay for the pooler instead, and save the database its connections.",
    )
    table = Table(head, rows, frozenset(range(1, 7)), tones=tones)
    sections = [Section("modes", "Which mode", text, (picture(modes),), (table,))]
    if "pool-compat" in records:
        sections.append(_breaks(compat.matrix(records["pool-compat"])))
    return Outcome(lead=" ".join(said), sections=tuple(sections))


def _breaks(found: Mapping[str, Mapping[str, compat.Cell]]) -> Section:
    """What an application must not use, and what instead."""
    rows = [
        (feature.title, found[key]["transaction"].outcome, feature.advice or view.NONE)
        for key, feature in compat.FEATURES.items()
        if key in found
        and "transaction" in found[key]
        and found[key]["transaction"].outcome not in ("works", "not run")
    ]
    text = ("Look for these in the application before it goes behind a transaction pool.",)
    tones = tuple(("", compat.TONES.get(outcome, ""), "") for _, outcome, _ in rows)
    return Section(
        "breaks",
        "What breaks in transaction pooling",
        text,
        (),
        (Table(("Feature", "found", "instead"), tuple(rows), tones=tones),),
    )


def picture(modes: Sequence[Mode]) -> Drawing:
    """Three questions, a panel each; a bar a mode."""
    drawing, axes = panels_beside(3, 1.9)
    at = [-n for n in range(len(modes))]
    for axis, (title, values) in zip(
        axes,
        (
            ("connecting costs less by, %", [m.saved for m in modes]),
            ("rate of lasting clients, % of direct", [m.rate for m in modes]),
        ),
        strict=False,
    ):
        axis.barh(at, [v or 0 for v in values], color=[PATHS[m.name] for m in modes], height=0.6, lw=0)
        for y, value in zip(at, values, strict=True):
            axis.annotate(number(value), (max(value or 0, 0), y), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=8.5)  # fmt: skip
        axis.set_title(title)
        axis.margins(x=0.2)
        axis.axvline(0, color=style.INK, lw=0.6)
    left = [0] * len(modes)
    for kind in ("works", "fails loudly", "is lost", "leaks"):
        counts = [m.features[kind] for m in modes]
        axes[2].barh(at, counts, left=left, color=compat.COLOURS[kind], height=0.6, lw=0, label=kind)
        left = [a + b for a, b in zip(left, counts, strict=True)]
    axes[2].set_xlabel("session features")
    style.key(axes[2], 2)
    for index, axis in enumerate(axes):
        axis.set_yticks(at, [m.name for m in modes] if not index else [""] * len(modes))
        axis.grid(visible=False, axis="y")
    return Drawing("pools-modes", "Medians over the repeats; features as found by running them.", drawing)


def _sections(environment: Environment, outcome: Outcome) -> Markup:
    """Sections that belong to no single run."""
    shown = report.Shown.of(outcome)
    return Markup(
        environment.get_template("sections.html.j2").render(
            sections=outcome.sections, pictures_of=shown.of_section, located=lambda _: None, base="",
            prefix="choice-",
        )
    )  # fmt: skip


def _part(environment: Environment, record: RecordReader, one: Examined, page: Path) -> dict[str, object]:
    """One run, as the page's template takes it."""
    name, own = record.manifest.scenario, record.path / "report" / "report.html"
    with style.styled():
        shown = report.Shown.of(one.outcome) if one.outcome else None
        where = f"{_relative(record.path, page)}/"
        words = report.words(record, one.analysis, one.verdicts, shown, base=where, prefix=f"{name}-")
        body = Markup(environment.get_template("pools_part.html.j2").render(**words))
    return {
        "name": name,
        "title": report.title(record).partition(" · ")[0],
        "lead": one.outcome.lead if one.outcome else view.lead(one.analysis),
        "when": report.when(record.manifest.started_wall),
        "page": _relative(own if own.exists() else record.path, page),
        "reasons": list(dict.fromkeys(reason.why for reason in one.analysis.reasons)),
        "body": body,
    }


def _relative(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()
