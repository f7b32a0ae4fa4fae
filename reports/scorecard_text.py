"""The scorecard for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from reports import view
from reports.findings import Verdict
from reports.scorecard import Row, Scorecard
from reports.scorecard_changes import Change
from reports.terminal import STYLE, TONE

NOT_BUILT = "not built yet: "


class ScorecardText:
    """Each system and environment; what is not built yet is counted, and listed with ``every``."""

    def __init__(self, card: Scorecard, changes: Sequence[Change] = (), *, every: bool = False) -> None:
        self.card = card
        self.changes = changes
        self.every = every

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for topology in dict.fromkeys(row.topology for row in self.card.rows):
            rows = [row for row in self.card.rows if row.topology == topology]
            yield Text(topology, style="bold")
            yield self._table(rows)
            later = [row for row in rows if not_built(row.verdict)]
            if later and not self.every:
                ids = ", ".join(row.verdict.target.id for row in later)
                yield Text(f"  – {len(later)} not run (not built yet): {ids}", style="dim")
            yield Text("")
        if self.changes:
            yield Group(*_changed(self.changes))
        for note in self.card.notes:
            yield Text(f"· {note}", style="dim")
        if self.card.quick:
            yield Text("· quick: one trial a run; what takes more is inconclusive", style="dim")
        answer, tone = answer_of(self.card)
        yield Text(answer, style=TONE[tone])

    def _table(self, rows: Sequence[Row]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="bold dim")
        table.add_column("verdict", no_wrap=True)
        table.add_column("promise", overflow="fold", ratio=1)
        table.add_column("found", justify="right", no_wrap=True)
        table.add_column("limit", justify="right", no_wrap=True)
        for row in view_order(rows):
            verdict = row.verdict
            if not_built(verdict) and not self.every:
                continue
            style = STYLE[verdict.status]
            promise = Text(verdict.target.id.partition(" ")[0], style="bold")
            promise.append(f"  {view.about(verdict.target)}", style="")
            if said := how(row):
                promise.append(f"  {said}", style="dim")
            if verdict.status != "met":
                promise.append(f"\n{view.reason(verdict)[0]}", style=style)
            table.add_row(
                Text(f"{view.MARK[verdict.status]} {verdict.status}", style=style),
                promise,
                Text(view.measured(verdict), style="bold"),
                view.limit(verdict),
            )
        return table


def _changed(changes: Sequence[Change]) -> list[Text]:
    moved = [one for one in changes if one.changed]
    if not moved:
        return [Text("Nothing changed since: no verdict, and no figure beyond chance.", style="dim")]
    lines = [Text("What changed since", style="bold")]
    for one in moved:
        text = Text(f"  {one.topology}  {one.target}  ")
        text.append(f"{one.before or 'absent'} → {one.after or 'absent'}", style="red" if one.worse else "")
        text.append(f"  {view.figure(one.value_before, one.unit)} → {view.figure(one.value_after, one.unit)}")
        if one.word:
            text.append(f"  {one.word}", style="dim")
        lines.append(text)
    return lines


def how(row: Row) -> str:
    """How it was tested, in a few words."""
    trials = view.trials_of(row.verdict.finding)
    said: list[str] = [row.verdict.target.method]
    if trials and row.run:
        said.append(f"{trials} trial{'s' if trials != 1 else ''}")
    return ", ".join(said) if row.run or row.verdict.target.method == "on paper" else ""


def not_built(verdict: Verdict) -> bool:
    """Whether the lab has nothing yet that could answer it."""
    return verdict.status == "not run" and verdict.why.startswith(NOT_BUILT)


def view_order(rows: Sequence[Row]) -> list[Row]:
    """What does not hold first, what is not built last; else as the document has it."""
    order = {"not met": 0, "invalid": 1, "inconclusive": 2, "not run": 3, "met": 4}
    return sorted(rows, key=lambda row: (not_built(row.verdict), order[row.verdict.status]))


def answer_of(card: Scorecard) -> tuple[str, str]:
    """The overall answer and its tone: of what could be tested, and how much could not."""
    tested = [verdict for verdict in card.verdicts if not not_built(verdict)]
    later = len(card.verdicts) - len(tested)
    if not tested:
        return f"None of {later} promises can be tested yet", "unsure"
    answer, tone = view.answer(tested)
    count = Counter(verdict.status for verdict in tested)
    if later:
        answer += f"; {later} more cannot be tested yet"
        tone = "unsure" if tone == "good" and not count["not met"] else tone
    return answer, tone
