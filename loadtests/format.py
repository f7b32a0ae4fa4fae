"""The raw record of requests: an append-only binary file that explains itself.

A file is a sequence of blocks, each a tag of 4 bytes, the length of its body (uint32) and the body:

    LDR1   JSON: {"run", "worker"}; the first block
    CLCK   JSON: {"offset_ns", "uncertainty_ns", "at_ns"}: from here on, observer = client + offset_ns
    NAME   JSON: [kind, id, text]: what an id of a row stands for; kind is name, endpoint or outcome
    ROWU   rows of 34 bytes: intended, started, done (int64 ns of the client's monotonic clock, -1 for
           null), then ids of name, endpoint and outcome, the worker's number and the user's, from 1, 0 for
           null (uint16 each)
    ROWS   the same without the user's number, 32 bytes: what earlier versions wrote

Little-endian. Whatever cuts a file short leaves everything before the cut readable.
Writing needs the standard library only; reading needs numpy and pyarrow (the host has them).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa

HEAD = struct.Struct("<4sI")
ROW = struct.Struct("<qqqHHHHH")
NULL = -1
NOBODY = 0
KINDS = ("name", "endpoint", "outcome")
_TIMES = ("intended", "started", "done")
_COLUMNS = {b"ROWS": (*KINDS, "worker"), b"ROWU": (*KINDS, "worker", "user")}
"""Tag of a block of rows → its columns of 2 bytes."""
BATCH_ROWS = 100_000
MAX_BLOCK = 1 << 26


def nested(endpoint: str) -> bool:
    """Whether rows of an endpoint are parts of requests (commands to the cache) rather than requests."""
    return endpoint.endswith((".redis", ".sentinel"))


def whole(rows: Any) -> Any:
    """The rows (a table or a batch) that are requests, without those that are parts of one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    endpoints = rows.column("endpoint").cast(pa.string())
    parts = [name for name in pc.unique(endpoints).to_pylist() if name is not None and nested(name)]
    return rows.filter(pc.invert(pc.is_in(endpoints, pa.array(parts, pa.string())))) if parts else rows


def block(tag: bytes, body: bytes) -> bytes:
    """One block, ready to be appended."""
    return HEAD.pack(tag, len(body)) + body


def json_block(tag: bytes, value: object) -> bytes:
    """A block whose body is JSON."""
    return block(tag, json.dumps(value, separators=(",", ":")).encode())


class BlockReader:
    """Takes a file's bytes as they come, in pieces of any size; gives the blocks that are complete."""

    def __init__(self, source: str = "requests") -> None:
        self._rest = b""
        self._at = 0
        self._source = source

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The (tag, body) pairs that these bytes completed.

        Raises:
            lab.errors.RecordError: what stands where a block should begin is none.
        """
        self._rest += data
        found: list[tuple[bytes, bytes]] = []
        start = 0
        while len(self._rest) - start >= HEAD.size:
            tag, length = HEAD.unpack_from(self._rest, start)
            if tag not in (b"LDR1", b"CLCK", b"NAME", *_COLUMNS) or length > MAX_BLOCK:
                from lab.errors import RecordError

                raise RecordError(
                    f"{self._source}: damaged at byte {self._at + start}: no block begins there"
                )
            end = start + HEAD.size + length
            if end > len(self._rest):
                break
            found.append((tag, self._rest[start + HEAD.size : end]))
            start = end
        self._at += start
        self._rest = self._rest[start:]
        return found

    def cut(self) -> tuple[bytes, bytes] | None:
        """At the end of a file that was cut short: the whole rows of its last, incomplete block."""
        if len(self._rest) <= HEAD.size:
            return None
        tag, _ = HEAD.unpack_from(self._rest)
        if tag not in _COLUMNS:
            return None
        size = 8 * len(_TIMES) + 2 * len(_COLUMNS[tag])
        whole = (len(self._rest) - HEAD.size) // size * size
        return (tag, self._rest[HEAD.size : HEAD.size + whole]) if whole else None


class Decoder:
    """Turns blocks into Arrow batches on the observer's clock (on the client's, before any CLCK)."""

    def __init__(self) -> None:
        self.offset_ns = 0
        self.clocks: list[dict[str, int]] = []
        self.head: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def take(self, tag: bytes, body: bytes) -> pa.RecordBatch | None:
        """The rows of a block, in the schema of the table ``requests``; None where it holds none."""
        if tag in _COLUMNS:
            return self._rows(body, _COLUMNS[tag])
        value = json.loads(body)
        if tag == b"NAME":
            kind, number, text = value
            texts = self._texts[kind]
            texts.extend([""] * (number + 1 - len(texts)))
            texts[number] = text
        elif tag == b"CLCK":
            self.clocks.append(value)
            self.offset_ns = value["offset_ns"]
        else:
            self.head = value
        return None

    def _rows(self, body: bytes, small: tuple[str, ...]) -> pa.RecordBatch:
        import numpy as np
        import pyarrow as pa

        from lab.record.schema import TABLES

        dtype = np.dtype([(t, "<i8") for t in _TIMES] + [(k, "<u2") for k in small])
        rows = np.frombuffer(body, dtype=dtype)
        columns: list[pa.Array] = []
        schema = TABLES["requests"]
        for field in schema:
            if field.name in KINDS:
                columns.append(
                    pa.DictionaryArray.from_arrays(
                        pa.array(rows[field.name].astype(np.int32)), pa.array(self._texts[field.name])
                    )
                )
            elif field.name == "worker":
                columns.append(pa.array(rows["worker"].astype(np.int16)))
            elif field.name == "user":
                users = rows["user"] if "user" in small else np.full(len(rows), NOBODY, np.uint16)
                columns.append(pa.array(users.astype(np.int16), mask=users == NOBODY))
            else:
                times = rows[field.name]
                columns.append(pa.array(times + self.offset_ns, mask=times == NULL))
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def read_batches(path: Path | str) -> Iterator[pa.RecordBatch]:
    """The rows of one file, in bounded memory.

    Raises:
        lab.errors.RecordError: the file is damaged (one that was merely cut short is not).
        OSError: it cannot be read.
    """
    import pyarrow as pa

    decoder, blocks = Decoder(), BlockReader(str(path))
    waiting: list[pa.RecordBatch] = []
    count = 0

    def merged() -> Iterator[pa.RecordBatch]:
        if waiting:
            table = pa.Table.from_batches(waiting).unify_dictionaries().combine_chunks()
            yield from table.to_batches()

    with Path(path).open("rb") as file:
        for tag, body in _blocks(file, blocks):
            batch = decoder.take(tag, body)
            if batch is None:
                continue
            waiting.append(batch)
            count += batch.num_rows
            if count >= BATCH_ROWS:
                yield from merged()
                waiting, count = [], 0
    yield from merged()


def read_requests(path: Path | str) -> pa.Table:
    """The rows of one file as a table of the schema ``requests``; errors as ``read_batches``."""
    import pyarrow as pa

    from lab.record.schema import TABLES

    table = pa.Table.from_batches(list(read_batches(path)), schema=TABLES["requests"])
    return table.unify_dictionaries()


def _blocks(file: BinaryIO, blocks: BlockReader) -> Iterator[tuple[bytes, bytes]]:
    while data := file.read(1 << 20):
        yield from blocks.feed(data)
    last = blocks.cut()
    if last:
        yield last
