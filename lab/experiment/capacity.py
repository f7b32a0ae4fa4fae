"""The experiment ``capacity``: what a lab carries within an objective, step by step.

Open-loop steps look for the knee (``ladder``), each judged by the objective, its steadiness (``steady``) and
the generator's own lateness; a step that is not steady is run once more for twice as long. Beside it a closed
loop over rising concurrency, for the scalability law. A cell is one step; its ``result`` holds ``step`` (the
figures), ``good`` and ``why``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lab.driver import Lab
from lab.errors import RecordError, UsageError
from lab.experiment.core import Experiment, experiment
from lab.experiment.ladder import Ladder, Step
from lab.experiment.slo import Objective, parse_slo
from lab.experiment.step import COLUMNS, StepFigures, faults, measure
from lab.load import LoadSpec
from lab.record.reader import RecordReader
from lab.scenario.progress import Progress

NAME = "capacity"
SAMPLES = 1500
"""Requests that a step should have, so that its p99 can be told when its warm-up is cut."""
LONGEST_S = 60.0
LEVELS = (1, 2, 4, 6, 8, 12, 16, 24)
CLOSED_S = 5.0


@dataclass(frozen=True)
class CapacityPlan:
    """What is measured. Rates per second, durations seconds."""

    workload: str
    slo: str
    rate: float
    """Of the first step."""
    users: int | None = None
    pool: str | None = None
    workers: int = 1
    step_s: float = 8.0
    repeats: int = 2
    precision: float = 0.08
    most: float = 20_000.0
    now: float | None = None
    """Rate that is carried today, for the headroom."""
    levels: tuple[int, ...] = LEVELS
    """Concurrency of the closed loop; empty: none."""


def run_capacity(
    lab: Lab,
    plan: CapacityPlan,
    *,
    seed: int,
    runs: Path,
    command: str = "",
    resume: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Measure, and return the run record.

    Args:
        resume: the record of an interrupted run; its steps are not measured again.

    Raises:
        UsageError: the plan does not fit the lab, or the record to resume is another plan's.
        LabError: something could not be started or recorded.
    """
    slo = parse_slo(plan.slo)
    earlier = _earlier(resume, lab, plan) if resume else []
    steps_s = 24 * (plan.step_s + 10) + len(plan.levels) * (CLOSED_S + 8)
    with experiment(
        lab,
        NAME,
        title=f"Capacity under {plan.workload}",
        claim=f"How much of {plan.workload} the topology carries within {slo.text}, and what ends it.",
        seed=seed,
        deadline_s=max(1800.0, 3 * steps_s),
        pool=plan.pool,
        runs_dir=runs,
        command=command,
        progress=progress,
    ) as run:
        load = {**asdict(plan), "resumes": str(resume.resolve().name) if resume else None}
        run.record.update(load=load)
        _climb(run, plan, slo, [row for row in earlier if row["parameters"]["loop"] == "open"])
        done = {row["parameters"]["users"] for row in earlier if row["parameters"]["loop"] == "closed"}
        for level in plan.levels:
            if level not in done:
                _closed(run, plan, level)
        return run.record.path


def _climb(run: Experiment, plan: CapacityPlan, slo: Objective, earlier: Sequence[dict[str, Any]]) -> None:
    ladder = Ladder(plan.rate, precision=plan.precision, repeats=plan.repeats, most=plan.most, least=5.0)
    steps: list[Step] = [(row["parameters"]["rate"], row["result"]["good"]) for row in earlier]
    while (rate := ladder.following(steps)) is not None:
        repeat = 1 + sum(1 for known, _ in steps if known == rate)
        good = _open(run, plan, slo, rate, repeat)
        steps.append((rate, good))


