"""The scorecard as one HTML file that opens offline, with the pictures of the runs that answer it."""

from __future__ import annotations

import base64
import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from lab.errors import LabError
from reports import report, view
from reports.findings import Status
from reports.scorecard import FOLDER, Row, Scorecard, picture_of
from reports.scorecard_changes import Change
from reports.scorecard_text import answer_of, how, not_built, view_order

STATUSES: tuple[Status, ...] = ("not met", "invalid", "inconclusive", "not run", "met")


@dataclass(frozen=True)
class Group:
    """One environment of one system."""

    system: str
    environment: str
    topology: str
    rows: list[Row]
    """What could be tested."""
    later: list[Row]
    """What is not built yet."""

    @property
    def count(self) -> Counter[str]:
        return Counter(row.verdict.status for row in self.rows)

    @property
    def share(self) -> list[tuple[Status, int]]:
        """(status, how many) for the bar."""
        return [(status, self.count[status]) for status in reversed(STATUSES) if self.count[status]]

    @property
    def share_text(self) -> str:
        return ", ".join(f"{number} {status}" for status, number in self.share)


def groups(card: Scorecard) -> list[Group]:
    """In the order in which they were verified."""
    found = []
    for topology in dict.fromkeys(row.topology for row in card.rows):
        mine = view_order([row for row in card.rows if row.topology == topology])
        tested = [row for row in mine if not not_built(row.verdict)]
        later = [row for row in mine if not_built(row.verdict)]
        found.append(Group(mine[0].system, mine[0].environment, topology, tested, later))
    return found


def render(card: Scorecard, folder: Path, changes: Sequence[Change] = (), against: str = "") -> str:
    """The page. Pictures are read from the runs' reports below ``folder``."""
    environment = report.environment()
    environment.filters["relative"] = lambda path: f"../{path}"
    runs = {run.name: run for run in card.runs}
    wanted: dict[str, dict[str, None]] = {name: {} for name in runs}
    for row in card.rows:
        if row.run in wanted and (chart := picture_of(row, runs)) is not None:
            wanted[row.run][chart] = None
    said, tone = answer_of(card)
    return environment.get_template("scorecard.html.j2").render(
        css=Markup(report.css()),
        card=card,
        title=f"Scorecard of {card.name}",
        answer=said,
        tone=tone,
        when=_when(card.started),
        length=_length(card.seconds),
        groups=groups(card),
        statuses=STATUSES,
        marks=view.MARK,
        tones=view.TONE,
        runs=runs,
        shown={name: _pictures(folder / runs[name].folder, list(charts)) for name, charts in wanted.items()},
        picture=lambda row: picture_of(row, runs),
        anchor=lambda row: row.key.replace(" ", "-"),
        changes=list(changes),
        against=against,
        words=lambda metric: view.METRICS.get(metric, metric),
        about=view.about,
        quote=view.quote,
        reason=view.reason,
        measured=view.measured,
        limit=view.limit,
        figure=view.figure,
        how=how,
    )


def write(card: Scorecard, folder: Path, changes: Sequence[Change] = (), against: str = "") -> Path:
    """Write ``report/scorecard.html`` into the folder of the verification."""
    path = folder / FOLDER / "scorecard.html"
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(render(card, folder, changes, against), encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}") from error
    return path


def _pictures(run: Path, charts: Sequence[str]) -> list[tuple[str, str]]:
    """(chart, PNG in base64)."""
    files = [(chart, run / "report" / "charts" / f"{chart}.png") for chart in charts]
    return [
        (chart, base64.b64encode(file.read_bytes()).decode("ascii"))
        for chart, file in files
        if file.is_file()
    ]


def _when(wall: str) -> str:
    try:
        return dt.datetime.fromisoformat(wall).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return wall


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
