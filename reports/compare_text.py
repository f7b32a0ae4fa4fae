"""A comparison as a table for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from reports import view
from reports.compare import Comparison, Figure, Row, Word

STYLE: dict[Word, str] = {
    "better": "bold green",
    "worse": "bold red",
    "different": "bold yellow",
    "no difference shown": "dim",
    "too few": "yellow",
}
ORDER: dict[Word, int] = {"worse": 0, "better": 1, "different": 2, "no difference shown": 3, "too few": 4}


def cell(side: Figure, row: Row) -> str:
    """Median and worst: ``20.1 / 21.4 s``."""
    if side.samples and all(one == "no outage" for one in side.samples):
        return "no outage"
    stuck = "not recovered" in side.samples
    if side.value is None:
        return "not recovered" if stuck else view.NONE
    if stuck:
        return f"{view.figure(side.value, row.unit)} / not recovered"
    if side.worst is None or side.worst == side.value:
        return view.figure(side.value, row.unit)
    return f"{view.number(side.value)} / {view.figure(side.worst, row.unit)}"


def counts(row: Row) -> str:
    """How many values stand on each side."""
    return f"{row.first.n:,} {row.second.n:,}"


def difference(row: Row) -> str:
    """``+1.3 s [0.2, 2.4] (+6 %)``."""
    if row.difference is None:
        return view.NONE
    said = _signed(row.difference, row.unit)
    if row.interval is not None:
        said += f" [{_signed(row.interval[0])}, {_signed(row.interval[1])}]"
    return said + (f" ({row.percent:+.0f} %)" if row.percent is not None and abs(row.percent) >= 0.5 else "")


def _signed(value: float, unit: str = "") -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{view.figure(abs(value), unit)}"


def ordered(rows: Sequence[Row]) -> list[Row]:
    """What differs first."""
    return sorted(rows, key=lambda row: ORDER[row.verdict])


def notes(found: Comparison) -> Iterator[str]:
    """How it was compared, each way once, and how often chance would show a difference."""
    yield "median / worst of trials or runs; all requests of the steady state together"
    yield from dict.fromkeys(row.method for row in ordered(found.rows))
    if found.judged:
        survive = [r for r in found.rows if r.adjusted_p is not None and r.adjusted_p <= 1 - found.confidence]
        yield (
            f"{found.judged} metrics were tested at {1 - found.confidence:.0%} each: chance alone would "
            f"show a difference in about {found.false_alarms:.1f} of them"
            + (
                f"; allowing for that (Holm) there remain: {', '.join(r.metric for r in survive)}"
                if survive
                else ""
            )
        )


def answer(found: Comparison) -> str:
    """One line."""
    counts = [f"{found.word(word)} {word}" for word in ORDER if found.word(word)]
    return f"{found.scenario}: {', '.join(counts)}" if counts else f"{found.scenario}: nothing to compare"


class ComparisonTable:
    """What ``lab compare`` prints."""

    def __init__(self, found: Comparison) -> None:
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self.found
        for name, runs in (("first", found.first), ("second", found.second)):
            yield Text.assemble((f"{name:<7}", "bold"), ", ".join(runs))
        for warning in found.warnings:
            yield Text(f"! {warning}", style="bold red" if warning.startswith("NOT ") else "yellow")
        for field, (a, b) in found.differs.items():
            yield Text.assemble(("differs ", "dim"), f"{field}: {a} → {b}")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
        table.add_column("metric", no_wrap=True)
        table.add_column("first", justify="right", overflow="fold")
        table.add_column("second", justify="right", overflow="fold")
        table.add_column("n", justify="right", no_wrap=True, style="dim")
        table.add_column("difference [95 %]", justify="right", overflow="fold")
        table.add_column("verdict", no_wrap=True)
        for row in ordered(found.rows):
            style = STYLE[row.verdict]
            table.add_row(
                Text(row.metric), cell(row.first, row), cell(row.second, row), counts(row), difference(row),
                Text(row.verdict, style=style),
            )  # fmt: skip
        yield Text("")
        yield table
        for note in notes(found):
            yield Text(f"· {note}", style="dim")
        yield Text(answer(found), style="bold")


def markdown(found: Comparison) -> str:
    """The same for a pull request or a note."""
    lines = [f"### {answer(found)}", ""]
    lines += [f"- first: {', '.join(found.first)}", f"- second: {', '.join(found.second)}"]
    lines += [f"- **{warning}**" for warning in found.warnings]
    lines += [f"- differs: `{field}`: {a} → {b}" for field, (a, b) in found.differs.items()]
    lines += [
        "",
        "| metric | first | second | n | difference [95 %] | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        "| " + " | ".join(text.replace("|", "\\|") for text in (
            f"`{row.metric}`", cell(row.first, row), cell(row.second, row), counts(row), difference(row),
            row.verdict,
        )) + " |"
        for row in ordered(found.rows)
    ]  # fmt: skip
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(found)), ""])
