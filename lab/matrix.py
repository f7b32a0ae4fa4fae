"""The same scenarios on variants of a topology and through several pools, under one load and the same seeds.

A *cell* is one scenario on one variant through one pool, in one repeat: one run. Its seed depends on the
scenario and the repeat only, so that trial k has the same phase of injection on every variant and pool, and
the same arrivals: pairs. The variants take turns in coming first from repeat to repeat, and scenarios and
pools are shuffled alike for all variants of a repeat, so that a machine that grows slower favours nobody. A
variant is a lab of its own: within a repeat all its cells run on one.

A cell is known by what it asks for (scenario, topology, seed). One whose closed record exists is not run
again, so a matrix that was interrupted goes on where it stopped, and one that was edited runs what changed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from lab.errors import LabError, RecordError, UsageError
from lab.experiment.jobs import Job
from lab.scenario.models import Scenario
from lab.topology.document import load_document
from lab.topology.models import Model, Name, Topology

if TYPE_CHECKING:
    from lab.driver import Lab
    from lab.labs import Labs
    from lab.scenario.progress import Progress

MATRIX_DIR = Path(__file__).resolve().parents[1] / "scenarios" / "matrix"
INDEX = "cells.json"
LAB_SWITCH_S = 45.0
"""About what it takes to remove a lab and to bring the next one up."""


class Variant(Model):
    """One way to set the topology up."""

    name: Name
    set: tuple[str, ...] = ()
    """Overrides as of ``lab up --set``."""


class Matrix(Model):
    """What is run. The first variant is the reference."""

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=120)]
    claim: str = ""
    """What it tries to show, and what it cannot."""
    topology: str = "risk-prod"
    scenarios: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names or files."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    pools: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """What the clients connect to: poolers, a router, ``multi-host``; None: the scenarios' own."""
    trials: Annotated[int, Field(ge=1, le=1000)] | None = None
    """A run; None: the scenarios' own."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often every cell is run."""
    settings: tuple[str, ...] = ()
    """Fields of every scenario, such as ``load.rate=50``."""
    figures: tuple[str, ...] = ()
    """Metrics in the table beside recovery, losses and response times, such as ``cache.hit_ratio``."""
    seed: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _names_differ(self) -> Matrix:
        for what, names in (
            ("variants", [variant.name for variant in self.variants]),
            ("scenarios", list(self.scenarios)),
            ("pools", list(self.pools or ())),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: named twice: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Cell:
    """One run."""

    story: Scenario | Job
    source: str
    """Name or file of the topology."""
    topology: Topology
    """With its settings."""
    variant: str
    pool: str | None
    repeat: int
    settings: tuple[str, ...]
    """Overrides of the topology that its lab must have."""
    seed: int

    @property
    def key(self) -> str:
        """Of all that it asks for."""
        story = self.story.model_dump(mode="json", exclude={"estimate_s"})
        asked = [story, self.topology.model_dump(mode="json"), self.seed]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]

    def __str__(self) -> str:
        where = f" through {self.pool}" if self.pool else ""
        return f"{self.story.name} on {self.variant}{where}, repeat {self.repeat}"


@dataclass(frozen=True)
class Result:
    """What became of a cell."""

    cell: Cell
    record: Path | None
    """Its run record."""
    error: str = ""
    """Why there is none."""


def list_matrices(folder: Path = MATRIX_DIR) -> list[str]:
    """Names of the matrices of ``scenarios/matrix``, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_matrix(path_or_name: str, overrides: Sequence[str] = ()) -> Matrix:
    """Read and validate a matrix. UsageError says what is wrong, and where."""
    path = Path(path_or_name)
    if "/" not in path_or_name and path.suffix not in (".yaml", ".yml"):
        if path_or_name not in list_matrices():
            raise UsageError(
                f"no matrix {path_or_name!r}",
                hint=f"There are: {', '.join(list_matrices())}; or give the path of a YAML file.",
            )
        path = MATRIX_DIR / f"{path_or_name}.yaml"
    return load_document(path, Matrix, overrides, kind="matrix")


def cells(matrix: Matrix) -> list[Cell]:
    """Every cell, in the order in which they run.

    Raises UsageError where a scenario, a variant's settings or a pool are wrong.
    """
    found: list[Cell] = []
    for repeat in range(1, matrix.repeats + 1):
        turn = (repeat - 1) % len(matrix.variants)
        variants = [*matrix.variants[turn:], *matrix.variants[:turn]]
        pairs = [(one, pool) for one in matrix.scenarios for pool in (matrix.pools or (None,))]
        random.Random(f"{matrix.seed} {repeat}").shuffle(pairs)
        found += [_cell(matrix, variant, *pair, repeat) for variant in variants for pair in pairs]
    return _grouped(found)


def _cell(matrix: Matrix, variant: Variant, scenario: str, pool: str | None, repeat: int) -> Cell:
    from lab.deploy.allocate import sample_allocation
    from lab.deploy.endpoints import endpoints
    from lab.load import resolve_pool
    from lab.scenario.loader import load_scenario
    from lab.scenario.settings import override_texts
    from lab.topology.loader import load_topology

    settings = list(matrix.settings)
    if matrix.trials is not None:
        settings.append(f"trials={matrix.trials}")
    if pool is not None:
        settings.append(f"load.pool={pool}")
    story = load_scenario(scenario, settings)
    texts = (*override_texts(story.overrides), *variant.set)
    topology = load_topology(matrix.topology, texts)
    if pool is not None:
        resolve_pool(topology, endpoints(topology, sample_allocation(topology.name, topology)), pool)
    # A variant's settings win over the scenario's own: the scenario then has to ask for no less.
    fields = {text.partition("=")[0].strip() for text in variant.set}
    kept = {field: value for field, value in story.overrides.items() if field not in fields}
    story = story.model_copy(update={"overrides": kept})
    seed = seed_of(matrix.seed, story.name, repeat)
    return Cell(story, matrix.topology, topology, variant.name, pool, repeat, texts, seed)


def seed_of(seed: int, story: str, repeat: int = 1) -> int:
    """A cell's seed: the same on every variant and pool."""
    name = f"{seed} {story} {repeat}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 2**31


