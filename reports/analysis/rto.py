"""RTO: how long clients were without the service after a fault.

Words, for one trial with the fault's *effect* at t0 and an observation window that ends at t1:

- An operation is *looked at* if it was intended before t1 and was intended at or after t0, or came back
  after t0, or never came back and was intended less than T before t0; the earliest moment at which the
  effect can have been (t0 − its uncertainty) stands for t0 here. One that never came back and was
  intended less than T before t1 is left out: its answer could not be awaited.
- *Response time* counts from the intended moment (no coordinated omission).
- An operation is *bad* if it failed, if its outcome is unknown, if it was acknowledged only locally, if it
  was acknowledged and the audit did not find it, or if its response took longer than T.
- *Recovery* is the earliest completion of a good operation that was intended after the last bad one was
  intended. So no operation intended after the one that recovers is bad; the *last* recovery counts, and
  an outage that begins late is seen.
- *RTO* = recovery − t0. Without a bad operation there was *no outage*; without a recovery that lasts at
  least T until t1, the service has *not recovered*, and the RTO is *at least* what was seen.

A write of an old session that was intended during the outage and comes back long after it, while later
writes are good, does not move the headline: users whose requests came after it were served. It is bad
(slow, failed or unknown), and it counts for ``OpenSessions``, where the last session to be settled makes
the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lab.record.schema import NS
from reports.analysis.columns import MISSING, Bools, Ints, Reads, Writes
from reports.analysis.model import OpenSessions, Outage

Probe = Literal["writer", "reader", "redis"]
REDIS_ENDPOINT = "sentinel"
"""What the Redis writer's rows have as endpoint."""

GAVE_UP = "no answer in time"
"""The message of an operation that the probe itself gave up."""


