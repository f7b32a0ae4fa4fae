"""The scorecard as Markdown: for a note, and for the pages of docs/systems."""

from __future__ import annotations

from collections.abc import Sequence

from reports import view
from reports.scorecard import Row, Scorecard
from reports.scorecard_text import answer_of, how, not_built, view_order


def markdown(card: Scorecard, *, level: int = 2) -> str:
    """One table for each environment, and what is not built yet as a list.

    Args:
        level: of the headings.
    """
    lines = [f"**{answer_of(card)[0]}.**", ""]
    if card.machine:
        lines += [f"Measured on {card.machine}{'; quick, one trial a run' if card.quick else ''}.", ""]
    if card.runs:
        said = ", ".join(f"`{run.scenario}` on {run.topology}" for run in card.runs)
        many = f"{len(card.runs)} run{'s' if len(card.runs) != 1 else ''}"
        # A verification that only judges runs made before has taken no time.
        length = f", {card.seconds / 60:.0f} min" if card.seconds else ""
        lines += [f"From {many}{length}: {said}.", ""]
    for topology in dict.fromkeys(row.topology for row in card.rows):
        lines += _environment([row for row in card.rows if row.topology == topology], level)
    return "\n".join([*lines, *(f"- {_cell(note)}" for note in card.notes)]).rstrip() + "\n"


def _environment(rows: Sequence[Row], level: int) -> list[str]:
    tested = [row for row in view_order(rows) if not not_built(row.verdict)]
    later = [row for row in rows if not_built(row.verdict)]
    lines = [f"{'#' * level} {rows[0].topology}", ""]
    if tested:
        lines += ["| promise | in the document's words | found | limit | verdict |", "|---|---|---|---|---|"]
        lines += [_line(row) for row in tested]
        lines.append("")
    if later:
        said = ", ".join(f"{row.verdict.target.id} ({row.verdict.target.not_built})" for row in later)
        lines += [f"Not run (not built yet): {_cell(said)}.", ""]
    return lines


def _line(row: Row) -> str:
    verdict = row.verdict
    why = f": {view.reason(verdict)[0]}" if verdict.status != "met" else ""
    method = how(row) or verdict.target.method
    cells = (
        f"{verdict.target.id.partition(' ')[0]}, {view.about(verdict.target)}",
        f"“{view.quote(verdict.target)}”",
        view.measured(verdict),
        view.limit(verdict),
        f"**{verdict.status}** ({method}){why}",
    )
    return f"| {' | '.join(_cell(text) for text in cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
