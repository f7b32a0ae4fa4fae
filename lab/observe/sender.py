"""Sends operations over lasting sessions, open loop: none waits for the answer of another.

The difficulty is to see the *end* of an outage at once, also of a black hole, in which a session that has
sent something is lost for seconds (TCP's retransmissions back off), and a new connection that was begun
too early for one second (SYN). So:

- Every operation comes with its own attempt to get through. While nothing is wrong it takes the idle
  session that rested longest (all of them take turns, so that each shows its own fate).
- While something is wrong (an answer is overdue, or the last one was an error) an operation first opens a
  connection of its own. Only when the network has let that through does it take an
  idle session, or, without one, have the new connection log in. What the network swallows costs that one
  operation, and the sessions kept in reserve serve the first operation that gets through again.
- A session that the other end closed while it was idle is not used: a client can know that before it
  sends anything. It is written down as an event.
- While nothing is wrong but every session is busy, an operation waits, and a few more sessions are opened.
- Where several wait, the newest is served first: it is the one that tells that the service is back.
- Log-ins (TLS, SCRAM: milliseconds of CPU at both ends) are spaced, so that a probe that sees each session
  refused does not itself take the machine's time from the recovery that it measures.

An operation that got no session in ``connect_timeout_s`` is ``failed``, not sent. One that was sent is
answered, or broken, or given up after ``answer_timeout_s``; its session serves nobody else until then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lab.observe.config import Probes
from lab.observe.link import Answer, Connect, Link
from lab.observe.outcomes import NOT_SENT, Trouble
from lab.observe.rows import event
from lab.observe.schedule import NS

OVERDUE_NS = 100_000_000
"""An answer that is this late, with none to a later statement, puts the path in doubt."""
TRUST_NS = 50_000_000
"""For so long a connection that the network let through is taken as proof that it lets others through."""
LOG_IN_SPACING_NS = 25_000_000
LOG_INS_AT_ONCE = 4
"""More than this on a machine that is short of CPU, and none of them would end in time."""
REFILL_SPACING_NS = 100_000_000
SWEEP_S = 0.05


@dataclass(eq=False)
class Operation:
    """One write or read."""

    n: int
    trial: int
    intended: int


@dataclass(eq=False)
class Session:
    """A usable session. ``opened`` is when the log-in had ended, ns."""

    number: int
    opened: int
    wire: Link


class Record(Protocol):
    """Where a probe writes what happens; called in order, within the loop."""

    def statement(self, operation: Operation, session: Session) -> bytes: ...

    def sending(self, operation: Operation, session: Session) -> None:
        """Called right before the statement is handed over."""

    def answered(self, operation: Operation, session: Session, answer: Answer) -> None: ...

    def troubled(self, operation: Operation, session: Session | None, trouble: Trouble) -> None:
        """``session`` is None where the operation was never sent."""

    def closed(self, session: Session, trouble: Trouble) -> None:
        """The other end closed a session while it was idle: no operation is the worse for it."""


@dataclass(eq=False)
class _Attempt:
    """A connection on its way; ``operation`` is the one that it was begun for, if any."""

    wire: Link
    begun: int
    operation: Operation | None
    through: bool = False
    logging_in: bool = False


@dataclass(eq=False)
class _InFlight:
    operation: Operation
    session: Session
    sent: int


def session_closed(trial: int, endpoint: str, session: Session, trouble: Trouble) -> dict[str, Any]:
    """An event: the other end closed an idle session."""
    return event(
        time.monotonic_ns(),
        "session-closed",
        trial,
        source="observer",
        uncertainty=0,
        endpoint=endpoint,
        session=session.number,
        session_opened=session.opened,
        sqlstate=trouble.sqlstate,
        message=trouble.message,
    )


class Sender:
    """Lasting sessions to one endpoint, and the operations that go over them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect: Connect,
        probes: Probes,
        record: Record,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._loop, self._connect, self._probes = loop, connect, probes
        self._record, self._clock = record, clock
        self._idle: deque[Session] = deque()
        self._in_flight: dict[Operation, _InFlight] = {}
        self._attempts: dict[_Attempt, None] = {}
        self._open: list[_Attempt] = []  # the network let them through; oldest first
        self._waiting: list[Operation] = []  # their attempts got through; oldest first
        self._numbers = 0
        self._last_good = 0  # when the newest statement was sent that was answered
        self._last_bad = 0  # when an operation last ended in trouble
        self._last_through = 0  # when the network last let a connection through
        self._last_log_in = 0
        self._last_refill = 0
        self._closed = False
        self._loop.call_later(SWEEP_S, self._sweep)

    @property
    def pending(self) -> int:
        """Operations that are neither answered nor given up."""
        begun = sum(1 for attempt in self._attempts if attempt.operation and not attempt.through)
        return len(self._in_flight) + len(self._waiting) + begun

    @property
    def idle(self) -> int:
        return len(self._idle)

    def fill(self) -> None:
        """Begin to open the lasting sessions; they come one by one."""
        for _ in range(self._probes.sessions):
            self._begin(None)

    def submit(self, operation: Operation) -> None:
        """An operation whose moment has come."""
        now = self._clock()
        in_doubt = self._in_doubt(now)
        if self._idle and not self._waiting and not in_doubt:
            self._send(operation, self._idle.popleft())
        elif self.pending >= self._probes.max_in_flight:
            self._give_up(operation, "no session free")
        elif in_doubt:
            self._begin(operation)
        else:
            self._waiting.append(operation)
            if len(self._attempts) < LOG_INS_AT_ONCE:
                self._begin(None)
        if self._short() and now - self._last_refill >= REFILL_SPACING_NS:
            self._last_refill = now
            self._begin(None)

    def close(self) -> None:
        """Drop everything. Operations without an answer stay without one."""
        self._closed = True
        for attempt in list(self._attempts):
            attempt.wire.close()
        for flight in self._in_flight.values():
            flight.session.wire.close()
        for session in self._idle:
            session.wire.close()

    def _in_doubt(self, now: int) -> bool:
        if now - self._last_through < TRUST_NS:
            return False
        if self._last_bad > self._last_good:
            return True
        return any(
            flight.sent > self._last_good and now - flight.sent > OVERDUE_NS
            for flight in self._in_flight.values()
        )

    def _short(self) -> bool:
        """Whether fewer sessions exist, or are on their way, than shall last."""
        coming = sum(1 for attempt in self._attempts if attempt.operation is None)
        return len(self._idle) + len(self._in_flight) + coming < self._probes.sessions

    # Connections

    def _begin(self, operation: Operation | None) -> None:
        attempt = _Attempt(self._connect(), self._clock(), operation)
        self._attempts[attempt] = None
        attempt.wire.connect(lambda: self._got_through(attempt), lambda trouble: self._lost(attempt, trouble))

    def _got_through(self, attempt: _Attempt) -> None:
        attempt.through = True
        self._last_through = self._clock()
        self._open.append(attempt)
        if attempt.operation is not None:
            self._waiting.append(attempt.operation)
        self._match()

    def _lost(self, attempt: _Attempt, trouble: Trouble) -> None:
        operation = attempt.operation
        if operation is not None and operation in self._waiting:
            self._waiting.remove(operation)
        elif attempt.through:
            operation = None  # another session serves, or served, it
        self._forget(attempt)
        if operation is not None:
            self._give_up(operation, trouble.message, trouble.sqlstate)

    def _forget(self, attempt: _Attempt) -> None:
        self._attempts.pop(attempt, None)
        if attempt.through:
            self._open.remove(attempt)
        attempt.wire.close()

    def _match(self) -> None:
        """Bring together who waits and what is free, the newest first."""
        while self._waiting and self._idle:
            self._send(self._waiting.pop(), self._idle.popleft())
        ready = [attempt for attempt in self._open if not attempt.logging_in]
        busy = len(self._open) - len(ready)
        lasting = len(self._idle) + len(self._in_flight) + busy
        wanted = max(len(self._waiting) - busy, self._probes.sessions - lasting)
        while ready and len(ready) > max(wanted, 0):
            self._forget(ready.pop(0))
        now = self._clock()
        if ready and busy < LOG_INS_AT_ONCE and now - self._last_log_in >= LOG_IN_SPACING_NS:
            self._last_log_in = now
            attempt = ready[-1]
            attempt.logging_in, attempt.begun = True, now
            attempt.wire.log_in(lambda: self._ready(attempt))

    def _ready(self, attempt: _Attempt) -> None:
        self._attempts.pop(attempt, None)
        self._open.remove(attempt)
        self._numbers += 1
        session = Session(self._numbers, self._clock(), attempt.wire)
        session.wire.on_closed = lambda trouble: self._lost_idle(session, trouble)
        self._free(session)

    def _lost_idle(self, session: Session, trouble: Trouble) -> None:
        if session in self._idle:
            self._idle.remove(session)
            self._record.closed(session, trouble)

    def _free(self, session: Session) -> None:
        self._idle.append(session)
        self._match()
        while len(self._idle) > self._probes.sessions:
            self._idle.pop().wire.close()

    # Operations

    def _send(self, operation: Operation, session: Session) -> None:
        self._record.sending(operation, session)
        flight = _InFlight(operation, session, self._clock())
        self._in_flight[operation] = flight
        session.wire.query(
            self._record.statement(operation, session),
            lambda answer: self._answered(flight, answer),
            lambda trouble: self._troubled(flight, trouble),
        )

    def _answered(self, flight: _InFlight, answer: Answer) -> None:
        self._record.answered(flight.operation, flight.session, answer)
        del self._in_flight[flight.operation]
        self._last_good = max(self._last_good, flight.sent)
        self._free(flight.session)

    def _troubled(self, flight: _InFlight, trouble: Trouble) -> None:
        self._record.troubled(flight.operation, flight.session, trouble)
        del self._in_flight[flight.operation]
        self._last_bad = max(self._last_bad, flight.sent)
        if flight.session.wire.alive:
            self._free(flight.session)
        else:
            self._match()

    def _give_up(self, operation: Operation, why: str, state: str | None = None) -> None:
        self._last_bad = max(self._last_bad, operation.intended)
        self._record.troubled(operation, None, Trouble(False, state, NOT_SENT + why))

    def _sweep(self) -> None:
        """Give up what waited too long; let the next log-in go on."""
        if self._closed:
            return
        now = self._clock()
        late = now - round(self._probes.connect_timeout_s * NS)
        for operation in [one for one in self._waiting if one.intended < late]:
            self._waiting.remove(operation)
            self._give_up(operation, "no session in time")
        for attempt in [one for one in self._attempts if one.begun < late]:
            self._lost(attempt, Trouble(False, None, "connect: timed out"))
        late = now - round(self._probes.answer_timeout_s * NS)
        for flight in [one for one in self._in_flight.values() if one.sent < late]:
            flight.session.wire.close()
            self._troubled(flight, Trouble(True, None, "no answer in time"))
        self._match()
        self._loop.call_later(SWEEP_S / 2 if self._open else SWEEP_S, self._sweep)
