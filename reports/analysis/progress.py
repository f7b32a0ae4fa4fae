"""Whether everybody goes on once a fault is healed.

For each trial, from ``heal-verified`` (the window's end where nothing had to be healed) to the next trial's
start or the end of the load:

- A *worker* is a process of the load at one endpoint. It is looked at where, by its rate before the first
  fault, it should have had at least LEAST requests in that time. It is *stuck* if none of them ended well.
- A *user* is one client of the load at all endpoints: it makes one request at a time, so that one which waits
  for ever makes none any more. It is looked at where, by its rate before the first fault, it should have had
  at least LEAST_OF_USER requests in that time, or had so many. It is *stuck* if nothing of it ended well
  in that time, whenever it had begun. Records from before users were told apart have none.
- A *session* of a probe (one that lasts) is looked at where operations of it were intended in that time, or
  one of before is still not answered when the probe ends. It is *stuck* if none of them ended well, and
  either there were FEW or more of them or one was never answered. One that failed once or twice and was then
  replaced is gone; its successor is looked at.
- An operation that took long ended well all the same: this is about going on, not about speed.
- Less than SHORT_S of time shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.columns import MISSING, Bools, Ints, integers, text
from reports.analysis.model import Standstill
from reports.analysis.rto import Operations

LEAST = 20
LEAST_OF_USER = 5
FEW = 3
SHORT_S = 3.0
MOST_USERS = 1 << 16
"""More than a worker can have."""

Stretch = tuple[int, int, int]
"""Trial, begin and end in ns."""


def stretches(trials: dict[int, list[dict[str, Any]]], end: int) -> list[Stretch]:
    """When each trial's healing can be looked at."""
    found = []
    for k, events in trials.items():
        healed = [int(e["t"]) for e in events if e["kind"] == "heal-verified"]
        healed = healed or [int(e["t"]) for e in events if e["kind"] == "window-end"]
        if healed:
            after = [int(other[0]["t"]) for j, other in trials.items() if j > k]
            found.append((k, max(healed), min([*after, end])))
    return found


def standstill(
    record: RecordReader,
    writes: Operations,
    reads: Operations,
    trials: dict[int, list[dict[str, Any]]],
    calm: tuple[int, int],
    end: int,
    slow_ns: int,
) -> tuple[Standstill, ...]:
    """One account a trial that was healed.

    Args:
        calm: the time before the first fault, which tells the workers' rates; ns.
        end: the end of the load, ns.
    """
    spans = stretches(trials, end)
    if not spans:
        return ()
    times = [(calm[0], calm[1]), *[(a, b) for _, a, b in spans]]
    workers, users = _parties(record, times)
    found = []
    for row, (k, begin, stop) in enumerate(spans, 1):
        seconds = (stop - begin) / NS
        if seconds < SHORT_S:
            why = f"only {seconds:.1f} s were left after the healing"
            found.append(Standstill(trial=k, seconds=seconds, workers=0, users=0, sessions=0, why=why))
            continue
        ratio = (stop - begin) / max(1, calm[1] - calm[0])
        looked_at, stuck = workers.stuck(row, ratio, LEAST)
        users_looked_at, stuck_users = users.stuck(row, ratio, LEAST_OF_USER)
        stuck += stuck_users
        sessions = 0
        for kind, ops in (("writer", writes), ("reader", reads)):
            number, those = _sessions(ops, begin, stop, slow_ns)
            sessions += number
            stuck += [f"{kind} session {session}" for session in those]
        nobody = not (looked_at or users_looked_at or sessions)
        found.append(
            Standstill(
                trial=k,
                seconds=seconds,
                workers=looked_at,
                users=users_looked_at,
                sessions=sessions,
                stuck=tuple(stuck),
                why="nobody had anything to do after the healing" if nobody else "",
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Parties:
    """Those who make requests, and how they fared in each span of time; the first span is the calm one."""

    names: tuple[str, ...]
    looked: Ints
    """Party × span: requests intended in it."""
    good: Ints
    """Party × span: requests that ended well."""

    def stuck(self, span: int, ratio: float, least: int) -> tuple[int, list[str]]:
        """(how many had at least so many requests due in a span, names of those without a good one).

        Args:
            ratio: length of the span by that of the calm one.
        """
        counted = (self.looked[:, 0] * ratio >= least) | (self.looked[:, span] >= least)
        none = counted & (self.good[:, span] == 0)
        return int(counted.sum()), [self.names[party] for party in np.flatnonzero(none)]


class _Count:
    """Requests by party and span, added up batch by batch."""

    def __init__(self, spans: int) -> None:
        self._spans = spans
        self._of: dict[str, Ints] = {}

    def add(self, span: int, keys: Ints, looked: Bools, good: Bools, name: Callable[[int], str]) -> None:
        """Rows of one batch; ``keys`` are the parties' numbers in it."""
        for column, rows in enumerate((looked, good)):
            for key, number in zip(*np.unique(keys[rows], return_counts=True), strict=True):
                party = self._of.setdefault(name(int(key)), np.zeros((2, self._spans), np.int64))
                party[column, span] += number

    def parties(self) -> Parties:
        table = np.array(list(self._of.values()), np.int64).reshape(len(self._of), 2, self._spans)
        return Parties(tuple(self._of), table[:, 0], table[:, 1])


def _parties(record: RecordReader, spans: Sequence[tuple[int, int]]) -> tuple[Parties, Parties]:
    """Workers at their endpoints, and users."""
    workers, users = _Count(len(spans)), _Count(len(spans))
    for batch in record.batches("requests", ("intended", "done", "outcome", "endpoint", "worker", "user")):
        intended, done = integers(batch["intended"]), integers(batch["done"])
        outcome, endpoint = text(batch["outcome"]), text(batch["endpoint"])
        worker, user = integers(batch["worker"]), integers(batch["user"])
        ok: Bools = outcome.equals("ok")
        known: Bools = user != MISSING
        words = ("", *endpoint.words)
        at_endpoint = worker * len(words) + endpoint.codes + 1
        of_user = worker * MOST_USERS + user

        def worker_name(key: int, words: tuple[str, ...] = words) -> str:
            return f"load worker {key // len(words)} at {words[key % len(words)]}"

        for s, (begin, stop) in enumerate(spans):
            due = (intended >= begin) & (intended < stop)
            ended = ok & (done >= begin) & (done < stop)
            workers.add(s, at_endpoint, due, due & ok, worker_name)
            users.add(s, of_user, due & known, ended & known, _user_name)
    return workers.parties(), users.parties()


def _user_name(key: int) -> str:
    return f"load user {key // MOST_USERS}/{key % MOST_USERS}"


def _sessions(ops: Operations, begin: int, stop: int, slow_ns: int) -> tuple[int, list[int]]:
    """Lasting sessions that had something to do in [begin, stop), and those for which nothing ended well."""
    lasting = ~ops.fresh & (ops.session != MISSING)
    due = (ops.intended >= begin) & (ops.intended < stop - slow_ns)
    hanging = (ops.done == MISSING) & (ops.intended < begin)
    looked = lasting & (due | hanging)
    good = lasting & due & ops.answered & (ops.done != MISSING)
    those, number = np.unique(ops.session[looked], return_counts=True)
    unanswered = ops.session[looked & (ops.done == MISSING)]
    stuck = ~np.isin(those, ops.session[good]) & ((number >= FEW) | np.isin(those, unanswered))
    return len(those), those[stuck].tolist()


__all__ = ["standstill", "stretches"]
