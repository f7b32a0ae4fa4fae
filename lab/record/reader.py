"""Reads a run record: closed, still running, or killed, all through the same calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from lab.errors import RecordError
from lab.record.compact import parquet_columns
from lab.record.schema import SCHEMA_VERSION, TABLES, Manifest
from lab.record.segments import BATCH_ROWS, read_batches, segments

if TYPE_CHECKING:
    # Slow to import, as all that is imported within a function: most commands never make a frame.
    import pandas as pd

Filters = Any
"""A ``pyarrow.compute.Expression``, or pyarrow's list of (column, op, value)."""


def find_run(reference: str | Path = "latest", runs_dir: Path = Path("runs")) -> Path:
    """The folder of a run by ``latest``, by path, or by name (also a unique beginning of it).

    Raises RecordError where there is none.
    """
    text = str(reference)
    for candidate in (Path(text), runs_dir / text):
        if (candidate / "manifest.json").is_file():
            return candidate.resolve()
    if text != "latest" and runs_dir.is_dir():
        begins = [p for p in sorted(runs_dir.glob("*/manifest.json")) if p.parent.name.startswith(text)]
        names = {path.parent.resolve() for path in begins}
        if len(names) == 1:
            return names.pop()
    raise RecordError(
        f"no run record {text!r}: neither a folder with a manifest.json nor a run in {runs_dir}",
        hint="`ls runs` shows the runs; `lab run scenarios/kill-primary.yaml` makes one",
    )


