"""Tables of a run record as plain numpy columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lab.record.reader import RecordReader

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MISSING = -1
"""What an unknown time or number becomes; the observer's clock is never negative."""


@dataclass(frozen=True)
class Text:
    """A text column: ``words[codes[i]]``, code −1 where it is null."""

    codes: npt.NDArray[np.int32]
    words: tuple[str, ...]

    def equals(self, *wanted: str) -> Bools:
        """Rows that hold one of the words."""
        picked = [i for i, word in enumerate(self.words) if word in wanted]
        return np.isin(self.codes, picked)

    def take(self, index: Any) -> Text:
        return Text(self.codes[index], self.words)

    def at(self, row: int) -> str | None:
        code = int(self.codes[row])
        return self.words[code] if code >= 0 else None


def integers(column: pa.ChunkedArray) -> Ints:
    """Whole numbers, null as MISSING."""
    filled = column.fill_null(MISSING) if column.null_count else column
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def booleans(column: pa.ChunkedArray, *, null: bool = False) -> Bools:
    filled = column.fill_null(null) if column.null_count else column
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.bool_)


def text(column: pa.ChunkedArray | pa.Array) -> Text:
    """A dictionary (or plain text) column; chunks may have dictionaries of their own."""
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Text(codes, tuple(str(word) for word in column.dictionary.to_pylist()))


@dataclass(frozen=True)
class Columns:
    """A table whose columns are of one length."""

    def take(self, rows: Any) -> Self:
        """Some of its rows, by mask or by index."""
        columns: list[Any] = [
            column.take(rows) if isinstance(column, Text) else column[rows]
            for column in (getattr(self, name) for name in self.__dataclass_fields__)
        ]
        return type(self)(*columns)


@dataclass(frozen=True)
class Writes(Columns):
    """The ledger, one row a number, in the order of ``intended``."""

    n: Ints
    trial: Ints
    session: Ints
    opened: Ints
    fresh: Bools
    intended: Ints
    sent: Ints
    done: Ints
    outcome: Text
    message: Text
    server: Text

    def __len__(self) -> int:
        return len(self.n)


@dataclass(frozen=True)
class Reads(Columns):
    """The reader probe's operations, in the order of ``intended``."""

    trial: Ints
    session: Ints
    opened: Ints
    fresh: Bools
    intended: Ints
    sent: Ints
    done: Ints
    ok: Bools
    newest: Ints
    message: Text
    endpoint: Text
    server: Text

    def __len__(self) -> int:
        return len(self.intended)


_Timed = TypeVar("_Timed", Writes, Reads)


@dataclass(frozen=True)
class Nodes:
    """Samples of every database node, in the order of ``sent``."""

    sent: Ints
    done: Ints
    node: Text
    reachable: Bools
    accepts: Bools
    recovering: Bools
    timeline: Ints
    lsn: Ints


@dataclass(frozen=True)
class Routes:
    """New connections through the router, in the order of ``sent``."""

    sent: Ints
    done: Ints
    ok: Bools
    server: Text


def read_writes(record: RecordReader, table: str = "writes") -> Writes:
    """A ledger of a record."""
    names = ("n", "trial", "session", "session_opened", "fresh", "intended", "sent", "done")
    return _in_order(Writes, record, table, names, ("outcome", "message", "server"))


def read_reads(record: RecordReader) -> Reads:
    names = ("trial", "session", "session_opened", "fresh", "intended", "sent", "done", "ok", "newest")
    return _in_order(Reads, record, "reads", names, ("message", "endpoint", "server"))


def _in_order(
    kind: type[_Timed], record: RecordReader, table: str, names: tuple[str, ...], words: tuple[str, ...]
) -> _Timed:
    """A table with the fields of ``kind`` in their order, its rows in the order of ``intended``."""
    t = record.table(table, (*names, *words))
    columns: list[Any] = [
        booleans(t[name]) if pa.types.is_boolean(t[name].type) else integers(t[name]) for name in names
    ]
    found = kind(*columns, *(text(t[name]) for name in words))
    return found.take(np.argsort(found.intended, kind="stable"))


def read_nodes(record: RecordReader) -> Nodes:
    t = record.table("nodes")
    t = t.take(pa.array(np.argsort(integers(t["t_sent"]), kind="stable")))
    return Nodes(
        integers(t["t_sent"]),
        integers(t["t_done"]),
        text(t["node"]),
        booleans(t["reachable"]),
        booleans(t["accepts_writes"]),
        booleans(t["in_recovery"], null=True),
        integers(t["timeline"]),
        integers(t["lsn"]),
    )


def read_routes(record: RecordReader) -> Routes:
    t = record.table("routes")
    t = t.take(pa.array(np.argsort(integers(t["t_sent"]), kind="stable")))
    return Routes(integers(t["t_sent"]), integers(t["t_done"]), booleans(t["ok"]), text(t["server"]))


def member(values: Ints, among: Ints) -> Bools:
    """Which values occur in the sorted array ``among``."""
    if not len(among):
        return np.zeros(len(values), dtype=np.bool_)
    at = np.searchsorted(among, values)
    at[at == len(among)] = 0
    return np.asarray(among[at] == values, dtype=np.bool_)


def first(values: Ints, mask: Bools) -> int | None:
    """The first value whose mask is set."""
    at = np.flatnonzero(mask)
    return int(values[at[0]]) if len(at) else None
