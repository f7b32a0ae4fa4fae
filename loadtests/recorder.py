"""Writes the raw record of one worker: every request, at least every 250 ms, cheaply.

A row is packed into a buffer made beforehand (well under a microsecond); the buffer goes to the file
when it is full and at every ``flush``. What else wants to know of requests (Locust's statistics) is
told then, of a whole buffer at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from loadtests.format import NOBODY, NULL, ROW, block, json_block

ROWS = 512
"""Rows of the buffer: few, since telling ``on_rows`` of a full one holds everybody up."""
_SIZE = ROW.size
FLUSH_S = 0.2
"""Time between flushes; the promise is 250 ms."""

Rows = memoryview
OnRows = Callable[[Rows], None]


class Recorder:
    """The open file. Not for several threads; greenlets are fine, since nothing here waits."""

    def __init__(self, path: str, run: str, worker: int, on_rows: OnRows | None = None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._buffer = bytearray(ROWS * ROW.size)
        self._view = memoryview(self._buffer)
        self._full = len(self._buffer)
        self._at = 0
        self._worker = worker
        self._ids: dict[tuple[str, str], int] = {}
        self._counts: dict[str, int] = {}
        self._on_rows = on_rows
        self.texts: dict[str, list[str]] = {"name": [], "endpoint": [], "outcome": []}
        self.rows = 0
        self._write(json_block(b"LDR1", {"run": run, "worker": worker}))

    def id(self, kind: str, text: str) -> int:
        """The number of a text; a new one is written before any row that uses it."""
        key = (kind, text)
        number = self._ids.get(key)
        if number is None:
            number = self._ids[key] = len(self.texts[kind])
            self.texts[kind].append(text)
            self._write(json_block(b"NAME", [kind, number, text]))
        return number

    def clock(self, offset_ns: int, uncertainty_ns: int, at_ns: int) -> None:
        """From the next row on, observer = client + offset."""
        self.flush()
        self._write(
            json_block(b"CLCK", {"offset_ns": offset_ns, "uncertainty_ns": uncertainty_ns, "at_ns": at_ns})
        )

    def add(
        self, intended: int, started: int, done: int, name: int, endpoint: int, outcome: int,
        user: int = NOBODY, _pack: Any = ROW.pack_into,
    ) -> None:  # fmt: skip
        """One request: times in ns of this process's monotonic clock, then ids, then the user's number."""
        at = self._at
        _pack(self._buffer, at, intended, started, done, name, endpoint, outcome, self._worker, user)
        self._at = at = at + _SIZE
        if at == self._full:
            self.flush()

    def dropped(self, intended: int, done: int, name: int, endpoint: int, outcome: int) -> None:
        """A request that never started."""
        self.add(intended, NULL, done, name, endpoint, outcome)

    def flush(self) -> None:
        """Bring what is in the buffer into the file, and tell ``on_rows``."""
        if not self._at:
            return
        rows = self._view[: self._at]
        self._write(block(b"ROWU", bytes(rows)))
        self.rows += self._at // ROW.size
        self._at = 0
        if self._on_rows:
            self._on_rows(rows)

    def close(self) -> None:
        """Flush, and close the file. Idempotent."""
        if self._file >= 0:
            self.flush()
            os.close(self._file)
            self._file = -1

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]