class RecordReader:
    """A run record on disk.

    Raises RecordError where the folder is no record, is damaged, or has a newer schema than this version
    of the lab can read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise RecordError(f"no run record at {self.path}")
        self.manifest = self._manifest()

    def _manifest(self) -> Manifest:
        file = self.path / "manifest.json"
        try:
            data = json.loads(file.read_bytes())
        except FileNotFoundError:
            raise RecordError(f"{self.path} is no run record: it has no manifest.json") from None
        except (OSError, ValueError) as error:
            raise RecordError(f"{file} cannot be read: {error}") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(version, int):
            raise RecordError(f"{file}: schema_version: expected an integer, found {version!r}")
        if version > SCHEMA_VERSION:
            raise RecordError(
                f"{self.path} has record schema {version}, and this lab reads up to {SCHEMA_VERSION}",
                hint="update the lab",
            )
        try:
            return Manifest.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RecordError(f"{file}: {where}: {first['msg']}") from error

    def tables(self) -> list[str]:
        """Names of the tables that hold anything (or did when they were compacted)."""
        return [t for t in TABLES if (self.path / f"{t}.parquet").exists() or segments(self.path, t)]

    def table(self, name: str, columns: Sequence[str] | None = None, filters: Filters = None) -> pa.Table:
        """A table, empty where the run recorded nothing of it.

        Rows come as they were recorded (``writes``: by outcome, those without one last); sort where
        the order matters. Text columns are dictionaries.
        """
        schema = _select(name, columns)
        batches = list(self.batches(name, columns, filters))
        return pa.Table.from_batches(batches, schema=schema).unify_dictionaries()

    def batches(
        self, name: str, columns: Sequence[str] | None = None, filters: Filters = None
    ) -> Iterator[pa.RecordBatch]:
        """The same rows, a batch at a time, for what does not fit into memory."""
        schema = _select(name, columns)
        expression = _expression(filters)
        parquet = self.path / f"{name}.parquet"
        try:
            if parquet.exists():
                yield from self._parquet(parquet, name, schema, expression)
                return
            for batch in read_batches(self.path, name):
                table = pa.Table.from_batches([batch])
                if expression is not None:
                    table = table.filter(expression)
                if table.num_rows:
                    yield from table.select(schema.names).to_batches()
        except (pa.ArrowException, OSError, EOFError) as error:
            raise RecordError(f"{name} of {self.path} cannot be read: {error}") from error

    def _parquet(
        self, file: Path, name: str, schema: pa.Schema, expression: pc.Expression | None
    ) -> Iterator[pa.RecordBatch]:
        # A filter may name columns that were not asked for.
        read = None if expression is not None else schema.names
        dictionaries = parquet_columns(name, read)
        with pq.ParquetFile(file, read_dictionary=dictionaries) as source:
            for batch in source.iter_batches(batch_size=BATCH_ROWS, columns=read):
                table = pa.Table.from_batches([batch])
                if expression is not None:
                    table = table.filter(expression)
                if table.num_rows:
                    yield from _complete(table, schema).cast(schema).to_batches()

    def frame(self, name: str, columns: Sequence[str] | None = None, filters: Filters = None) -> pd.DataFrame:
        """A table as a pandas frame; integers that can be null are ``Int64``, text is categorical."""
        import pandas as pd

        kinds = {
            pa.int64(): pd.Int64Dtype(),
            pa.int32(): pd.Int32Dtype(),
            pa.int16(): pd.Int16Dtype(),
            pa.bool_(): pd.BooleanDtype(),
        }
        table = self.table(name, columns, filters)
        nullable = {field.type for field in table.schema if table.column(field.name).null_count > 0}
        frame: pd.DataFrame = table.to_pandas(
            types_mapper=lambda kind: kinds.get(kind) if kind in nullable else None
        )
        return frame

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Events in the order of time, ``detail`` parsed; all of them, or of the kinds named only."""
        rows: list[dict[str, Any]] = self.table("events").to_pylist()
        chosen = [row for row in rows if not kinds or row["kind"] in kinds]
        for row in chosen:
            row["detail"] = json.loads(row["detail"]) if row["detail"] else {}
        return sorted(chosen, key=lambda row: (row["t"] is None, row["t"] or 0))

    def cells(self) -> list[dict[str, Any]]:
        """Cells of an experiment in the order in which they ran, ``parameters`` and ``result`` parsed."""
        rows: list[dict[str, Any]] = self.table("cells").to_pylist()
        for row in rows:
            for name in ("parameters", "result"):
                row[name] = json.loads(row[name]) if row[name] else {}
        return sorted(rows, key=lambda row: int(row["cell"] or 0))

    def audit(self, trial: int, node: str) -> pa.Table:
        """Numbers found on a node: ``n`` int64, ``copies`` int32. RecordError where it was not audited."""
        file = self.path / "audit" / f"{trial}-{node}.parquet"
        if not file.exists():
            raise RecordError(f"{self.path}: node {node} was not audited in trial {trial}")
        return _audit(file)

    def redis_audits(self) -> dict[str, pa.Table]:
        """Redis node → what was found there of the whole run's list; empty where none was audited."""
        return {file.stem: _audit(file) for file in sorted((self.path / "audit" / "redis").glob("*.parquet"))}

    def audits(self) -> list[tuple[int, str]]:
        """(trial, node) of every audit in the record."""
        found = []
        for file in sorted((self.path / "audit").glob("*-*.parquet")):
            trial, _, node = file.stem.partition("-")
            if trial.isdigit():
                found.append((int(trial), node))
        return sorted(found)

    @cached_property
    def logs(self) -> dict[str, str]:
        """Node → its log, each line led by an RFC 3339 time stamp of the engine's host."""
        return {
            file.stem: file.read_text(encoding="utf-8", errors="replace")
            for file in sorted((self.path / "logs").glob("*.log"))
        }

    def text(self, relative: str) -> str | None:
        """A text file of the record (``topology.yaml``, ``statements.json``), None where it is absent."""
        file = self.path / relative
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None

    def json(self, relative: str) -> Any:
        """A JSON file of the record, None where it is absent."""
        text = self.text(relative)
        if text is None:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise RecordError(f"{self.path / relative} cannot be read: {error}") from error


def _audit(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{file} cannot be read: {error}") from error


def _complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns; one that an older version did not record yet is null."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names)


def _select(name: str, columns: Sequence[str] | None) -> pa.Schema:
    schema = TABLES.get(name)
    if schema is None:
        raise RecordError(f"no table {name!r} in a run record; there are {', '.join(TABLES)}")
    if columns is None:
        return schema
    unknown = [column for column in columns if column not in schema.names]
    if unknown:
        raise RecordError(f"table {name} has no column {', '.join(unknown)}")
    return pa.schema([schema.field(column) for column in columns])


def _expression(filters: Filters) -> pc.Expression | None:
    if filters is None or isinstance(filters, pc.Expression):
        return filters
    return pq.filters_to_expression(filters)