def _open(run: Experiment, plan: CapacityPlan, slo: Objective, rate: float, repeat: int) -> bool:
    length = min(LONGEST_S, max(plan.step_s, SAMPLES / rate))
    with run.cell(f"{rate:g}/s", repeat=repeat, loop="open", rate=rate, users=plan.users) as cell:
        spec = LoadSpec(
            workload=plan.workload,
            rate=rate,
            users=plan.users,
            pool=plan.pool,
            workers=plan.workers,
            seed=run.seed + 1000 * cell.number,
        )
        figures, why = _step(run, cell, _lasting(spec, length), slo)
        # Beyond capacity it will not become steady: more time is for a step that may keep the objective.
        if figures is not None and _undecided(figures, why, slo) and length * 2 <= LONGEST_S:
            cell.result.pop("load", None)
            cell.begin = run.now()
            length *= 2
            figures, why = _step(run, cell, _lasting(spec, length), slo)
        cell.parameters["seconds"] = length
        cell.result |= {"step": figures.as_json() if figures else None, "good": not why, "why": why}
    said = ", ".join(why) or "good"
    p99 = figures.response["p99"] if figures else None
    told = f"p99 {p99:.1f} ms, " if p99 is not None else ""
    run.progress.say(f"{rate:g}/s: {told}{said}", "green" if not why else "yellow")
    return not why


def _undecided(figures: StepFigures, why: Sequence[str], slo: Objective) -> bool:
    unknown = slo.percentile is not None and figures.response.get(slo.percentile[0]) is None
    return unknown or (not figures.steady and not why)


def _lasting(spec: LoadSpec, seconds: float) -> LoadSpec:
    return LoadSpec(**{**vars(spec), "duration_s": seconds})


def _step(run: Experiment, cell: Any, spec: LoadSpec, slo: Objective) -> tuple[StepFigures | None, list[str]]:
    begin = run.now()
    result = run.load(cell, spec)
    figures = measure(_requests(run, begin), spec.duration_s)
    return figures, faults(figures, slo, result.lag_p99_ms)


def _requests(run: Experiment, since: int) -> Any:
    return RecordReader(run.record.path).table("requests", COLUMNS, filters=pc.field("intended") >= since)


def _closed(run: Experiment, plan: CapacityPlan, level: int) -> None:
    with run.cell(f"N = {level}", loop="closed", users=level, seconds=CLOSED_S) as cell:
        spec = LoadSpec(
            workload=plan.workload,
            users=level,
            pool=plan.pool,
            workers=min(plan.workers, level),
            arrivals="closed",
            duration_s=CLOSED_S,
            seed=run.seed + 1000 * cell.number,
        )
        begin = run.now()
        run.load(cell, spec)
        figures = measure(_requests(run, begin), CLOSED_S)
        cell.result |= {"step": figures.as_json() if figures else None}
    if figures is not None:
        run.progress.say(f"N = {level}: {figures.throughput:.0f}/s", "dim")


def _earlier(resume: Path, lab: Lab, plan: CapacityPlan) -> list[dict[str, Any]]:
    """Cells of an interrupted run, and of those that it went on from itself."""
    record = RecordReader(resume)
    head, load = record.manifest, record.manifest.load or {}
    if head.scenario != NAME:
        raise UsageError(f"{resume} is a record of {head.scenario}, not of a capacity run")
    for name, mine, theirs in (
        ("topology", lab.topology.name, head.topology),
        ("lab's scale", lab.allocation.scale, head.scale),
        *(
            (field, getattr(plan, field), load.get(field))
            for field in ("workload", "slo", "users", "pool", "rate")
        ),
    ):
        if mine != theirs:
            raise UsageError(
                f"{resume} cannot be resumed: its {name} is {theirs}, not {mine}",
                hint="Steps of different plans make no curve; start a new run.",
            )
    found = []
    if load.get("resumes"):
        with contextlib.suppress(RecordError):
            found = _earlier(resume.resolve().parent / str(load["resumes"]), lab, plan)
    return [*found, *(row for row in record.cells() if row["result"].get("step") is not None)]


def estimate_s(plan: CapacityPlan) -> float:
    """About how long a run takes, seconds."""
    steps = math.log(20) / math.log(1.7) + 4 + plan.repeats
    return steps * (plan.step_s + 5) + len(plan.levels) * (CLOSED_S + 4) + 15
