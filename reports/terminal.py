"""The verdicts as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from reports import view
from reports.findings import Verdict

STYLE = {
    "met": "green",
    "not met": "bold red",
    "inconclusive": "yellow",
    "not run": "yellow",
    "invalid": "bold yellow",
}
TONE = {"good": "bold green", "bad": "bold red", "unsure": "bold yellow"}


class _Verdicts:
    """A reason is printed where something did not hold; what is the same for many is said once below."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        self.verdicts = view.ordered(verdicts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.verdicts:
            yield self._table()
        notes = dict.fromkeys(note for verdict in self.verdicts for note in _notes(verdict))
        for note in notes:
            yield Text(f"· {note}", style="dim")
        answer, tone = view.answer(self.verdicts)
        yield Text(answer, style=TONE[tone])

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
        table.add_column("verdict", no_wrap=True)
        table.add_column("promise", overflow="fold")
        table.add_column("measured", justify="right", no_wrap=True)
        table.add_column("limit", justify="right", no_wrap=True)
        table.add_column("trials", justify="right", no_wrap=True)
        before = ""
        for verdict in self.verdicts:
            style = STYLE[verdict.status]
            promise = Text(view.about(verdict.target))
            quote = view.quote(verdict.target)
            if quote != before:
                promise.append(f"\n“{quote}”", style="dim")
            before = quote
            if verdict.status != "met":
                promise.append(f"\n{view.reason(verdict)[0]}", style=style)
            table.add_row(
                Text(f"{view.MARK[verdict.status]} {verdict.status}", style=style),
                promise,
                Text(view.measured(verdict), style="bold"),
                view.limit(verdict),
                str(view.trials_of(verdict.finding) or view.NONE),
            )
        return table


def _notes(verdict: Verdict) -> list[str]:
    """How strong a *met* is, stand-ins and substitutions."""
    said, aside = view.reason(verdict)
    by_trials = verdict.status == "met" and view.trials_of(verdict.finding)
    strength = said.partition("; ")[2] if by_trials else ""
    return [note for note in (strength, *aside.split("; ")) if note]


def verdict_table(verdicts: Sequence[Verdict]) -> _Verdicts:
    """The verdicts as something that rich prints, from 80 columns on."""
    return _Verdicts(verdicts)
