"""Experiments as jobs: with the settings that a verification gives them, short or whole.

A module of this package that defines ``JOB`` offers its experiment. To add one, add a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import Field

from lab.discovery import discover
from lab.errors import UsageError
from lab.topology.models import Model, Topology


class Job(Model):
    """One experiment that is to be run. What a ``Scenario`` is for a fault."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the experiment, as JSON can hold them."""
    trials: int = 1
    """Repeats of each of its cells."""
    estimate_s: float
    """About how long it takes, on a machine that is not busy with other things."""


@dataclass(frozen=True)
class Kind:
    """An experiment that can be run as a job."""

    name: str
    """As in ``manifest.scenario`` of its records."""
    plan: Callable[[Topology, bool], Job]
    """(topology, whether it has to be short) → the job. UsageError where the topology lacks something."""
    run: Callable[..., Path]
    """``run(lab, settings, seed=, runs_dir=, command=, progress=)`` → the record. Errors as of a run."""


def kinds() -> dict[str, Kind]:
    """Every experiment that can be a job, by name. Two of one name are a programming error (ValueError)."""
    return discover("lab.experiment", "JOB", Kind, lambda kind: kind.name)


def plan_job(name: str, topology: Topology, *, quick: bool) -> Job:
    """The job of an experiment on a topology.

    Args:
        quick: settings for some minutes; else those of its own command.

    Raises UsageError where there is no such experiment, or the topology lacks what it needs.
    """
    known = kinds()
    if name not in known:
        raise UsageError(f"there is no scenario or experiment {name!r}")
    return known[name].plan(topology, quick)


def run_job(lab: Any, job: Job, **how: Any) -> Any:
    """Run a job; ``.path`` of the result is its record. Called as ``run_scenario`` is."""
    settings: Mapping[str, Any] = job.settings
    return SimpleNamespace(path=kinds()[job.name].run(lab, settings, **how))
