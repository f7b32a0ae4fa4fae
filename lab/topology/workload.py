"""The workload file of a user's own: SQL scripts with weights, for the workload ``custom``.

role: app
variables: {customers: 1000}
scripts:
  - {name: read order, weight: 9, reads: true, file: read-order.sql}
  - {name: place order, sql: "INSERT INTO orders (customer) VALUES (:customers);"}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from lab.errors import UsageError
from lab.topology.document import Document, read_document, validate
from lab.topology.models import Model
from loadtests.config import Script
from loadtests.scripts import needs_transaction, parse_script


class ScriptEntry(Model):
    """One script."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What its requests are called in every report."""
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Its share in the mix, relative to the other weights."""
    reads: bool = False
    """It only reads, and may see a replica's slightly older state."""
    file: str | None = None
    """Path, from the workload file."""
    sql: str | None = None
    """The script itself, instead of a file."""

    @model_validator(mode="after")
    def _one_source(self) -> ScriptEntry:
        if (self.file is None) == (self.sql is None):
            raise ValueError("a script is given by file or by sql, and by one of them")
        return self


class WorkloadFile(Model):
    """The whole file."""

    role: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] | None = None
    """The database role; None: the application's."""
    variables: dict[str, int] = Field(default_factory=dict)
    """Values that every script begins with, such as pgbench's ``scale``."""
    scripts: Annotated[tuple[ScriptEntry, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _names(self) -> WorkloadFile:
        names = [script.name for script in self.scripts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names of scripts must be unique, found twice: {', '.join(twice)}")
        return self


class CustomWorkload(Model):
    """A workload file that was read, with its scripts."""

    role: str | None
    variables: dict[str, int]
    scripts: tuple[Script, ...]
    transactions: bool
    """Whether a script opens a transaction of several statements."""


def load_workload_file(path: Path | str) -> CustomWorkload:
    """Read a workload file and its scripts.

    Raises:
        UsageError: what is wrong, with file and line, in the workload file or in a script.
    """
    path = Path(path)
    document = read_document(path, kind="workload file")
    found = validate(document, WorkloadFile)
    scripts = [_script(entry, index, path, document, found) for index, entry in enumerate(found.scripts)]
    return CustomWorkload(
        role=found.role,
        variables=found.variables,
        scripts=tuple(script for script, _ in scripts),
        transactions=any(transaction for _, transaction in scripts),
    )


def _script(
    entry: ScriptEntry, index: int, path: Path, document: Document, whole: WorkloadFile
) -> tuple[Script, bool]:
    mark = document.mark(("scripts", index, "file" if entry.file else "sql"))
    source = f"{mark}: scripts.{entry.name}"
    text = entry.sql or ""
    if entry.file is not None:
        file = path.parent / entry.file
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UsageError(f"{source}: cannot read {file}: {reason}") from error
        source = str(file)
    try:
        steps = parse_script(text, whole.variables)
    except ValueError as error:
        line, _, what = str(error).removeprefix("line ").partition(": ")
        where = f"{source}:{line}" if entry.file else f"{source}, line {line}"
        raise UsageError(f"{where}: {what}") from error
    return Script(entry.name, text, entry.weight, entry.reads), needs_transaction(steps)
