"""What the writer probe sees, while it is streamed in: is it healthy, and has it recovered?

An estimate for the person who watches; the report works from the record.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

from lab.record.schema import NS

OK = ("acknowledged", "acknowledged_locally")


@dataclass(frozen=True)
class Recovery:
    """As seen up to now, ns of the observer's clock."""

    bad: int
    """Writes since the effect that failed, are unknown or were slow."""
    first_good: int | None
    """End of the first good write after the last bad one; None while it lasts, or where none was bad."""


class LiveWrites:
    """Takes the bytes of the writer probe's segments as they come."""

    def __init__(self, slow_after_s: float) -> None:
        self._slow = round(slow_after_s * NS)
        self._lock = threading.Lock()
        self._rest: dict[str, bytes] = {}
        self._intended: dict[int, int] = {}
        self._effect: int | None = None
        self._bad = 0
        self._last_bad: int | None = None
        self._first_good: int | None = None
        self.last_ack: int | None = None
        """End of the newest acknowledged write."""
        self.newest_bad: int | None = None
        """End of the newest write that was not good."""

    def feed(self, segment: str, data: bytes) -> None:
        """Bytes of a segment; those of other tables are ignored."""
        if not segment.startswith("writes."):
            return
        with self._lock:
            *lines, self._rest[segment] = (self._rest.get(segment, b"") + data).split(b"\n")
            for line in lines:
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue

    def _take(self, row: dict[str, object]) -> None:
        number = int(str(row["n"]))
        if row["k"] == "i":
            self._intended[number] = int(str(row["intended"]))
            return
        intended = self._intended.pop(number, None)
        given = row.get("done")
        if given is None:
            return
        done = int(str(given))
        slow = intended is not None and done - intended > self._slow
        if row["outcome"] in OK and not slow:
            self.last_ack = max(self.last_ack or 0, done)
            if self._last_bad is not None and self._first_good is None and done > self._last_bad:
                self._first_good = done
            return
        self.newest_bad = max(self.newest_bad or 0, done)
        if self._effect is not None and done >= self._effect:
            self._bad += 1
            self._last_bad = max(self._last_bad or 0, done)
            self._first_good = None

    def fault(self, effect: int) -> None:
        """From now on, recovery from this moment is what is looked for."""
        with self._lock:
            self._effect, self._bad, self._last_bad, self._first_good = effect, 0, None, None

    def recovery(self) -> Recovery:
        with self._lock:
            return Recovery(self._bad, self._first_good)

    def unhealthy(self, now: int, within_s: float = 1.5) -> str:
        """Why writes are not healthy at this moment, "" where they are."""
        with self._lock:
            if self.last_ack is None:
                return "no write was acknowledged yet"
            if now - self.last_ack > within_s * NS:
                return f"no write was acknowledged for {(now - self.last_ack) / NS:.1f} s"
            if self.newest_bad is not None and now - self.newest_bad < within_s * NS:
                return "a write failed or was slow just now"
        return ""
