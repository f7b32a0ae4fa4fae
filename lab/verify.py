"""What has to run so that every promise is answered, and the folder in which that is remembered.

A *need* is a promise on one topology with the scenarios any of which answers it. The least set of scenarios
is the cheapest by its estimated time (a weighted set cover, solved exactly by scipy's ``milp``), for each
topology on its own, since they share nothing. What runs are cells of ``lab/matrix.py``, each a scenario or an
experiment: one whose closed record is there does not run again.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from lab.errors import LabError, UsageError
from lab.experiment.jobs import plan_job
from lab.matrix import (
    LAB_SWITCH_S,
    Cell,
    Matrix,
    Result,
    Variant,
    cells,
    estimate_s,
    finished,
    run_cells,
    run_s,
    seed_of,
    switches,
)
from lab.scenario.loader import list_scenarios, load_scenario, split_overrides
from lab.topology.models import Model

if TYPE_CHECKING:
    from lab.labs import Labs
    from lab.scenario.progress import Progress
    from lab.topology.models import Topology

STATE = "verify.json"
SEED = 1
ANALYSIS_S = 10.0
"""About what analysing a run and drawing its report takes."""
ANYWHERE = "tpcb"
"""Workload for topologies that lack the schema of a scenario's own: it works on any."""
ANYWHERE_BROKEN = "bank"
"""The same where something is broken: it too works on any, and its totals tell whether they survive that."""


class Need(Model):
    """A promise on one topology."""

    topology: str
    target: str
    """Its id."""
    scenarios: tuple[str, ...]
    """Scenarios and experiments any of which answers it."""
    trials: int = 1
    """How many a scenario has to run for it."""


class Asked(Model):
    """What a verification was asked for; two that were asked for the same may share their runs."""

    name: str
    """``risk``, ``risk-prod``, ``all``."""
    topologies: tuple[str, ...]
    quick: bool
    settings: tuple[str, ...] = ()
    seed: int = SEED


class Job(Model):
    """One run of the plan, and what became of it."""

    topology: str
    scenario: str
    key: str
    """Of its cell."""
    estimate_s: float
    record: str | None = None
    """Name of its folder."""
    error: str = ""


class State(Model):
    """``verify.json``."""

    schema_version: int = 1
    state: Literal["running", "closed"]
    asked: Asked
    started_wall: str
    """RFC 3339, UTC."""
    ended_wall: str | None = None
    seconds: float = 0.0
    """That it has run, over all sittings."""
    jobs: tuple[Job, ...] = ()
    needs: tuple[Need, ...] = ()
    unanswered: dict[str, str] = Field(default_factory=dict)
    """``<topology> <target>`` → why none of its scenarios fits."""


@dataclass(frozen=True)
class Chosen:
    """What runs."""

    cells: tuple[Cell, ...]
    unanswered: dict[str, str]


