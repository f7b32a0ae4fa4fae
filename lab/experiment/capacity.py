"""The experiment ``capacity``: what a lab carries within an objective, step by step.

Open-loop steps look for the knee (``ladder``), each judged by the objective, its steadiness (``steady``) and
the generator's own lateness; a step that is not steady is run once more for twice as long. Then every rate is
repeated, for the spread. Beside it a closed loop over rising concurrency, for the scalability law. A cell is
one step; its ``result`` holds ``step`` (the figures), ``good`` and ``why``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lab.driver import Lab
from lab.errors import RecordError, UsageError
from lab.experiment.core import Cell, Experiment, experiment
from lab.experiment.jobs import Job, Kind
from lab.experiment.ladder import FACTOR, Ladder, Step
from lab.experiment.slo import DEFAULT, Objective, parse_slo
from lab.experiment.step import COLUMNS, QUANTILES, StepFigures, faults, measure
from lab.load import LoadSpec, default_workload, workload_for
from lab.record.reader import RecordReader
from lab.scenario.progress import Progress
from lab.topology.models import Topology
from loadtests.workloads import list_workloads

NAME = "capacity"
BEYOND = 15
"""Requests beyond the objective's percentile that a step should have; ten are needed once warm-up is cut."""
LONGEST_S = 60.0
CELL_S = 5.0
"""What a step takes beside its load: to bring it to the client, connect, drain and fetch."""


@dataclass(frozen=True)
class Depth:
    """How thoroughly it is measured."""

    step_s: float = 12.0
    """Length of a step."""
    repeats: int = 2
    precision: float = 0.05
    """First bad ÷ last good − 1 at which the search for the knee ends."""
    levels: tuple[int, ...] = (1, 2, 4, 6, 8, 12, 16, 24)
    """Concurrency of the closed loop; empty: none."""
    closed_s: float = 8.0


FULL = Depth()
"""10 to 13 minutes on a quiet machine."""
QUICK = Depth(step_s=6.0, repeats=1, precision=0.25, levels=(1, 2, 4, 8, 12, 16), closed_s=3.0)
"""4 to 5 minutes: a knee within a quarter, and the law from the fewest levels that it takes."""


@dataclass(frozen=True)
class CapacityPlan:
    """What is measured. Rates per second."""

    workload: str
    slo: str
    rate: float
    """Of the first step."""
    users: int | None = None
    pool: str | None = None
    workers: int = 1
    most: float = 20_000.0
    now: float | None = None
    """Rate that is carried today, for the headroom."""
    depth: Depth = FULL


def plan_for(
    topology: Topology, *, workload: str | None = None, slo: str | None = None, quick: bool = False
) -> CapacityPlan:
    """What ``lab capacity`` measures unless told otherwise.

    The first rate is the workload's own, which also is what is taken to be carried today: much less takes
    minutes a step for the requests of a p99.

    Raises UsageError where the workload does not fit the topology.
    """
    name = workload or default_workload(topology)
    own = workload_for(topology, name).rate
    return CapacityPlan(
        workload=name,
        slo=parse_slo(slo or DEFAULT).text,
        rate=own,
        now=own,
        depth=QUICK if quick else FULL,
    )


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
    slo, depth = parse_slo(plan.slo), plan.depth
    earlier = earlier_cells(resume, plan, lab.topology.name, lab.allocation.scale) if resume else []
    known = list_workloads()
    background = known[plan.workload].background(known) if plan.workload in known else ()
    with experiment(
        lab,
        NAME,
        title=f"Capacity under {plan.workload}",
        claim=f"How much of {plan.workload} the topology carries within {slo.text}, and what ends it.",
        seed=seed,
        deadline_s=max(1800.0, 4 * estimate_s(plan)),
        pool=plan.pool,
        runs_dir=runs,
        command=command,
        progress=progress,
    ) as run:
        run.record.update(
            load={
                **asdict(plan),
                "background": list(background),
                "resumes": str(resume.resolve().name) if resume else None,
            }
        )
        if earlier:
            run.progress.say(f"{len(earlier)} steps are there already")
        steps = _Steps(run, plan, slo, background)
        try:
            steps.climb([row for row in earlier if row["parameters"]["loop"] == "open"])
            done = {row["parameters"]["users"] for row in earlier if row["parameters"]["loop"] == "closed"}
            for level in depth.levels:
                if level not in done:
                    steps.closed(level)
        except KeyboardInterrupt:
            run.progress.say(
                f"its steps count when it goes on: the same command with --resume {run.record.path}"
            )
            raise
        return run.record.path


def samples(slo: Objective) -> float:
    """Requests that a step should have for the objective's percentile: 1,500 for a p99."""
    return (
        BEYOND / (1 - QUANTILES.get(slo.percentile[0].removesuffix("(all)"), 0.5)) if slo.percentile else 1.0
    )


