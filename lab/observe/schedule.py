"""Open-loop schedules, and the numbers that two writers share without talking. Pure.

A schedule is a start and an interval in nanoseconds: operation k is intended at start + k * interval,
whatever became of the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass

NS = 1_000_000_000


@dataclass(frozen=True)
class Schedule:
    """Intended moments on the observer's monotonic clock, ns."""

    start: int
    interval: int

    def at(self, k: int) -> int:
        """When operation k (from 0) is intended."""
        return self.start + k * self.interval

    def before(self, moment: int) -> int:
        """How many operations are intended earlier than a moment."""
        return max(0, -((self.start - moment) // self.interval)) if moment > self.start else 0


def number(own: Schedule, other: Schedule | None, k: int, *, first: bool) -> int:
    """The ledger number of the k-th write of one of two writers.

    Numbers count from 1 over both schedules in the order of the intended moments, so that they grow
    with time and are dense, and each writer can tell its own. ``first``: this one goes first on a tie.
    """
    if other is None:
        return k + 1
    moment = own.at(k)
    return k + 1 + other.before(moment if first else moment + 1)


def writers(base: int, lasting_s: float, fresh_s: float) -> tuple[Schedule | None, Schedule | None]:
    """Schedules of the lasting and the fresh writer; the fresh one half a step off the lasting one's."""
    lasting = Schedule(base, round(lasting_s * NS)) if lasting_s > 0 else None
    shift = lasting.interval // 2 if lasting else 0
    fresh = Schedule(base + shift, round(fresh_s * NS)) if fresh_s > 0 else None
    return lasting, fresh
