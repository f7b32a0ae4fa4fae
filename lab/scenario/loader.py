"""Scenarios by name or by file, with overrides; and what they ask of the topology."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.errors import UsageError
from lab.scenario.models import Scenario
from lab.topology.document import Document, Mark, apply_override, load_document, validate
from lab.topology.models import Topology

SCENARIO_DIR = Path(__file__).resolve().parents[2] / "scenarios"


def list_scenarios() -> list[str]:
    """Names of the scenarios of ``scenarios/``, sorted."""
    return sorted(path.stem for path in SCENARIO_DIR.glob("*.yaml"))


def load_scenario(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read, override (``load.rate=50``) and validate a scenario. UsageError says what is wrong, and where."""
    from lab.faults import find

    scenario = load_document(scenario_path(path_or_name), Scenario, overrides, kind="scenario")
    for _, step in scenario.faults:
        find(str(step.fault))
    return scenario


def recorded_scenario(run: Path) -> Scenario:
    """The scenario of a run record, as it ran. UsageError where there is none, or none of this version."""
    return load_scenario(run / "scenario.yaml")


def dump_scenario(scenario: Scenario) -> str:
    """A scenario as YAML that ``load_scenario`` reads again, every default written out; but of a step what
    was given, since its fields exclude each other."""
    data = scenario.model_dump(mode="json", by_alias=True)
    data["steps"] = [
        step.model_dump(mode="json", by_alias=True, exclude_unset=True) for step in scenario.steps
    ]
    for step, given in zip(data["steps"], scenario.steps, strict=True):
        if given.fault:
            step.setdefault("target", given.target)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def scenario_path(path_or_name: str | Path) -> Path:
    """The file of a scenario. UsageError, with the names that there are, where there is none."""
    text = str(path_or_name)
    if "/" in text or text.endswith((".yaml", ".yml")):
        path = Path(path_or_name)
        # From any working directory: scenarios/kill-primary.yaml means the lab's own.
        own = SCENARIO_DIR.parent / path
        return own if not path.exists() and not path.is_absolute() and own.exists() else path
    names = list_scenarios()
    if text not in names:
        near = difflib.get_close_matches(text, names, n=1)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"no scenario {text!r}",
            hint=f"{guess}There are: {', '.join(names)}; or give the path of a YAML file.",
        )
    return SCENARIO_DIR / f"{text}.yaml"


def split_overrides(assignments: Sequence[str]) -> tuple[list[str], list[str]]:
    """``--set`` of ``lab run``: those for the scenario's fields, and those for the topology's.

    Names that both have (name, title) mean the scenario's.
    """
    scenario: list[str] = []
    topology: list[str] = []
    for text in assignments:
        first = text.partition("=")[0].strip().partition(".")[0]
        (scenario if first in Scenario.model_fields else topology).append(text)
    return scenario, topology


def override_texts(overrides: dict[str, Any]) -> list[str]:
    """A scenario's overrides as ``--set`` takes them: ``field=value``."""
    return [f"{field}={_text(value)}" for field, value in overrides.items()]


def check_overrides(running: Topology, overrides: dict[str, Any], lab: str) -> None:
    """UsageError where the running lab is not what the overrides ask for, with the command that makes it so.

    Configuration is set when a lab is brought up; nothing is changed under a running load.
    """
    asked = override_texts(overrides)
    document = Document(running.model_dump(mode="json"), {(): Mark("topology")})
    for text in asked:
        apply_override(document, text, Topology)
    if validate(document, Topology) == running:
        return
    different = []
    for text in asked:
        one = Document(running.model_dump(mode="json"), {(): Mark("topology")})
        apply_override(one, text, Topology)
        if validate(one, Topology) != running:
            different.append(text)
    settings = " ".join(f"--set {text}" for text in different)
    raise UsageError(
        f"lab {lab} does not run with {', '.join(different)}",
        hint=f"Bring it up so: lab down --name {lab} && lab up {running.name} --name {lab} {settings}",
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
