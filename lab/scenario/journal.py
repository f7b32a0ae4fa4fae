"""What has to be undone in a lab, on disk before it is done.

``<state_dir>/journal.jsonl`` holds one JSON object a line, synced to disk before the runner goes on:

    {"id": 1, "do": "run", "record": "/…/runs/…", "remote": [{"node": "observer", "out": "/run/lab/…"}]}
    {"id": 2, "do": "heal", "fault": "kill-node", "instructions": {…}, "trial": 1}
    {"id": 2, "do": "done"}

What has no ``done`` is pending. Whoever works on a lab holds ``<state_dir>/lock``; the kernel lets
go of it when that process ends, however it ends. So a journal with something pending and a free lock
is what a killed runner left behind, and ``heal_pending`` undoes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.deploy.state import exclusive, is_held
from lab.driver import Lab
from lab.errors import LabError
from lab.faults import find

JOURNAL = "journal.jsonl"
LOCK = "lock"


@dataclass(frozen=True)
class Entry:
    """Something that was announced."""

    id: int
    do: str
    """``run`` or ``heal``."""
    data: dict[str, Any]


class Journal:
    """The journal of one lab. Only the holder of the lab's lock writes to it, from any of its threads."""

    def __init__(self, state_dir: Path) -> None:
        self._lock = threading.RLock()
        self.path = state_dir / JOURNAL
        self._next = max((entry.id for entry in self._read()[0]), default=0) + 1

    def begin(self, do: str, **data: Any) -> int:
        """Announce something. On disk when this returns; the id is for ``done``."""
        with self._lock:
            number = self._next
            self._next += 1
            self._append({"id": number, "do": do, **data})
            return number

    def done(self, number: int) -> None:
        """What was announced is undone (or was ended in good order)."""
        with self._lock:
            self._append({"id": number, "do": "done"})

    def pending(self) -> list[Entry]:
        """What was announced and is not done, newest first: the order in which to undo it."""
        entries, finished = self._read()
        return [entry for entry in reversed(entries) if entry.id not in finished]

    def clear(self) -> None:
        """Empty the journal where nothing is pending."""
        if not self.pending():
            with contextlib.suppress(FileNotFoundError):
                os.truncate(self.path, 0)
            self._next = 1

    def _append(self, line: dict[str, Any]) -> None:
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # A line that a killed process left unfinished must not swallow this one.
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                data = (b"\n" if torn else b"") + json.dumps(line).encode() + b"\n"
                if os.write(handle, data) != len(data):
                    raise OSError(28, "No space left on device")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise LabError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="nothing is broken in a lab whose healing cannot be noted down first",
            ) from error

    def _read(self) -> tuple[list[Entry], set[int]]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return [], set()
        entries: list[Entry] = []
        finished: set[int] = set()
        for line in text.splitlines():
            # A torn line was not yet synced, so what it announces has not begun.
            try:
                data = json.loads(line)
                number, do = int(data.pop("id")), str(data.pop("do"))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if do == "done":
                finished.add(number)
            else:
                entries.append(Entry(number, do, data))
        return entries, finished


@contextlib.contextmanager
def hold(lab: Lab) -> Iterator[Journal]:
    """Work on a lab alone. LabError where another runner does already."""
    with exclusive(lab.state_dir / LOCK, wait_s=0, busy=f"lab {lab.name} is in use by another run"):
        yield Journal(lab.state_dir)


def heal_pending(lab: Lab) -> list[str]:
    """Undo what a killed runner left behind; what was done, in words.

    Nothing is done where a living runner holds the lab. Faults are healed first, then probes and load
    are stopped, what they still hold is fetched into the run record, and the record is closed as
    interrupted. LabError where a fault cannot be healed; it stays in the journal.
    """
    if is_held(lab.state_dir / LOCK) or not (lab.state_dir / JOURNAL).exists():
        return []
    with hold(lab) as journal:
        return heal_all(lab, journal)


def heal_all(lab: Lab, journal: Journal, why: str | None = None) -> list[str]:
    """As ``heal_pending``, for the holder of the lock. ``why`` the run ended; None: it was killed."""
    from lab.scenario.leftovers import close_run

    told: list[str] = []
    failed: list[str] = []
    pending = journal.pending()
    for entry in [e for e in pending if e.do == "heal"] + [e for e in pending if e.do == "run"]:
        try:
            told.append(_heal(lab, entry) if entry.do == "heal" else close_run(lab, entry.data, why))
        except LabError as error:
            failed.append(str(error))
            continue
        journal.done(entry.id)
    journal.clear()
    if failed:
        raise LabError(
            f"lab {lab.name} is not healed: {'; '.join(failed)}",
            hint=f"the next `lab` command tries again; `lab down --name {lab.name}` removes the lab",
        )
    return told


def _heal(lab: Lab, entry: Entry) -> str:
    fault = find(str(entry.data["fault"]))
    instructions = dict(entry.data["instructions"])
    fault.heal(lab, instructions)
    where = f" on {instructions['node']}" if "node" in instructions else ""
    return f"healed {fault.name}{where}"