def _grouped(found: list[Cell]) -> list[Cell]:
    """Cells of one lab together, within a repeat and a variant, in the order of their first."""
    place: dict[Any, int] = {}
    for cell in found:
        place.setdefault((cell.repeat, cell.variant, cell.settings), len(place))
    return sorted(found, key=lambda cell: place[(cell.repeat, cell.variant, cell.settings)])


def switches(todo: Sequence[Cell]) -> int:
    """How many labs are brought up."""
    labs = [(cell.topology.name, cell.settings) for cell in todo]
    return sum(a != b for a, b in zip([None, *labs], labs, strict=False))


def estimate_s(todo: Sequence[Cell]) -> float:
    """About how long the cells will take, on a machine that is not busy with other things."""
    return sum(run_s(cell) for cell in todo) + LAB_SWITCH_S * switches(todo)


def run_s(cell: Cell) -> float:
    """About how long one cell takes on a lab that is up, seconds."""
    from lab.deploy.allocate import sample_allocation
    from lab.scenario.plan import estimate_s as of_plan
    from lab.scenario.plan import make_plan

    if isinstance(cell.story, Job):
        return cell.story.estimate_s
    allocation = sample_allocation(cell.topology.name, cell.topology)
    return of_plan(make_plan(cell.story, cell.topology, allocation, cell.seed))


# Records


def finished(folder: Path, todo: Sequence[Cell]) -> dict[str, Path]:
    """Key → record of the cells that need not run again."""
    index = _index(folder)
    found = {}
    for cell in todo:
        record = folder / index.get(cell.key, "-")
        if cell.key in index and _is_whole(record):
            found[cell.key] = record
    return found


def _index(folder: Path) -> dict[str, str]:
    try:
        data = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}


def _is_whole(record: Path) -> bool:
    from lab.record.reader import RecordReader

    try:
        return RecordReader(record).manifest.state == "closed"
    except RecordError:
        return False


def _remember(folder: Path, key: str, record: Path) -> None:
    index = {**_index(folder), key: record.name}
    part = folder / f"{INDEX}.part"
    part.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / INDEX)


def run_cells(
    todo: Sequence[Cell],
    labs: Labs,
    folder: Path,
    progress: Progress,
    *,
    command: str = "",
    run: Callable[..., Any] | None = None,
) -> Iterator[Result]:
    """Run what is not there yet; each result as it comes. A cell that fails does not stop the others.

    Args:
        folder: of the run records and the index; made where it is missing.
        run: what runs a scenario or a job; another in a test.
    """
    done = finished(folder, todo)
    folder.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(todo, 1):
        head = f"{number} of {len(todo)}: {cell}"
        if cell.key in done:
            progress.say(f"{head}: its record exists")
            yield Result(cell, done[cell.key])
            continue
        progress.say(head)
        try:
            lab = labs.get(cell.source, cell.settings)
            made = (run or _run)(
                lab, cell.story, seed=cell.seed, runs_dir=folder, command=command, progress=progress
            )
        except LabError as error:
            progress.say(f"failed: {error}", "red")
            yield Result(cell, None, str(error))
            continue
        _remember(folder, cell.key, made.path)
        yield Result(cell, made.path)


def _run(lab: Lab, story: Scenario | Job, **how: Any) -> Any:
    from lab.ceiling import SCENARIO, file_for
    from lab.experiment.jobs import run_job
    from lab.scenario.runner import run_scenario

    if isinstance(story, Job):
        return run_job(lab, story, **how)
    files = file_for(lab, story.load, how["seed"]) if story.name == SCENARIO else {}
    return run_scenario(lab, story, files=files, **how)
