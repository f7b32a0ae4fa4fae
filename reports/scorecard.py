"""The scorecard: every promise of one or more systems, and what all runs of a verification say of it.

A promise is *not met* where any run refutes it; else *met* where a run that can prove it says so; else it is
what the most telling run says. Beside the verdict stands every run that had a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lab.errors import LabError, UsageError
from lab.topology.models import Topology
from reports import view
from reports.findings import Status, Target, Value, Verdict

FILE = "scorecard.json"
FOLDER = "report"
ORDER: tuple[Status, ...] = ("not met", "met", "inconclusive", "invalid", "not run")
"""Of several runs' verdicts the first of these counts."""
PICTURES: tuple[tuple[str, str], ...] = (
    ("rto.", "waterfall"), ("failover.", "waterfall"), ("rpo.", "timeline"), ("ledger.", "timeline"),
    ("pool.overhead_reduction", "pooling-overhead"), ("pool.efficiency", "pooling-overhead"),
    ("prepared.", "pooling-rates"), ("pool.", "pool"), ("pool.", "pooling-modes"),
    ("capacity.", "capacity-curves"), ("alarm.", "alarms"), ("db.cpu", "cpu"), ("query.", "timeline"),
    ("reads.", "reads"), ("analytics.", "reads"), ("batch.", "reads"), ("reads.", "replication"),
    ("cache.", "cache"), ("redis.", "redis"), ("", "timeline"),
)  # fmt: skip
"""Beginning of a metric → the chart of a run that shows it; the first whose picture is there."""


class Said(Value):
    """What one run says of a promise."""

    run: str
    """Name of its record."""
    scenario: str
    verdict: Verdict


class Row(Value):
    """One promise of one environment."""

    system: str
    environment: str
    topology: str
    verdict: Verdict
    """The one that counts."""
    run: str | None = None
    """The run that it comes from."""
    others: tuple[Said, ...] = ()
    """What the other runs say."""

    @property
    def key(self) -> str:
        return f"{self.topology} {self.verdict.target.id}"


class Run(Value):
    """A run of the verification."""

    name: str
    folder: str
    """Relative to the record of the verification."""
    topology: str
    scenario: str
    title: str
    when: str
    how: str
    answers: int = 0
    """Promises whose verdict comes from it."""
    pictures: tuple[str, ...] = ()
    """Charts, by the names of their files."""


class Scorecard(Value):
    """All of it."""

    schema_version: int = 1
    name: str
    quick: bool
    """One trial a run."""
    started: str
    seconds: float
    settings: tuple[str, ...] = ()
    """Changes to the topologies as the lab has them."""
    complete: bool = True
    machine: str = ""
    notes: tuple[str, ...] = ()
    """Stand-ins, substituted versions, runs that failed: each said once."""
    rows: tuple[Row, ...] = ()
    runs: tuple[Run, ...] = Field(default_factory=tuple)

    @property
    def verdicts(self) -> list[Verdict]:
        return [row.verdict for row in self.rows]


def rows_of(
    topology: Topology,
    targets: Iterable[Target],
    paper: Sequence[Verdict],
    said: Mapping[str, Sequence[Said]],
    unanswered: Mapping[str, str],
) -> list[Row]:
    """One row for each promise of a topology, and one for each contradiction on paper beyond them.

    Args:
        targets: those that concern the topology's environment.
        paper: what ``reports.paper.check`` says of it.
        said: target's id → what runs on this topology say.
        unanswered: target's id → why nothing could be run for it.
    """
    on_paper = {verdict.target.id: verdict for verdict in paper}
    ids = set()
    rows = []
    for target in targets:
        ids.add(target.id)
        verdict, run, others = _decide(target, on_paper, said.get(target.id, ()), unanswered)
        rows.append(_row(topology, verdict, run, others))
    # What paper alone finds counts where it contradicts: that it holds is no test of the promise.
    rows += [_row(topology, v) for v in paper if v.target.id not in ids and v.status == "not met"]
    return rows


def _row(topology: Topology, verdict: Verdict, run: str | None = None, others: Sequence[Said] = ()) -> Row:
    return Row(
        system=topology.system, environment=topology.environment, topology=topology.name,
        verdict=verdict, run=run, others=tuple(others),
    )  # fmt: skip


def _decide(
    target: Target, paper: Mapping[str, Verdict], said: Sequence[Said], unanswered: Mapping[str, str]
) -> tuple[Verdict, str | None, list[Said]]:
    if target.method == "on paper" and target.id in paper:
        return paper[target.id], None, []
    if target.not_built:
        return _not_run(target, f"not built yet: {target.not_built}"), None, []
    if not said:
        why = unanswered.get(target.id, "no run of this verification yields it")
        return _not_run(target, why), None, []
    chosen = min(said, key=lambda one: _rank(one, target))
    return chosen.verdict, chosen.run, [one for one in said if one is not chosen]


def _rank(said: Said, target: Target) -> tuple[int, bool, float]:
    """Less counts more: the status, then whether the run can prove the promise, then the worse figure."""
    proves = not target.proven_by or said.scenario in target.proven_by
    status = said.verdict.status
    if status == "met" and not proves:
        status = "inconclusive"
    found = said.verdict.finding
    value = found.value if found is not None and found.value is not None else None
    if value is None:
        worse = math.inf if view.measured(said.verdict) == view.NONE else 0.0
    else:
        worse = value if target.comparison in (">", ">=") else -value
    return (ORDER.index(status), not proves, worse)


def _not_run(target: Target, why: str) -> Verdict:
    return Verdict(target=target, status="not run", why=why)


def picture_of(row: Row, runs: Mapping[str, Run]) -> str | None:
    """The chart of the row's run that shows its metric best; None where there is none."""
    run = runs.get(row.run or "")
    if run is None:
        return None
    metric = row.verdict.target.metric
    wanted = [chart for opening, chart in PICTURES if metric.startswith(opening)]
    return next((chart for chart in wanted if chart in run.pictures), None)


# On disk


def save(card: Scorecard, folder: Path) -> Path:
    """Write ``report/scorecard.json`` and ``.md`` below a verification's folder; the path of the former."""
    from reports.scorecard_markdown import markdown

    path = folder / FOLDER / FILE
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(card.model_dump(mode="json"), ensure_ascii=False) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(markdown(card), encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}") from error
    return path


def load(folder: Path) -> Scorecard:
    """The scorecard of a verification. UsageError where there is none."""
    path = folder / FOLDER / FILE
    try:
        return Scorecard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{folder} has no scorecard: {error.strerror or error}",
            hint="Give the folder of an earlier verification, runs/<time>-verify-<system>.",
        ) from error
    except ValidationError as error:
        raise UsageError(f"{path} is damaged or of another version: {error.errors()[0]['msg']}") from error


def as_json(card: Scorecard, changes: Sequence[Any] = ()) -> dict[str, Any]:
    """The document of ``lab verify --json``."""
    document = card.model_dump(mode="json")
    document["exit_code"] = int(view.exit_code(card.verdicts))
    document["answer"] = view.answer(card.verdicts)[0]
    document["changes"] = [one.model_dump(mode="json") for one in changes]
    return document
