"""Targets: the promises of a system's document, from ``scenarios/targets/<system>.yaml``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lab.errors import UsageError
from lab.topology.document import Document, Path_, read_document, validate
from reports.findings import Target, Value

TARGETS_DIR = Path(__file__).resolve().parents[1] / "scenarios" / "targets"


class Stated(Value):
    """What the document says of an environment and no topology holds; arithmetic on paper needs it."""

    auto_pause_s: Annotated[float, Field(gt=0)] | None = None
    """Idle time after which a serverless database is paused."""
    backup_interval_h: Annotated[float, Field(gt=0)] | None = None
    archive_interval_d: Annotated[float, Field(gt=0)] | None = None
    retention_d: Annotated[float, Field(ge=0)] | None = None
    """How long backups are kept."""
    pitr: bool | None = None
    """Whether WAL is archived all the time."""


class TargetFile(Value):
    """One file of targets."""

    system: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    """The system whose promises they are, as topologies name it."""
    document: str
    """The document's title."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    stated: dict[str, Stated] = Field(default_factory=dict)
    """By environment."""


def list_targets(folder: Path = TARGETS_DIR) -> list[str]:
    """Systems that have targets, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_targets(path: Path | str, *, runs: bool = True) -> TargetFile:
    """Read one file of targets.

    Args:
        runs: also check what runs answer: scenarios, their metrics and units.

    Raises:
        UsageError: not YAML; a wrong field; two targets of one id; a metric that nothing yields, or another
            unit than the metric's; a scenario that there is not; a promise that nothing answers and that does
            not say so. Each with file, line and column.
    """
    document = read_document(Path(path), kind="targets file")
    found = validate(document, TargetFile)
    wrong = list(_wrong(document, found, Path(path), runs))
    if wrong:
        raise UsageError("\n".join(wrong))
    return found


def targets_of(system: str, folder: Path = TARGETS_DIR) -> tuple[Target, ...]:
    """Targets of a system; none where it has no file. UsageError where the file is wrong."""
    found = file_of(system, folder)
    return found.targets if found else ()


def file_of(system: str, folder: Path = TARGETS_DIR, *, runs: bool = True) -> TargetFile | None:
    """The targets file of a system; None where it has none. UsageError where the file is wrong."""
    path = folder / f"{system}.yaml"
    if not path.is_file():
        return None
    found = load_targets(path, runs=runs)
    if found.system != system:
        raise UsageError(f"{path}: system: expected {system!r} as in the file's name, found {found.system!r}")
    return found


# What a single field cannot tell


def _wrong(document: Document, found: TargetFile, path: Path, runs: bool) -> Iterator[str]:
    """One line for each thing that is wrong, led by its place."""
    units = {True: _on_paper(), False: _measured() if runs else None}
    scenarios = _scenarios(path) | _experiments() if runs else set()
    seen: set[str] = set()
    for index, target in enumerate(found.targets):
        at: Path_ = ("targets", index)
        for field, what in _of_target(target, seen, units[target.method == "on paper"], scenarios):
            yield f"{document.mark((*at, field))}: {target.id}: {what}"
        seen.add(target.id)


def _of_target(
    target: Target, seen: set[str], units: dict[str, str | None] | None, scenarios: Collection[str]
) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    if target.id in seen:
        yield "id", "an id must be unique, this one stands here a second time"
    if not math.isfinite(target.limit):
        yield "limit", "the limit must be a finite number"
    if target.min_trials < 1:
        yield "min_trials", "min_trials must be at least 1"
    yield from _answered(target)
    if units is None:
        return
    for field, names in (("scenarios", target.scenarios), ("proven_by", target.proven_by)):
        for name in names:
            if name not in scenarios:
                yield field, f"no scenario {name!r}; {near(name, scenarios)}"
    for name in target.proven_by:
        if name not in target.scenarios:
            yield "proven_by", f"{name!r} is not among its scenarios"
    if target.not_built:
        return
    if target.metric not in units:
        yield "metric", f"nothing yields {target.metric!r}; {near(target.metric, units)}"
    elif (unit := units[target.metric]) is not None and unit != target.unit:
        yield "unit", f"{target.metric} is measured in {unit!r}, found {target.unit!r}"


def _answered(target: Target) -> Iterator[tuple[str, str]]:
    paper = target.method == "on paper"
    if target.not_built and target.scenarios:
        yield "not_built", "it names scenarios that yield it, so it is built"
    elif paper and target.scenarios:
        yield "scenarios", "what is answered on paper needs no scenario"
    elif not paper and not target.scenarios and not target.not_built:
        yield "id", "nothing answers it: name scenarios, or say in not_built what is missing"


def near(name: str, known: Collection[str]) -> str:
    """What may have been meant by a name that is not known."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {found[0]!r}?" if found else f"known are {', '.join(sorted(known))}"


def _measured() -> dict[str, str | None]:
    from reports.checks import units
    from reports.experiments import experiments

    of_experiments = {metric for one in experiments().values() for metric in one.metrics}
    return {**dict.fromkeys(of_experiments), **units()}


def _on_paper() -> dict[str, str | None]:
    from reports.paper import units

    return units()


def _scenarios(path: Path) -> set[str]:
    """The lab's scenarios, and those in the folder above that of the targets file."""
    from lab.scenario.loader import list_scenarios

    return {*list_scenarios(), *(one.stem for one in path.resolve().parent.parent.glob("*.yaml"))}


def _experiments() -> set[str]:
    """Names of the lab's experiments."""
    from reports.experiments import experiments

    return set(experiments())
