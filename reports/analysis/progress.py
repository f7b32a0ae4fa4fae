"""Whether everybody goes on once a fault is healed.

For each trial, from ``heal-verified`` (the window's end where nothing had to be healed) to the next trial's
start or the end of the load:

- A *worker* is a process of the load at one endpoint. It is looked at where, by its rate before the first
  fault, it should have had at least LEAST requests in that time. It is *stuck* if none of them ended well.
- A *session* of a probe (one that lasts) is looked at where operations of it were intended in that time, or
  one of before is still not answered when the probe ends. It is *stuck* if none of them ended well, and
  either there were FEW or more of them or one was never answered. One that failed once or twice and was then
  replaced is gone; its successor is looked at.
- An operation that took long ended well all the same: this is about going on, not about speed.
- Less than SHORT_S of time shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.columns import MISSING, Bools, Ints, integers, text
from reports.analysis.model import Standstill
from reports.analysis.rto import Operations

LEAST = 20
FEW = 3
SHORT_S = 3.0

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
    before, looked, good, names = _workers(record, [(calm[0], calm[1]), *[(a, b) for _, a, b in spans]])
    found = []
    for row, (k, begin, stop) in enumerate(spans, 1):
        seconds = (stop - begin) / NS
        if seconds < SHORT_S:
            why = f"only {seconds:.1f} s were left after the healing"
            found.append(Standstill(trial=k, seconds=seconds, workers=0, sessions=0, why=why))
            continue
        expected = before * ((stop - begin) / max(1, calm[1] - calm[0]))
        counted = (expected >= LEAST) | (looked[row] >= LEAST)
        stuck = [name for name, one, ok in zip(names, counted, good[row], strict=True) if one and not ok]
        sessions = 0
        for kind, ops in (("writer", writes), ("reader", reads)):
            number, those = _sessions(ops, begin, stop, slow_ns)
            sessions += number
            stuck += [f"{kind} session {session}" for session in those]
        workers = int(counted.sum())
        why = "" if workers or sessions else "nobody had anything to do after the healing"
        found.append(
            Standstill(
                trial=k, seconds=seconds, workers=workers, sessions=sessions, stuck=tuple(stuck), why=why
            )
        )
    return tuple(found)


def _workers(
    record: RecordReader, spans: Sequence[tuple[int, int]]
) -> tuple[Ints, list[Ints], list[Ints], list[str]]:
    """(requests in the first span, requests in each span, good ones in each, names) by worker × endpoint."""
    index: dict[tuple[int, str], int] = {}
    counts: list[list[list[int]]] = []  # party → span → [all, good]
    for batch in record.batches("requests", ("intended", "outcome", "endpoint", "worker")):
        intended = integers(batch["intended"])
        outcome, endpoint, worker = text(batch["outcome"]), text(batch["endpoint"]), integers(batch["worker"])
        ok: Bools = outcome.equals("ok")
        width = len(endpoint.words) + 1
        party = (worker + 1) * width + endpoint.codes + 1
        for s, (begin, stop) in enumerate(spans):
            rows = (intended >= begin) & (intended < stop)
            if not rows.any():
                continue
            every, number = np.unique(party[rows], return_counts=True)
            well = dict(zip(*np.unique(party[rows & ok], return_counts=True), strict=True))
            for key, count in zip(every.tolist(), number.tolist(), strict=True):
                who = (key // width - 1, endpoint.words[key % width - 1] if key % width else "")
                at = index.setdefault(who, len(index))
                if at == len(counts):
                    counts.append([[0, 0] for _ in spans])
                counts[at][s][0] += count
                counts[at][s][1] += int(well.get(key, 0))
    table = np.array(counts, dtype=np.int64).reshape(len(counts), len(spans), 2)
    names = [f"load worker {worker} at {endpoint}" for worker, endpoint in index]
    return (
        table[:, 0, 0],
        [table[:, s, 0] for s in range(len(spans))],
        [table[:, s, 1] for s in range(len(spans))],
        names,
    )


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