def least_cover(wanted: Mapping[str, Collection[str]], costs: Mapping[str, float]) -> list[str]:
    """The cheapest choice that has one of each wanted set in it, sorted.

    Args:
        wanted: any key → the names any of which will do; names without a cost do not count, and what is left
            without any name asks for nothing.
        costs: name → what it costs, more than 0.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    names = sorted(costs)
    rows = {tuple(name in by for name in names) for by in wanted.values()}
    table = np.array([row for row in sorted(rows) if any(row)], dtype=float)
    if not len(table):
        return []
    solved = milp(
        c=[costs[name] for name in names],
        constraints=LinearConstraint(table, lb=1),
        integrality=np.ones(len(names)),
        bounds=Bounds(0, 1),
    )
    if solved.x is None:
        raise LabError(f"no choice of scenarios was found: {solved.message}")
    return [name for name, chosen in zip(names, solved.x, strict=True) if chosen > 0.5]


def choose(needs: Sequence[Need], asked: Asked) -> Chosen:
    """The least set of runs that answers all needs, in the order in which they run.

    Raises UsageError where a topology, a scenario or a setting is wrong.
    """
    from lab.topology.loader import load_topology

    of_scenarios, of_topologies = split_overrides(list(asked.settings))
    found: list[Cell] = []
    unanswered: dict[str, str] = {}
    for name in asked.topologies:
        mine = [need for need in needs if need.topology == name]
        topology = load_topology(name, of_topologies)
        costs, misfits = _costs(
            sorted({s for need in mine for s in need.scenarios}), topology, asked, of_scenarios
        )
        for need in mine:
            if not set(need.scenarios) & costs.keys():
                whys = dict.fromkeys(misfits[scenario] for scenario in need.scenarios)
                unanswered[f"{name} {need.target}"] = "; ".join(whys) or "no scenario yields it"
        for scenario in least_cover({need.target: need.scenarios for need in mine}, costs):
            trials = max((need.trials for need in mine if scenario in need.scenarios), default=1)
            found.append(_cell(scenario, topology, trials, asked, of_scenarios, tuple(of_topologies)))
    order = {name: place for place, name in enumerate(asked.topologies)}
    # Labs as they come up anyway first, those that scenarios want otherwise after them.
    found.sort(key=lambda cell: (order[cell.source], len(cell.settings), cell.settings))
    return Chosen(tuple(found), unanswered)


def _cell(
    name: str,
    topology: Topology,
    trials: int,
    asked: Asked,
    of_scenarios: Sequence[str],
    of_topologies: tuple[str, ...],
) -> Cell:
    """One run of a scenario or an experiment."""
    environment = topology.environment
    if name not in list_scenarios():
        job = plan_job(name, topology, quick=asked.quick)
        seed = seed_of(asked.seed, name)
        return Cell(job, topology.name, topology, environment, None, 1, of_topologies, seed)
    matrix = Matrix(
        name="verify", title=name, topology=topology.name, scenarios=(name,), seed=asked.seed,
        variants=(Variant(name=environment, set=of_topologies),),
        settings=_settings(name, topology, of_scenarios), trials=_trials(name, trials, asked.quick),
    )  # fmt: skip
    return cells(matrix)[0]


def _settings(scenario: str, topology: Topology, asked: Sequence[str]) -> tuple[str, ...]:
    """Fields of a scenario on a topology: what was asked for, and a workload that its schema allows."""
    from lab.load import first_that_fits

    story = load_scenario(scenario, asked)
    own = story.load.workload
    chosen = first_that_fits(topology, own, ANYWHERE_BROKEN if story.faults else ANYWHERE)
    return tuple(asked) if chosen == own else (*asked, f"load.workload={chosen}")


def _trials(scenario: str, needed: int, quick: bool) -> int:
    return 1 if quick else max(load_scenario(scenario).trials, needed)


def _costs(
    scenarios: Sequence[str], topology: Topology, asked: Asked, of_scenarios: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """(scenario → seconds, scenario → why it does not fit the topology)."""
    from lab.deploy.allocate import sample_allocation
    from lab.scenario.plan import estimate_s as of_plan
    from lab.scenario.plan import make_plan

    allocation = sample_allocation(topology.name, topology)
    known = set(list_scenarios())
    costs: dict[str, float] = {}
    misfits: dict[str, str] = {}
    for name in scenarios:
        try:
            if name not in known:
                costs[name] = plan_job(name, topology, quick=asked.quick).estimate_s
                continue
            story = load_scenario(
                name, [*_settings(name, topology, of_scenarios), *(["trials=1"] if asked.quick else [])]
            )
            plan = make_plan(story, topology, allocation, asked.seed)
        except UsageError as error:
            misfits[name] = f"{name}: {error}"
            continue
        if plan.not_run:
            misfits[name] = f"{name}: {plan.not_run}"
            continue
        seconds = of_plan(plan)
        costs[name] = seconds + (LAB_SWITCH_S if story.overrides else 0.0)
    return costs, misfits


# The folder


def open_folder(asked: Asked, runs: Path, *, fresh: bool = False) -> Path:
    """The folder of the newest verification of the same that did not end, else a new one."""
    if not fresh:
        for path in sorted(runs.glob(f"*-verify-{asked.name}/{STATE}"), reverse=True):
            state = read_state(path.parent)
            if state.state == "running" and state.asked == asked:
                return path.parent
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count(1):
        again = f".{number}" if number > 1 else ""  # two within one second
        folder = runs / f"{stamp}{again}-verify-{asked.name}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise LabError(f"cannot make {folder}: {error.strerror}") from error
    raise AssertionError("unreachable")


def read_state(folder: Path) -> State:
    """What ``verify.json`` says. UsageError where there is none, or a damaged one."""
    path = folder / STATE
    try:
        return State.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{folder} is no record of a verification: {error.strerror or error}",
            hint="`lab verify SYSTEM` makes one, runs/<time>-verify-<system>.",
        ) from error
    except ValidationError as error:
        raise UsageError(f"{path} is damaged: {error.errors()[0]['msg']}") from error


def write_state(folder: Path, state: State) -> None:
    """Replace ``verify.json`` at once."""
    part = folder / f"{STATE}.part"
    try:
        part.write_text(json.dumps(state.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        part.replace(folder / STATE)
    except OSError as error:
        raise LabError(f"cannot write into {folder}: {error.strerror}") from error


def now_wall() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


# Running


def run(
    asked: Asked,
    needs: Sequence[Need],
    chosen: Chosen,
    folder: Path,
    labs: Labs,
    progress: Progress,
    *,
    command: str = "",
    runner: Callable[..., Any] | None = None,
) -> State:
    """Run what is not there yet, and remember each step; an interruption leaves a folder that can go on.

    Args:
        runner: what runs a scenario or an experiment; another in a test.
    """
    todo = chosen.cells
    done = finished(folder, todo)
    before = read_state(folder) if (folder / STATE).exists() else None
    jobs = {
        cell.key: Job(
            topology=cell.topology.name, scenario=cell.story.name, key=cell.key,
            estimate_s=round(run_s(cell), 1),
            record=done[cell.key].name if cell.key in done else None,
        )
        for cell in todo
    }  # fmt: skip
    state = State(
        state="running", asked=asked, started_wall=before.started_wall if before else now_wall(),
        seconds=before.seconds if before else 0.0, jobs=tuple(jobs.values()), needs=tuple(needs),
        unanswered=chosen.unanswered,
    )  # fmt: skip
    write_state(folder, state)
    if done:
        progress.say(f"{len(done)} of {len(todo)} runs are there already")
    clock = _Clock(todo, done)
    progress.say(f"{runs_text(clock.left)}, about {clock.left_text()}; records in {folder}")
    results: Iterator[Result] = run_cells(todo, labs, folder, progress, command=command, run=runner)
    began, spent = time.monotonic(), state.seconds
    for result in results:
        old = jobs[result.cell.key]
        jobs[old.key] = old.model_copy(
            update={"record": result.record.name if result.record else None, "error": result.error}
        )
        clock.done(result.cell)
        state = state.model_copy(
            update={"jobs": tuple(jobs.values()), "seconds": round(spent + time.monotonic() - began, 1)}
        )
        write_state(folder, state)
        if clock.left:
            progress.say(f"{runs_text(clock.left)} left, about {clock.left_text()}", "dim")
    return state


def runs_text(todo: Sequence[Cell]) -> str:
    """``3 runs on 1 lab``."""
    runs, labs = len(todo), switches(todo)
    return f"{runs} run{'s' if runs != 1 else ''} on {labs} lab{'s' if labs != 1 else ''}"


def total_s(todo: Sequence[Cell]) -> float:
    """About how long all of it takes, with labs that come up and go and what is analysed at the end."""
    return estimate_s(todo) + ANALYSIS_S * len(todo)


class _Clock:
    """How much is left, from the estimates and how they have held so far."""

    def __init__(self, todo: Sequence[Cell], done: Mapping[str, Path]) -> None:
        self.left = [cell for cell in todo if cell.key not in done]
        self._began = time.monotonic()
        self._whole = self._seconds()

    def done(self, cell: Cell) -> None:
        self.left = [one for one in self.left if one.key != cell.key]

    def _seconds(self) -> float:
        return total_s(self.left)

    def left_text(self) -> str:
        seconds = self._seconds()
        behind = self._whole - seconds
        if behind > 0:
            seconds *= max((time.monotonic() - self._began) / behind, 0.2)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
