"""From the runs of a verification to its scorecard: analyse each, judge each promise, collect."""

from __future__ import annotations

import datetime as dt
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import terminal
from lab.errors import RecordError
from lab.record.reader import RecordReader
from lab.topology.models import Topology
from lab.verify import State
from reports import pipeline
from reports.findings import Target
from reports.paper import check, paper_of
from reports.scorecard import Row, Run, Said, Scorecard, rows_of

Say = Callable[[str], None]


def scorecard(
    folder: Path, state: State, topologies: Sequence[Topology], extra: Sequence[Path] = (), say: Say = print
) -> Scorecard:
    """The scorecard of a verification.

    Args:
        folder: of the verification, with the run records.
        topologies: as they ran, with their settings.
        extra: further run records, which answer promises of their topologies.

    Raises UsageError where a targets file is wrong, RecordError where a record given in ``extra`` is damaged.
    """
    papers = {topology.name: paper_of(topology) for topology in topologies}
    targets = {name: paper.targets for name, paper in papers.items()}
    said: dict[str, dict[str, list[Said]]] = defaultdict(lambda: defaultdict(list))
    runs: list[Run] = []
    notes: list[str] = []
    machine = ""
    scales: dict[str, list[str]] = {}
    """Scale of the instance classes → the topologies that ran at it."""
    records = [(folder / job.record, True) for job in state.jobs if job.record]
    for path, own in [*records, *((path, False) for path in extra)]:
        say(f"analysing {path.name}")
        try:
            run, found, told, scale = _one(path, folder, targets)
        except RecordError as error:
            if not own:
                raise
            notes.append(f"{path.name} cannot be read: {error}")
            continue
        runs.append(run)
        notes += told[1:]
        machine = machine or told[0]
        scales.setdefault(scale, []).append(run.topology)
        for one in found:
            said[run.topology][one.verdict.target.id].append(one)
    notes += [f"{job.scenario} on {job.topology} failed: {job.error}" for job in state.jobs if job.error]
    rows: list[Row] = []
    for topology in topologies:
        paper = papers[topology.name]
        unanswered = {
            key.partition(" ")[2]: why
            for key, why in state.unanswered.items()
            if key.partition(" ")[0] == topology.name
        }
        unanswered |= _failed(paper.targets, topology.name, state)
        rows += rows_of(topology, paper.targets, check(paper), said[topology.name], unanswered)
    answers = [row.run for row in rows]
    return Scorecard(
        name=state.asked.name,
        quick=state.asked.quick,
        started=state.started_wall,
        seconds=state.seconds,
        settings=state.asked.settings,
        complete=state.state == "closed",
        machine=", ".join([machine, *_scaled(scales)] if machine else []),
        notes=tuple(dict.fromkeys(notes)),
        rows=tuple(rows),
        runs=tuple(run.model_copy(update={"answers": answers.count(run.name)}) for run in runs),
    )


def _scaled(scales: dict[str, list[str]]) -> list[str]:
    """``instance classes × 0.25``, with the topologies where they are not all scaled alike."""
    told = {scale: list(dict.fromkeys(names)) for scale, names in scales.items() if scale}
    if len(told) < 2:
        return [f"instance classes × {scale}" for scale in told]
    return [f"instance classes × {scale} in {', '.join(names)}" for scale, names in told.items()]


def _failed(targets: Sequence[Target], topology: str, state: State) -> dict[str, str]:
    """Target → why, where the run that was to answer it failed."""
    errors = {job.scenario: job.error for job in state.jobs if job.topology == topology and job.error}
    return {
        target.id: f"{name}: {errors[name]}"
        for target in targets
        for name in target.scenarios
        if name in errors
    }


def _one(
    path: Path, folder: Path, targets: dict[str, tuple[Target, ...]]
) -> tuple[Run, list[Said], list[str], str]:
    """(the run, what it says, the machine and then notes, its scale) of one record.

    Writes the run's report beside it.
    """
    done = pipeline.analyse_and_report(path, quiet=True)
    record = RecordReader(path)
    head = record.manifest
    known = {target.id for target in targets.get(head.topology, ())}
    charts = sorted(chart.stem for chart in done.paths["charts"].glob("*.png"))
    run = Run(
        name=head.run,
        folder=os.path.relpath(path, folder),
        topology=head.topology,
        scenario=head.scenario,
        title=_title(record),
        when=_when(head.started_wall),
        how=(f"{head.trials_done} of {head.trials_asked} trials" if head.fault else "no fault")
        + (f", load {head.load['workload']}" if head.load and head.load.get("workload") else ""),
        pictures=tuple(charts),
    )
    said = [
        Said(run=head.run, scenario=head.scenario, verdict=verdict)
        for verdict in done.verdicts
        if verdict.target.id in known
    ]
    machine = head.machine
    text = f"{machine['cores']} cores, {terminal.bytes_text(machine['memory_bytes'])}" if machine else ""
    notes = [f"substituted: {one}" for one in head.substitutions]
    notes += [f"{head.run}: {head.not_run}"] if head.not_run else []
    return run, said, [text, *notes], f"{head.scale:g}" if head.scale is not None else ""


def _title(record: RecordReader) -> str:
    import yaml

    try:
        found = yaml.safe_load(record.text("scenario.yaml") or "")
    except yaml.YAMLError:
        found = None
    title = found.get("title") if isinstance(found, dict) else None
    return str(title or record.manifest.scenario)


def _when(wall: str) -> str:
    try:
        return dt.datetime.fromisoformat(wall).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return wall
