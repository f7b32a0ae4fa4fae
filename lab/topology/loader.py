"""Topologies by name or by file, with what they extend and with overrides.

A file may say ``extends: <base>``: a name of ``bases/`` beside it or of the lab's own bases and topologies,
or, with a ``/`` in it or ending in ``.yaml``, a path from the file. What both hold is merged field by field;
a list or a single value of the file replaces the base's as a whole, so that whoever reads the file sees every
node of a list that it names. Every value keeps the place where it stands, so that errors lead there.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from lab.errors import UsageError
from lab.topology.document import Document, Path_, apply_override, read_document, validate
from lab.topology.models import Topology

COMPOSE_DIR = Path(__file__).resolve().parents[2] / "compose"
"""What runs in the containers: topologies, templates, SQL, images."""
TOPOLOGY_DIR = COMPOSE_DIR / "topologies"
BASES = "bases"
"""Folder, beside topologies, of what several of them share; its files are no topologies themselves."""
EXTENDS = "extends"


def list_topologies() -> list[str]:
    """Names of the topologies of ``compose/topologies``, sorted."""
    return sorted(path.stem for path in TOPOLOGY_DIR.glob("*.yaml"))


def load_topology(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Topology:
    """Read, extend, override and validate a topology.

    Args:
        path_or_name: a name of :func:`list_topologies`, or the path of a YAML file.
        overrides: ``field.field=value``, as :func:`lab.topology.document.apply_override` explains.

    Raises:
        UsageError: no such topology or base; bases that extend each other in a circle; not YAML; an unknown
            or wrong field, with file, line and column; a wrong override.
    """
    document = read_topology(topology_path(path_or_name))
    for override in overrides:
        apply_override(document, override, Topology)
    return validate(document, Topology)


def read_topology(path: Path) -> Document:
    """The document of a topology with everything that it extends, not validated yet. UsageError as above."""
    return _read(path, ())


def _read(path: Path, below: tuple[Path, ...]) -> Document:
    document = read_document(path, kind="topology")
    _make_paths_absolute(document, path)
    if EXTENDS not in document.data:
        return document
    mark, named = document.mark((EXTENDS,)), document.data.pop(EXTENDS)
    if not isinstance(named, str) or not named:
        raise UsageError(f"{mark}: extends: expected the name or the path of a base, found {named!r}")
    base = _base_path(named, path)
    if base is None:
        names = sorted({*_names(path.parent / BASES), *_names(TOPOLOGY_DIR / BASES), *list_topologies()})
        near = difflib.get_close_matches(named, names, n=1)
        guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise UsageError(f"{mark}: extends: no base {named!r}; {guess}")
    chain = (*below, path.resolve())
    if base.resolve() in chain:
        circle = [*chain[chain.index(base.resolve()) :], base.resolve()]
        raise UsageError(f"{mark}: extends: a circle: {' → '.join(step.stem for step in circle)}")
    return merge(_read(base, chain), document)


def _names(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("*.yaml")]


def _base_path(named: str, path: Path) -> Path | None:
    """The file of a base; None where there is none of that name."""
    if "/" in named or named.endswith((".yaml", ".yml")):
        return path.parent / named
    beside = path.parent if path.parent.name == BASES else path.parent / BASES
    places = (beside, TOPOLOGY_DIR / BASES, TOPOLOGY_DIR)
    return next((found for folder in places if (found := folder / f"{named}.yaml").is_file()), None)


def _make_paths_absolute(document: Document, path: Path) -> None:
    """What a file names by a path counts from the file, wherever the lab is later called."""
    data, postgres = document.data, document.data.get("postgres")
    places = [(data, "workload"), (data, "targets")]
    if isinstance(postgres, dict):
        places.append((postgres, "schema_set"))
    for where, field in places:
        named = where.get(field)
        if isinstance(named, str) and "/" in named:
            where[field] = str((path.parent / named).resolve())


def merge(base: Document, own: Document) -> Document:
    """What a document says, over what its base says: mappings field by field, everything else as a whole."""
    marks = dict(base.marks)

    def put(into: dict[str, object], values: dict[str, object], at: Path_) -> None:
        for name, value in values.items():
            path = (*at, name)
            before = into.get(name)
            if isinstance(before, dict) and isinstance(value, dict):
                marks[path] = own.marks.get(path, own.mark(path))
                put(before, value, path)
                continue
            for old in [known for known in marks if known[: len(path)] == path]:
                del marks[old]
            marks.update({known: mark for known, mark in own.marks.items() if known[: len(path)] == path})
            into[name] = value

    put(base.data, own.data, ())
    marks[()] = own.marks[()]
    return Document(base.data, marks)


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
