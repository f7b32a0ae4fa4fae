"""Topologies by name or by file, with overrides."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from lab.errors import UsageError
from lab.topology.document import load_document
from lab.topology.models import Topology

COMPOSE_DIR = Path(__file__).resolve().parents[2] / "compose"
"""What runs in the containers: topologies, templates, SQL, images."""
TOPOLOGY_DIR = COMPOSE_DIR / "topologies"


def list_topologies() -> list[str]:
    """Names of the topologies of ``compose/topologies``, sorted."""
    return sorted(path.stem for path in TOPOLOGY_DIR.glob("*.yaml"))


def load_topology(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Topology:
    """Read, override and validate a topology.

    Args:
        path_or_name: a name of :func:`list_topologies`, or the path of a YAML file.
        overrides: ``field.field=value``, as :func:`lab.topology.document.apply_override` explains.

    Raises:
        UsageError: no such topology; not YAML; an unknown or wrong field, with file, line and column; a wrong
            override.
    """
    return load_document(topology_path(path_or_name), Topology, overrides, kind="topology")


def topology_path(path_or_name: str | Path) -> Path:
    """The file of a topology. UsageError, with the names that there are, where there is none."""
    text = str(path_or_name)
    if "/" in text or text.endswith((".yaml", ".yml")):
        return Path(path_or_name)
    names = list_topologies()
    if text not in names:
        near = difflib.get_close_matches(text, names, n=1)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"no topology {text!r}",
            hint=f"{guess}There are: {', '.join(names)}; or give the path of a YAML file.",
        )
    return TOPOLOGY_DIR / f"{text}.yaml"
