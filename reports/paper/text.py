"""What ``lab check`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from reports import view
from reports.findings import Verdict
from reports.terminal import STYLE

WORDS = {"met": "holds", "not met": "contradiction", "not run": "not known"}
"""Status → what it is called on paper."""


class PaperTable:
    """One environment: contradictions first, each with its arithmetic."""

    def __init__(self, name: str, verdicts: Sequence[Verdict], *, every: bool = False) -> None:
        self.name = name
        self.verdicts = view.ordered(verdicts)
        self.every = every
        """Also what holds."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wrong = sum(verdict.status == "not met" for verdict in self.verdicts)
        held = sum(verdict.status == "met" for verdict in self.verdicts)
        open_ = len(self.verdicts) - wrong - held
        said = [f"{wrong} contradiction{'s' if wrong != 1 else ''}"] if wrong else []
        said += [f"{open_} not known"] if open_ else []
        said += [f"{held} hold{'s' if held == 1 else ''}"] if held else []
        head = Text(self.name, style="bold")
        head.append(f"  {', '.join(said) or 'nothing to reckon'}", style="bold red" if wrong else "dim")
        yield head
        shown = [verdict for verdict in self.verdicts if self.every or verdict.status != "met"]
        if shown:
            yield self._table(shown)

    def _table(self, shown: Sequence[Verdict]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for verdict in shown:
            target = verdict.target
            style = STYLE[verdict.status]
            what = Text(target.id.partition(" ")[0], style="bold")
            what.append(f"  {view.about(target)}", style="")
            what.append(f"\n“{view.quote(target)}”", style="dim")
            what.append(f"\n{verdict.why}", style=style if verdict.status != "met" else "")
            word = WORDS.get(verdict.status, verdict.status)
            table.add_row(Text(f"{view.MARK[verdict.status]} {word}", style=style), what)
        return table
