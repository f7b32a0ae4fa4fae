"""Sends every operation over a session of its own: connect, one statement, close."""

from __future__ import annotations

import asyncio

from lab.observe.config import Probes
from lab.observe.link import Answer, Connect, Link
from lab.observe.outcomes import NOT_SENT, Trouble
from lab.observe.process import now
from lab.observe.sender import Operation, Record, Session

FIRST_NUMBER = 1_000_000
"""Sessions count from here, so that none has the number of a lasting one."""


class FreshSender:
    """Open loop, without sessions. A log-in that takes longer than ``connect_timeout_s`` is given up."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connect: Connect, probes: Probes, record: Record
    ) -> None:
        self._loop, self._connect, self._probes, self._record = loop, connect, probes, record
        self._wires: dict[Link, asyncio.TimerHandle] = {}
        self._numbers = FIRST_NUMBER

    @property
    def pending(self) -> int:
        return len(self._wires)

    def submit(self, operation: Operation) -> None:
        if self.pending >= self._probes.max_in_flight:
            self._record.troubled(operation, None, Trouble(False, None, NOT_SENT + "no session free"))
            return
        wire = self._connect()
        session: Session | None = None

        def timed_out() -> None:
            wire.close()
            what = "connect: timed out" if session is None else "no answer in time"
            troubled(Trouble(session is not None, None, what))

        def troubled(trouble: Trouble) -> None:
            self._drop(wire)
            if session is None:
                trouble = Trouble(False, trouble.sqlstate, NOT_SENT + trouble.message)
            self._record.troubled(operation, session, trouble)

        def answered(answer: Answer) -> None:
            assert session is not None
            self._record.answered(operation, session, answer)
            self._drop(wire)

        def ready() -> None:
            nonlocal session
            self._numbers += 1
            session = Session(self._numbers, now(), wire)
            self._wires.pop(wire).cancel()
            self._wires[wire] = self._loop.call_later(self._probes.answer_timeout_s, timed_out)
            self._record.sending(operation, session)
            wire.query(self._record.statement(operation, session), answered, troubled)

        self._wires[wire] = self._loop.call_later(self._probes.connect_timeout_s, timed_out)
        wire.connect(lambda: wire.log_in(ready), troubled)

    def _drop(self, wire: Link) -> None:
        handle = self._wires.pop(wire, None)
        if handle is not None:
            handle.cancel()
        wire.close()

    def close(self) -> None:
        for wire in list(self._wires):
            self._drop(wire)
