"""What there is to choose from, as rows for `lab list`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.errors import LabError

Row = dict[str, Any]


def catalogue(kind: str) -> list[Row]:
    """Rows of one kind: topologies, scenarios, faults, workloads or targets. The first column is the name."""
    return _KINDS[kind]()


def _topologies() -> list[Row]:
    from lab.deploy.images import postgres_major
    from lab.topology.loader import list_topologies, load_topology

    rows: list[Row] = []
    for name in list_topologies():
        try:
            found = load_topology(name)
        except LabError as error:
            rows.append({"name": name, "nodes": None, "database": f"invalid: {str(error).splitlines()[0]}"})
            continue
        roles = [node.role for node in found.postgres.nodes]
        asked = found.postgres.version
        runs = postgres_major()
        rows.append(
            {
                "name": name,
                "system": found.system,
                "environment": found.environment,
                "nodes": len(found.members()),
                "database": ", ".join(f"{roles.count(role)} {role}" for role in dict.fromkeys(roles)),
                "substituted": "" if asked in ("any", runs) else f"{asked} → {runs}",
                "not built": len(found.not_built) or "",
                "description": "; ".join((found.title, *(f"not built: {p}" for p in found.not_built))),
            }
        )
    return rows


def _scenarios() -> list[Row]:
    from lab.scenario.loader import list_scenarios, load_scenario

    rows: list[Row] = []
    for name in list_scenarios():
        try:
            found = load_scenario(name)
        except LabError as error:
            rows.append({"name": name, "title": f"invalid: {str(error).splitlines()[0]}"})
            continue
        rows.append({"name": name, "title": getattr(found, "title", "")})
    return rows


def _faults() -> list[Row]:
    from lab.faults import faults

    return [
        {"name": name, "what": fault.summary, "needs": ", ".join(fault.needs)}
        for name, fault in faults().items()
    ]


def _workloads() -> list[Row]:
    from loadtests.workloads import list_workloads

    return [
        {
            "name": name,
            "rate": f"{found.rate:g}/s",
            "title": found.title.partition(": ")[2] or found.title,
            "description": found.description,
        }
        for name, found in sorted(list_workloads().items())
    ]


def _targets() -> list[Row]:
    from reports.judge import SIGNS
    from reports.targets import list_targets, targets_of

    rows: list[Row] = []
    for system in list_targets():
        try:
            targets = targets_of(system)
        except LabError as error:
            rows.append({"name": system, "metric": "invalid", "promise": str(error).splitlines()[0]})
            continue
        rows += [
            {
                "name": target.id,
                "system": system,
                "metric": target.metric,
                "promise": f"{SIGNS[target.comparison]} {target.limit:g} {_unit(target.unit)}".rstrip(),
                "environments": ", ".join(target.environments) or "all",
                "scenarios": ", ".join(target.scenarios)
                or (f"not built yet: {target.not_built}" if target.not_built else target.method),
                "description": target.quote,
            }
            for target in targets
        ]
    return rows


def _unit(unit: str) -> str:
    """A count has none."""
    return "" if unit == "1" else unit


_KINDS: dict[str, Callable[[], list[Row]]] = {
    "topologies": _topologies,
    "scenarios": _scenarios,
    "faults": _faults,
    "workloads": _workloads,
    "targets": _targets,
}
