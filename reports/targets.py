"""Targets: the promises of a system's document, from ``scenarios/targets/<system>.yaml``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from lab.errors import UsageError
from lab.topology.document import load_document
from reports.findings import Target, Value

TARGETS_DIR = Path(__file__).resolve().parents[1] / "scenarios" / "targets"


class TargetFile(Value):
    """One file of targets."""

    system: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    """The system whose promises they are, as topologies name it."""
    document: str
    """The document's title."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        ids = [target.id for target in self.targets]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"ids of targets must be unique, found twice: {', '.join(twice)}")
        for target in self.targets:
            if not math.isfinite(target.limit):
                raise ValueError(f"{target.id}: the limit must be a finite number")
            if target.min_trials < 1:
                raise ValueError(f"{target.id}: min_trials must be at least 1")
        yielded = _metrics()
        for target in self.targets:
            if target.scenarios and target.metric not in yielded:
                raise ValueError(
                    f"{target.id}: no check yields {target.metric!r}; known are {', '.join(sorted(yielded))}"
                )
        return self


def _metrics() -> set[str]:
    from reports.checks import checks
    from reports.experiments import experiments

    found = {metric for check in checks().values() for metric in check.metrics}
    return found | {metric for one in experiments().values() for metric in one.metrics}


def list_targets(folder: Path = TARGETS_DIR) -> list[str]:
    """Systems that have targets, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_targets(path: Path | str) -> TargetFile:
    """Read one file of targets.

    Raises:
        UsageError: not YAML, or a wrong field, with file, line and column.
    """
    return load_document(path, TargetFile, kind="targets file")


def targets_of(system: str, folder: Path = TARGETS_DIR) -> tuple[Target, ...]:
    """Targets of a system; none where it has no file. UsageError where the file is wrong."""
    path = folder / f"{system}.yaml"
    if not path.is_file():
        return ()
    found = load_targets(path)
    if found.system != system:
        raise UsageError(f"{path}: system: expected {system!r} as in the file's name, found {found.system!r}")
    return found.targets
