"""Reads the append-only segments of a running (or killed) run as Arrow batches.

A table's segments are ``<table>.jsonl``, ``<table>.<part>.jsonl`` and, for ``requests``, the load's own
binary files ``requests.<part>.bin``. A last line without its newline is what a killed writer leaves:
it is skipped. Any other line that cannot be read is skipped too, and counted, never silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from lab.record.schema import LEDGERS, TABLES

BLOCK_BYTES = 8 * 1024 * 1024
BATCH_ROWS = 100_000

OnBad = Callable[[Path, int], None]
"""Called with a segment and the number of its lines that could not be read."""


def segments(run: Path, table: str) -> list[Path]:
    """The segments of a table, in the order of their names."""
    found = [path for path in (run / f"{table}.jsonl",) if path.exists()]
    found += sorted(run.glob(f"{table}.*.jsonl"))
    found += sorted(run.glob(f"{table}.*.bin")) + sorted(run.glob(f"{table}.bin"))
    return found


def read_batches(run: Path, table: str, on_bad: OnBad | None = None) -> Iterator[pa.RecordBatch]:
    """Every row of a table's segments, in batches of the table's schema.

    Memory is bounded by one block (8 MiB of text) and, for ledgers, by the intents whose outcome
    has not come. Rows of ledgers come in the order of their outcomes, those without one last.
    """
    paths = segments(run, table)
    if table in LEDGERS:
        yield from _ledger_batches(paths, TABLES[table], on_bad)
        return
    for path in paths:
        if path.suffix == ".bin":
            yield from _binary_batches(path, TABLES[table])
        else:
            yield from _jsonl_batches(path, TABLES[table], on_bad)


def _blocks(path: Path) -> Iterator[bytes]:
    """Blocks of complete lines. What follows the last newline is not a line yet."""
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(BLOCK_BYTES):
            end = chunk.rfind(b"\n")
            if end < 0:
                rest += chunk
                continue
            yield rest + chunk[: end + 1]
            rest = chunk[end + 1 :]


def _jsonl_batches(path: Path, schema: pa.Schema, on_bad: OnBad | None) -> Iterator[pa.RecordBatch]:
    # Not with Arrow's own JSON reader: it crashes the process on some damaged files.
    for block in _blocks(path):
        rows, bad = _parse_lines(block)
        try:
            batch = rows_to_batch(rows, schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            # A value does not fit its column as it is: an object where the schema says text, …
            fitting = [fit for row in rows if (fit := fit_row(row, schema)) is not None]
            bad += len(rows) - len(fitting)
            batch = rows_to_batch(fitting, schema)
        if bad and on_bad:
            on_bad(path, bad)
        if batch.num_rows:
            yield batch


def _ledger_batches(
    paths: Iterable[Path], schema: pa.Schema, on_bad: OnBad | None
) -> Iterator[pa.RecordBatch]:
    pending: dict[int, dict[str, Any]] = {}
    out: list[dict[str, Any]] = []
    for path in paths:
        for block in _blocks(path):
            rows, bad = _parse_lines(block)
            for row in rows:
                number, kind = row.get("n"), row.get("k")
                if type(number) is not int or kind not in ("i", "o"):
                    bad += 1
                elif kind == "i":
                    pending[number] = row
                else:
                    intent = pending.pop(number, {})
                    known = {key: value for key, value in row.items() if value is not None}
                    merged = fit_row({**intent, **known}, schema)
                    if merged is None or merged["outcome"] is None:
                        bad += 1
                    else:
                        out.append(merged)
                if len(out) >= BATCH_ROWS:
                    yield rows_to_batch(out, schema)
                    out = []
            if bad and on_bad:
                on_bad(path, bad)
    for intent in pending.values():
        unanswered = fit_row({**intent, "outcome": "unknown"}, schema)
        if unanswered is not None:
            out.append(unanswered)
    for start in range(0, len(out), BATCH_ROWS):
        yield rows_to_batch(out[start : start + BATCH_ROWS], schema)


def _binary_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    from loadtests.format import read_batches as read_binary

    for batch in read_binary(path):
        table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        yield from table.to_batches()


def _parse_lines(block: bytes) -> tuple[list[dict[str, Any]], int]:
    """The objects of a block of lines, and how many lines are none."""
    lines = [line for line in block.split(b"\n") if line.strip()]
    try:
        # All at once: several times faster than line by line.
        rows = json.loads(b"[" + b",".join(lines) + b"]")
        if len(rows) == len(lines) and all(type(row) is dict for row in rows):
            return rows, 0
    except (ValueError, RecursionError):
        pass
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found, len(lines) - len(found)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with every dictionary type replaced by the type of its values."""
    return pa.schema(
        [(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema]
    )


def fit_row(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any] | None:
    """The row with exactly the schema's columns, or None where a value does not fit its column."""
    fitted: dict[str, Any] = {}
    for field in schema:
        value = row.get(field.name)
        if value is not None:
            try:
                value = _fit(value, field.type)
            except (TypeError, ValueError, OverflowError):
                return None
        fitted[field.name] = value
    return fitted


def _fit(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        text = value if isinstance(value, str) else json.dumps(value)
        return text.encode("utf-8", "replace").decode()
    if pa.types.is_boolean(kind):
        if not isinstance(value, bool):
            raise TypeError("expected true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("expected a number")
    if pa.types.is_integer(kind):
        number = int(value)
        if number != value or abs(number) >= 2 ** (kind.bit_width - 1):
            raise ValueError("expected an integer that fits")
        return number
    return float(value)


def rows_to_batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as one batch of the schema; a missing column is null. Raises where a value does not fit."""
    columns = []
    for field in schema:
        dictionary = pa.types.is_dictionary(field.type)
        array = pa.array(
            [row.get(field.name) for row in rows], field.type.value_type if dictionary else field.type
        )
        columns.append(array.dictionary_encode().cast(field.type) if dictionary else array)
    return pa.RecordBatch.from_arrays(columns, schema=schema)
