"""Two scorecards of the same promises: what became better or worse, and whether that is more than chance.

A change of verdict is shown as it is. Whether a figure changed is told by ``reports/compare.py``, from the
runs of one scenario on one topology on either side; with one run and few trials that is mostly *too few*.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from reports.compare import Comparison, compare
from reports.findings import Status, Value
from reports.scorecard import Row, Run, Scorecard


class Change(Value):
    """One promise then and now."""

    key: str
    target: str
    topology: str
    metric: str
    unit: str
    before: Status | None
    """None: the promise was not there."""
    after: Status | None
    value_before: float | None = None
    value_after: float | None = None
    word: str = ""
    """better, worse, different, no difference shown, too few; empty: nothing to compare."""
    why: str = ""
    """How it was compared, or why it could not be."""

    @property
    def worse(self) -> bool:
        """A verdict that held and does not hold now, or a figure shown to be worse."""
        return (self.before == "met" and self.after == "not met") or self.word == "worse"

    @property
    def changed(self) -> bool:
        return self.before != self.after or self.word in ("better", "worse", "different")


def changes(before: Scorecard, after: Scorecard, old: Path, new: Path) -> list[Change]:
    """Every promise of either scorecard, what changed first.

    Args:
        old, new: folders of the verifications, with their runs.
    """
    a, b = ({row.key: row for row in card.rows} for card in (before, after))
    pairs = _compared(before, after, old, new)
    found = [_change(key, a.get(key), b.get(key), pairs) for key in dict.fromkeys([*b, *a])]
    return sorted(found, key=lambda one: (not one.worse, not one.changed))


Pairs = Mapping[tuple[str, str], Comparison | str]
"""(topology, scenario) → the comparison, or why there is none."""


def _compared(before: Scorecard, after: Scorecard, old: Path, new: Path) -> Pairs:
    first, second = _by_story(before), _by_story(after)
    found: dict[tuple[str, str], Comparison | str] = {}
    for key in first.keys() & second.keys():
        one, other = (old / first[key].folder).resolve(), (new / second[key].folder).resolve()
        if one == other:
            found[key] = "it is the same run"
            continue
        try:
            # Settings may be what changed: that is the question here.
            found[key] = compare([one], [other], force=True)
        except LabError as error:
            found[key] = str(error)
    return found


def _by_story(card: Scorecard) -> dict[tuple[str, str], Run]:
    return {(run.topology, run.scenario): run for run in card.runs}


def _change(key: str, before: Row | None, after: Row | None, pairs: Pairs) -> Change:
    row = after or before
    assert row is not None
    target = row.verdict.target
    word, why = _word(target.metric, row, pairs) if before and after else ("", "")
    return Change(
        key=key,
        target=target.id,
        topology=row.topology,
        metric=target.metric,
        unit=target.unit,
        before=before.verdict.status if before else None,
        after=after.verdict.status if after else None,
        value_before=_value(before),
        value_after=_value(after),
        word=word,
        why=why,
    )


def _value(row: Row | None) -> float | None:
    return row.verdict.finding.value if row and row.verdict.finding else None


def _word(metric: str, row: Row, pairs: Pairs) -> tuple[str, str]:
    for (topology, scenario), found in pairs.items():
        if topology != row.topology or scenario not in row.verdict.target.scenarios:
            continue
        if isinstance(found, str):
            return "", found
        line = next((one for one in found.rows if one.metric == metric), None)
        if line is not None:
            return line.verdict, "; ".join([*found.warnings[:1], line.method])
    return "", ""
