"""Append-only JSON lines: one file a process and table, each line written at once.

A line is on its way to disk (and to whoever follows the file) when ``write`` returns: a probe that is
killed loses at most the line that it was writing. Field names are the columns of the run record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Rows:
    """One file ``<out>/<table>.<probe>.jsonl``."""

    def __init__(self, out: str | Path, table: str, probe: str) -> None:
        self.path = Path(out) / f"{table}.{probe}.jsonl"
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, row: Mapping[str, Any]) -> None:
        os.write(self._fd, (_encode(row) + "\n").encode())

    def write_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Several rows by one system call."""
        text = "".join(_encode(row) + "\n" for row in rows)
        if text:
            os.write(self._fd, text.encode())

    def close(self) -> None:
        os.close(self._fd)


def event(
    t: int, kind: str, trial: int, *, source: str, uncertainty: int, node: str | None = None, **detail: Any
) -> dict[str, Any]:
    """A row of the table ``events``."""
    return {
        "t": t,
        "kind": kind,
        "trial": trial,
        "node": node,
        "source": source,
        "uncertainty": uncertainty,
        "detail": _encode(detail),
    }