@dataclass(frozen=True)
class _Steps:
    """Measures steps, one after the other."""

    run: Experiment
    plan: CapacityPlan
    slo: Objective
    background: tuple[str, ...]

    def climb(self, earlier: Sequence[dict[str, Any]]) -> None:
        """Look for the knee with open-loop steps. ``earlier``: cells that are there already."""
        depth = self.plan.depth
        ladder = Ladder(
            self.plan.rate,
            precision=depth.precision,
            repeats=depth.repeats,
            most=self.plan.most,
            least=max(1.0, samples(self.slo) / LONGEST_S),
        )
        steps: list[Step] = [(row["parameters"]["rate"], row["result"]["good"]) for row in earlier]
        while (rate := ladder.following(steps)) is not None:
            repeat = 1 + sum(1 for known, _ in steps if known == rate)
            good, bad = ladder.bracket(steps)
            if good is not None and bad is not None:
                self.run.progress.say(f"the knee lies between {good:g} and {bad:g}/s", "dim")
            steps.append((rate, self._open(rate, repeat)))

    def _open(self, rate: float, repeat: int) -> bool:
        run, plan = self.run, self.plan
        length = min(LONGEST_S, max(plan.depth.step_s, samples(self.slo) / rate))
        with run.cell(f"{rate:g}/s", repeat=repeat, loop="open", rate=rate, users=plan.users) as cell:
            spec = self._spec(cell, rate=rate, users=plan.users, duration_s=length)
            figures, why = self._judged(cell, spec)
            # Beyond capacity it will not become steady: more time is for a step that may keep the objective.
            if figures is not None and length * 2 <= self._longest(figures, why):
                cell.result.pop("load", None)
                cell.begin = run.now()
                length *= 2
                figures, why = self._judged(cell, replace(spec, duration_s=length))
            cell.parameters["seconds"] = length
            cell.result |= {"step": figures.as_json() if figures else None, "good": not why, "why": why}
        said = ", ".join(why) or "good"
        p99 = figures.response["p99"] if figures else None
        told = f"p99 {p99:.1f} ms, " if p99 is not None else ""
        run.progress.say(f"{rate:g}/s: {told}{said}", "green" if not why else "yellow")
        return not why

    def closed(self, level: int) -> None:
        """One level of concurrency in a closed loop."""
        run, seconds = self.run, self.plan.depth.closed_s
        with run.cell(f"N = {level}", loop="closed", users=level, seconds=seconds) as cell:
            spec = self._spec(cell, users=level, arrivals="closed", duration_s=seconds)
            figures, _ = self._measured(cell, replace(spec, workers=min(spec.workers, level)))
            cell.result |= {"step": figures.as_json() if figures else None}
        if figures is not None:
            run.progress.say(f"N = {level}: {figures.throughput:.0f}/s", "dim")

    def _spec(self, cell: Cell, **values: Any) -> LoadSpec:
        plan, seed = self.plan, self.run.seed + 1000 * cell.number
        return LoadSpec(workload=plan.workload, pool=plan.pool, workers=plan.workers, seed=seed, **values)

    def _judged(self, cell: Cell, spec: LoadSpec) -> tuple[StepFigures | None, list[str]]:
        figures, lag_p99_ms = self._measured(cell, spec)
        return figures, faults(figures, self.slo, lag_p99_ms)

    def _measured(self, cell: Cell, spec: LoadSpec) -> tuple[StepFigures | None, float | None]:
        run = self.run
        begin = run.now()
        result = run.load(cell, spec)
        rows = RecordReader(run.record.path).table("requests", COLUMNS, filters=pc.field("intended") >= begin)
        return measure(rows, spec.duration_s, self.background), result.lag_p99_ms

    def _longest(self, figures: StepFigures, why: Sequence[str]) -> float:
        """How long a step may be that is run once more, seconds; 0: it need not be.

        Where the warm-up left too few requests to tell the percentile, twice the usual: half of a step is cut
        at most, so that what is left is enough. Untold, it would count as a broken objective.
        """
        term = self.slo.percentile
        if term is not None and figures.shares().get(term[0]) is None:
            return 2 * LONGEST_S
        return LONGEST_S if not figures.steady and not why else 0.0


def earlier_cells(
    resume: Path, plan: CapacityPlan, topology: str, scale: float | None = None
) -> list[dict[str, Any]]:
    """Cells of an interrupted run, and of those that it went on from itself.

    Args:
        scale: the lab's; None: there is no lab yet.

    Raises:
        UsageError: it is the record of something else, or of another plan.
        RecordError: it cannot be read.
    """
    record = RecordReader(resume)
    head, load = record.manifest, record.manifest.load or {}
    if head.scenario != NAME:
        raise UsageError(f"{resume} is a record of {head.scenario}, not of a capacity run")
    for name, mine, theirs in (
        ("topology", topology, head.topology),
        ("lab's scale", head.scale if scale is None else scale, head.scale),
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
            found = earlier_cells(resume.resolve().parent / str(load["resumes"]), plan, topology, scale)
    return [*found, *(row for row in record.cells() if row["result"].get("step") is not None)]


def estimate_s(plan: CapacityPlan) -> float:
    """About how long a run takes on a quiet machine, seconds: a knee at 8 times the first rate."""
    depth, wanted = plan.depth, samples(parse_slo(plan.slo))
    up = math.ceil(math.log(8) / math.log(FACTOR)) + 1
    rates = [plan.rate * FACTOR**i for i in range(up)]
    rates += [rates[-1]] * math.ceil(math.log2(math.log(FACTOR) / math.log(1 + depth.precision)))
    steps = depth.repeats * sum(min(LONGEST_S, max(depth.step_s, wanted / r)) + CELL_S for r in rates)
    return 15 + steps + len(depth.levels) * (depth.closed_s + CELL_S)


def _job(topology: Topology, quick: bool) -> Job:
    plan = plan_for(topology, quick=quick)
    return Job(
        name=NAME, settings=asdict(plan), trials=plan.depth.repeats, estimate_s=round(estimate_s(plan), 1)
    )


def _run_job(lab: Lab, settings: Mapping[str, Any], *, runs_dir: Path, **how: Any) -> Path:
    plan = CapacityPlan(**{**settings, "depth": Depth(**settings["depth"])})
    return run_capacity(lab, plan, runs=runs_dir, **how)


JOB = Kind(NAME, _job, _run_job)