@dataclass(frozen=True)
class Operations:
    """Operations of one trial; arrays of one length. ``answered`` is true where the service said yes."""

    intended: Ints
    done: Ints
    answered: Bools
    failed: Bools
    unknown: Bools
    locally: Bools
    lost: Bools
    session: Ints
    opened: Ints
    fresh: Bools
    gave_up: Bools
    """The probe stopped waiting for the answer: nobody told it."""

    def take(self, rows: Any) -> Operations:
        return Operations(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def slow(self, slow_ns: int) -> Bools:
        """Answered, but later than T after the intended moment."""
        late: Bools = self.answered & (self.done != MISSING) & (self.done - self.intended > slow_ns)
        return late

    def bad(self, slow_ns: int) -> Bools:
        worse: Bools = ~self.answered | self.lost | (self.done == MISSING) | self.slow(slow_ns)
        return worse


def of_writes(writes: Writes, lost: Bools) -> Operations:
    """Writes as operations; ``lost`` marks those that were acknowledged and are absent in the audit."""
    outcome = writes.outcome
    answered = outcome.equals("acknowledged")
    failed, locally = outcome.equals("failed"), outcome.equals("acknowledged_locally")
    return Operations(
        writes.intended,
        writes.done,
        answered,
        failed,
        ~(answered | failed | locally),
        locally,
        lost & answered,
        writes.session,
        writes.opened,
        writes.fresh,
        writes.message.equals(GAVE_UP),
    )


def of_reads(reads: Reads) -> Operations:
    none = np.zeros(len(reads), dtype=np.bool_)
    return Operations(
        reads.intended,
        reads.done,
        reads.ok,
        ~reads.ok,
        none,
        none,
        none,
        reads.session,
        reads.opened,
        reads.fresh,
        reads.message.equals(GAVE_UP),
    )


def looked_at(ops: Operations, effect: int, window_end: int, slow_ns: int) -> Operations:
    """The operations that the fault can have touched, if it took effect at ``effect`` at the earliest."""
    never = ops.done == MISSING
    touched = (ops.intended >= effect) | (ops.done > effect) | (never & (ops.intended > effect - slow_ns))
    cut_off = never & (ops.intended > window_end - slow_ns)
    return ops.take(touched & (ops.intended < window_end) & ~cut_off)


def outage(ops: Operations, effect: int, window_end: int, slow_ns: int, uncertainty: int = 0) -> Outage:
    """What the clients of these operations saw; times in ns of the observer's clock."""
    ops = looked_at(ops, effect - uncertainty, window_end, slow_ns)
    bad = ops.bad(slow_ns)
    counts: dict[str, Any] = {
        "operations": len(bad),
        "failed": int(ops.failed.sum()),
        "unknown": int(ops.unknown.sum()),
        "slow": int(ops.slow(slow_ns).sum()),
        "locally": int(ops.locally.sum()),
        "lost": int(ops.lost.sum()),
    }
    if not len(bad) or not (ops.intended >= effect).any():
        return Outage(state="no data", why="no operation was recorded in the window", **counts)
    if not bad.any():
        return Outage(state="no outage", why="no operation failed or was slow in the window", **counts)
    first_bad, last_bad = int(ops.intended[bad].min()), int(ops.intended[bad].max())
    counts |= {"first_bad_s": (first_bad - effect) / NS, "last_bad_s": (last_bad - effect) / NS}
    good = ops.done[~bad & (ops.intended > last_bad) & (ops.done <= window_end)]
    if not len(good):
        # Only as long as there was something to see: a probe that ended early proves nothing more.
        seen = min(window_end, int(ops.intended.max()))
        return Outage(
            state="not recovered",
            at_least=max(0.0, (seen - effect) / NS),
            why="no good operation came after the last bad one in the window",
            **counts,
        )
    recovered = int(good.min())
    hold = (window_end - recovered) / NS
    if window_end - recovered < slow_ns:
        return Outage(
            state="not recovered",
            at_least=(recovered - effect) / NS,
            hold_s=hold,
            why=f"the recovery came {hold:.2f} s before the window ended: too late to see whether it lasts",
            **counts,
        )
    return Outage(state="recovered", seconds=max(0.0, (recovered - effect) / NS), hold_s=hold, **counts)


def new_sessions(ops: Operations, effect: int) -> Operations:
    """Operations on sessions that were opened (or tried to be) at or after the effect."""
    return ops.take((ops.intended >= effect) & ((ops.opened == MISSING) | (ops.opened >= effect)))


def open_sessions(
    ops: Operations,
    effect: int,
    window_end: int,
    slow_ns: int,
    closed: Mapping[int, int] | None = None,
) -> OpenSessions:
    """What happened to the sessions that had been opened before the effect (and not for one write).

    Args:
        closed: session → when the other end closed it while it was idle. No operation shows that, but its
            client was told: such a session counts as *broken*, settled at that moment, even if its last
            acknowledgement was lost.
    """
    closed = {session: at for session, at in (closed or {}).items() if effect <= at <= window_end}
    ops = looked_at(ops, effect, window_end, slow_ns)
    ops = ops.take((ops.opened != MISSING) & (ops.opened < effect) & ~ops.fresh)
    if not len(ops.intended) and not closed:
        return OpenSessions(state="no data", why="no open session had anything to do after the fault")
    ops = ops.take(np.lexsort((ops.intended, ops.session)))
    bad = ops.bad(slow_ns)
    starts = np.flatnonzero(np.diff(ops.session, prepend=ops.session[:1] - 1))
    counts = {"survived": 0, "untouched": 0, "broken": 0, "stuck": 0}
    settled: list[int] = []
    ends = np.r_[starts[1:], len(bad)] if len(starts) else starts
    for begin, end in zip(starts, ends, strict=True):
        kind, at = _settle(ops, bad, int(begin), int(end))
        if at is not None and at > window_end:
            kind, at = "stuck", None
        if kind == "untouched" or (kind == "stuck" and ops.lost[int(end) - 1]):
            told = closed.pop(int(ops.session[begin]), None)
            kind, at = (kind, at) if told is None else ("broken", told)
        counts[kind] += 1
        if at is not None:
            settled.append(at)
    counts["broken"] += len(closed)
    settled += closed.values()
    back = (ops.done != MISSING) & bad
    longest = float((ops.done[back] - ops.intended[back]).max() / NS) if back.any() else None
    common: dict[str, Any] = {"sessions": len(starts) + len(closed), "longest_write_s": longest, **counts}
    if counts["stuck"]:
        return OpenSessions(
            state="not recovered",
            at_least=(window_end - effect) / NS,
            why=f"{counts['stuck']} open session(s) neither worked again nor were told in the window",
            **common,
        )
    if not settled:
        return OpenSessions(state="no outage", why="no operation of an open session was bad", **common)
    return OpenSessions(state="recovered", seconds=max(0.0, (max(settled) - effect) / NS), **common)


def closed(events: Sequence[Mapping[str, Any]], effect: int, probe: Probe) -> dict[int, int]:
    """Sessions of one probe that were open before the effect and were closed while idle → when, ns."""
    found = {}
    for event in events:
        detail = event["detail"]
        if event["kind"] != "session-closed" or detail["session_opened"] >= effect:
            continue
        if _probe_of(detail["endpoint"]) == probe:
            found[int(detail["session"])] = int(event["t"])
    return found


def _probe_of(endpoint: str) -> Probe:
    if endpoint == REDIS_ENDPOINT:
        return "redis"
    return "reader" if endpoint.endswith((".reader", ".read")) else "writer"


def _settle(ops: Operations, bad: Bools, begin: int, end: int) -> tuple[str, int | None]:
    """How one session (rows begin:end, by intended) fared, and when that was settled."""
    wrong = np.flatnonzero(bad[begin:end]) + begin
    if not len(wrong):
        return "untouched", None
    last = int(wrong[-1])
    if last < end - 1:
        return "survived", int(ops.done[last + 1 : end].min())
    if ops.done[last] == MISSING or ops.lost[last] or ops.gave_up[last]:
        return "stuck", None
    if ops.failed[last] or ops.unknown[last]:
        return "broken", int(ops.done[last])
    return "survived", int(ops.done[last])  # slow, or acknowledged locally: it answered
