"""Writes a run record: appended to while the run lasts, compacted on close.

Whatever kills the writer, what it wrote before stays readable with ``RecordReader``.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lab import __version__
from lab.errors import LabError, UsageError
from lab.record.compact import compact, describe_bad
from lab.record.schema import EVENT_KINDS, TABLES, Manifest

_AUDIT_SCHEMA = pa.schema([("n", pa.int64()), ("copies", pa.int32())])


class RecordWriter:
    """An open run record. Every method may be called from any thread."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._files: dict[str, BinaryIO] = {}
        self._lock = threading.RLock()
        self._open = True

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        scenario: str,
        *,
        topology: str,
        lab: str,
        seed: int,
        trials_asked: int,
        announce: Callable[[Path], None] = lambda _path: None,
        **fields: Any,
    ) -> RecordWriter:
        """Make the folder ``<UTC time>-<scenario>`` and point ``latest`` to it.

        ``announce`` is called with the folder before it holds a manifest that says *running*, so that whoever
        comes after a killed runner knows what to close. ``fields`` are further fields of the manifest.
        LabError where the folder cannot be made.
        """
        now = datetime.now(UTC)
        stem = f"{now:%Y%m%dT%H%M%SZ}-{scenario}"
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            path, name = _make_folder(runs_dir, stem)
        except OSError as error:
            raise _failure(error, runs_dir) from error
        announce(path)
        manifest = Manifest(
            run=name,
            state="running",
            lab_version=__version__,
            scenario=scenario,
            topology=topology,
            lab=lab,
            seed=seed,
            started_wall=now.isoformat(timespec="milliseconds"),
            trials_asked=trials_asked,
            **fields,
        )
        writer = cls(path, manifest)
        writer._write_manifest()
        _point_latest(runs_dir, name)
        return writer

    def update(self, **fields: Any) -> None:
        """Set fields of the manifest; the file is replaced at once and whole."""
        with self._lock:
            self.manifest = Manifest.model_validate({**self.manifest.model_dump(), **fields})
            self._write_manifest()

    def note(self, text: str) -> None:
        """Add a note to the manifest, once."""
        with self._lock:
            if text not in self.manifest.notes:
                self.update(notes=[*self.manifest.notes, text])

    def event(
        self,
        kind: str,
        t: int | None,
        *,
        trial: int = 0,
        node: str | None = None,
        source: str = "runner",
        uncertainty: int = 0,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an event. ``t`` and ``uncertainty`` in ns of the observer's monotonic clock."""
        if kind not in EVENT_KINDS:
            raise ValueError(f"unknown kind of event: {kind}")
        row = {
            "t": t,
            "kind": kind,
            "trial": trial,
            "node": node,
            "source": source,
            "uncertainty": uncertainty,
            "detail": json.dumps(detail) if detail else None,
        }
        self.rows("events", [row])

    def rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows (column → value) to a table's own segment."""
        data = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        self.append(f"{table}.jsonl", data.encode())

    def append(self, segment: str, data: bytes) -> None:
        """Append bytes as they come to a segment: ``<table>.jsonl`` or ``<table>.<part>.(jsonl|bin)``.

        LabError where the disk is full; what was written before stays readable.
        """
        table, _, rest = segment.partition(".")
        if table not in TABLES or not rest.endswith(("jsonl", "bin")) or "/" in segment:
            raise ValueError(f"not a segment of a table: {segment}")
        with self._lock:
            if not self._open:
                raise LabError(f"the run record {self.path} is closed")
            try:
                file = self._files.get(segment)
                if file is None:
                    file = (self.path / segment).open("ab", buffering=0)
                    self._files[segment] = file
                written = 0
                while written < len(data):
                    written += file.write(data[written:]) or 0
            except OSError as error:
                raise _failure(error, self.path) from error

    def size(self, segment: str) -> int:
        """Bytes of a segment so far, 0 where there is none."""
        try:
            return (self.path / segment).stat().st_size
        except FileNotFoundError:
            return 0

    def put(self, relative: str, data: str | bytes) -> None:
        """Write one file of the record, replacing it whole."""
        target = self.path / relative
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"outside of the record: {relative}")
        _write_atomically(target, data.encode() if isinstance(data, str) else data)

    def audit(self, trial: int, node: str, numbers: pa.Table) -> None:
        """Record the numbers found on a node: columns ``n`` and ``copies``."""
        self._audit(Path("audit") / f"{trial}-{node}.parquet", numbers)

    def audit_redis(self, node: str, numbers: pa.Table) -> None:
        """The same of the whole run's list on a Redis node."""
        self._audit(Path("audit") / "redis" / f"{node}.parquet", numbers)

    def _audit(self, relative: Path, numbers: pa.Table) -> None:
        target = self.path / relative
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            pq.write_table(numbers.select(_AUDIT_SCHEMA.names).cast(_AUDIT_SCHEMA), part)
            part.replace(target)
        except OSError as error:
            raise _failure(error, self.path) from error

    def release(self) -> None:
        """Close the files and leave the record as it is, for another writer to go on with."""
        with self._lock:
            self._open = False
            for file in self._files.values():
                file.close()
            self._files.clear()

    def close(self, state: Literal["closed", "interrupted"] = "closed") -> None:
        """End the record: compact the segments to parquet, set the final state. Idempotent."""
        with self._lock:
            if not self._open:
                return
            self.release()
            try:
                finish(self.path, state)
            finally:
                self.manifest = Manifest.model_validate_json((self.path / "manifest.json").read_bytes())

    def _write_manifest(self) -> None:
        _write_manifest(self.path, self.manifest)


def finish(path: Path, state: Literal["closed", "interrupted"], note: str | None = None) -> None:
    """Compact a run folder and set its final state, also one whose writer was killed."""
    manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
    notes = [*manifest.notes, note] if note and note not in manifest.notes else list(manifest.notes)
    ended = manifest.ended_wall or datetime.now(UTC).isoformat(timespec="milliseconds")
    # The state first: should compaction fail, the segments still read as what they are.
    _write_manifest(path, manifest.model_copy(update={"state": state, "ended_wall": ended, "notes": notes}))
    bad = compact(path)
    if bad:
        notes.append(describe_bad(bad))
        _write_manifest(
            path, manifest.model_copy(update={"state": state, "ended_wall": ended, "notes": notes})
        )


def _make_folder(runs_dir: Path, stem: str) -> tuple[Path, str]:
    for number in range(1, 1000):
        name = stem if number == 1 else f"{stem}-{number}"
        try:
            (runs_dir / name).mkdir()
        except FileExistsError:
            continue
        return runs_dir / name, name
    raise UsageError(f"too many runs named {stem} in {runs_dir}")


def _point_latest(runs_dir: Path, name: str) -> None:
    link = runs_dir / "latest"
    temporary = runs_dir / f".latest-{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(name)
        temporary.replace(link)
    except OSError as error:
        raise _failure(error, link) from error


def _write_manifest(path: Path, manifest: Manifest) -> None:
    _write_atomically(path / "manifest.json", manifest.model_dump_json(indent=2).encode() + b"\n")


def _write_atomically(target: Path, data: bytes) -> None:
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _failure(error, target) from error


def _failure(error: OSError, path: Path) -> LabError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LabError(
            f"the disk is full: {path} cannot be written",
            hint="free some space (old runs are in runs/); what was recorded so far stays readable",
        )
    return LabError(f"{path} cannot be written: {error.strerror or error}")
