"""Turns the segments of a run into parquet, one file a table, a batch at a time.

A crash in between loses nothing: the parquet file appears by a rename once it is whole, and the
segments go only after that. Compacting again is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lab.errors import LabError
from lab.record.schema import TABLES
from lab.record.segments import plain_schema, read_batches, segments

ROW_GROUP_ROWS = 500_000


def compact(run: Path) -> dict[str, int]:
    """Compact every table of a run folder.

    Returns table → lines that could not be read (and are lost), for tables that had any. A table that
    was compacted before keeps its parquet file.
    """
    bad: dict[str, int] = {}
    for table in TABLES:
        skipped = _compact_table(run, table)
        if skipped:
            bad[table] = skipped
    return bad


def _compact_table(run: Path, table: str) -> int:
    target = run / f"{table}.parquet"
    paths = segments(run, table)
    bad = 0

    def count(_: Path, lines: int) -> None:
        nonlocal bad
        bad += lines

    if not target.exists():
        if not paths:
            return 0
        part = run / f"{table}.parquet.part"
        schema = TABLES[table]
        try:
            # Dictionaries grow from batch to batch; text columns are dictionary-encoded by parquet itself,
            # and the reader brings them back as dictionaries.
            with pq.ParquetWriter(part, plain_schema(schema), compression="zstd") as writer:
                rows: list[pa.RecordBatch] = []
                waiting = 0
                for batch in read_batches(run, table, count):
                    rows.append(batch)
                    waiting += batch.num_rows
                    if waiting >= ROW_GROUP_ROWS:
                        _write(writer, rows, schema)
                        rows, waiting = [], 0
                _write(writer, rows, schema)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise LabError(
                f"could not compact {table} of {run}: {error.strerror or error}",
                hint="the raw segments are kept and stay readable",
            ) from error
        part.replace(target)
    for path in paths:
        path.unlink(missing_ok=True)
    return bad


def _write(writer: pq.ParquetWriter, rows: list[pa.RecordBatch], schema: pa.Schema) -> None:
    if rows:
        table = pa.Table.from_batches(rows, schema=schema).cast(plain_schema(schema))
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


def parquet_columns(table: str, columns: list[str] | None) -> list[str]:
    """The dictionary-typed columns of a table that were asked for."""
    wanted = columns if columns is not None else TABLES[table].names
    return [name for name in wanted if pa.types.is_dictionary(TABLES[table].field(name).type)]


def describe_bad(bad: Mapping[str, int]) -> str:
    """One sentence for the manifest's notes."""
    parts = ", ".join(f"{lines} of {table}" for table, lines in sorted(bad.items()))
    return f"damaged lines were left out of the record: {parts}"
