"""The verdicts as Markdown, for a pull request or a CI job's summary."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from reports import view
from reports.analysis.model import Analysis
from reports.experiments import Outcome
from reports.findings import Verdict

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
ICON = {"met": "✅", "not met": "❌", "inconclusive": "❔", "not run": "➖", "invalid": "⚠️"}


def safe(text: str) -> str:
    """Text that Markdown, and HTML inside it, shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False)).replace("@", "&#64;")


def summary(analysis: Analysis, verdicts: Sequence[Verdict], outcome: Outcome | None = None) -> str:
    """The page: the answer, the verdicts, the headlines, the trials; of an experiment its tables."""
    head = analysis.manifest
    said, _ = view.answer(verdicts)
    lines = [
        f"## {safe(head.scenario)} on {safe(head.topology)}",
        "",
        f"**{safe(said)}.** {safe(outcome.lead if outcome else view.lead(analysis))}".strip(),
        "",
    ]
    lines += _table(
        ("Verdict", "Promise", "Measured", "Limit", "n", "Why"),
        [
            (
                f"{ICON[v.status]} {v.status}",
                f"**{safe(view.about(v.target))}**<br>“{safe(view.quote(v.target))}”",
                safe(view.measured(v)),
                safe(view.limit(v)),
                str(view.trials_of(v.finding) or view.NONE),
                safe(v.why),
            )
            for v in view.ordered(verdicts)
        ],
    )
    lines += _table(
        ("Figure", "Value", ""),
        [
            (safe(h.label), f"**{safe(h.value)}**", safe(h.detail))
            for h in (outcome.headlines if outcome else view.headlines(analysis))
        ],
    )
    for section in outcome.sections if outcome else ():
        lines += [f"### {safe(section.title)}", ""]
        lines += [line for text in section.text for line in (safe(text), "")]
        for table in section.tables:
            lines += _table(
                [safe(name) for name in table.head], [[safe(c) for c in row] for row in table.rows]
            )
            lines += [safe(table.note), ""] if table.note else []
    if analysis.trials:
        lines += _table(
            ("Trial", "Writes", "Parts", "Lost", "Reads", ""),
            [
                (
                    str(t.trial),
                    safe(view.figure(t.write.seconds, "s") if t.write.seconds is not None else t.write.state),
                    safe(parts(t.breakdown)),
                    f"{t.ledger.lost:,}" if t.ledger.complete else view.NONE,
                    safe(view.figure(t.read.seconds, "s") if t.read.seconds is not None else t.read.state),
                    safe("; ".join(t.invalid)),
                )
                for t in analysis.trials
            ],
        )
    machine = head.machine
    lines.append(
        safe(
            f"Run {analysis.run}; {view.how(analysis)}; seed {head.seed}; "
            f"machine: {machine.get('cores', '?')} cores, "
            f"scale factor {view.number(head.scale)}."
        )
    )
    for text in (*head.substitutions, *(f"not built: {part}" for part in head.not_built), *head.notes):
        lines.append(f"- {safe(text)}")
    return "\n".join(lines) + "\n"


def parts(breakdown: object) -> str:
    """``detect 18.1, elect 0.4, … s`` of a breakdown; a dash for None."""
    known = [(p.name, p.seconds) for p in getattr(breakdown, "parts", ()) if p.seconds is not None]
    rest = getattr(breakdown, "unattributed", None)
    if rest:
        known.append(("unattributed", rest))
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in known) or view.NONE


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return [*lines, ""]
