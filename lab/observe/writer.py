"""The writer probe: increasing numbers through the application's endpoint, with a ledger.

``lasting`` sends over sessions that were opened before; ``fresh`` connects, inserts and closes for each
write. Both are open loop and share one sequence of numbers (``schedule.number``), in processes of their own.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from lab.observe import outcomes
from lab.observe.book import Book, drive
from lab.observe.link import Answer
from lab.observe.outcomes import Outcome, Trouble
from lab.observe.process import Context, now
from lab.observe.schedule import Schedule, number, writers
from lab.observe.sender import Operation, Session
from lab.observe.wire import Wire, conninfos

GRACE_S = 1.5
"""How long answers are awaited after the last write was sent."""


@dataclass
class Ledger(Book):
    """Writes intents and outcomes. The intent is on its way to disk before the statement is sent."""

    def __post_init__(self) -> None:
        self.run = self.context.config.run
        if not re.fullmatch(r"[A-Za-z0-9._:-]+", self.run):
            raise ValueError(f"run: letters, digits and . _ : - only, is {self.run!r}")
        super().__post_init__()

    def statement(self, operation: Operation, session: Session) -> bytes:
        return (
            f"INSERT INTO lab.ledger (run, trial, n, session) VALUES "
            f"('{self.run}', {operation.trial}, {operation.n}, {session.number}) "
            f"RETURNING host(inet_server_addr())"
        ).encode()

    def sending(self, operation: Operation, session: Session) -> None:
        self._intent(operation, session, now())

    def answered(self, operation: Operation, session: Session, answer: Answer) -> None:  # noqa: ARG002
        told = outcomes.warning(answer.notices)
        address = answer.rows[0][0] if answer.rows else None
        self._outcome(
            operation,
            outcomes.of_answer(answer.notices),
            told.sqlstate if told else None,
            outcomes.short(told.message) if told else None,
            self.node(address),
        )

    def troubled(self, operation: Operation, session: Session | None, trouble: Trouble) -> None:
        if session is None:
            self._intent(operation, None, None)
        self._outcome(operation, self.judge(trouble), trouble.sqlstate, trouble.message, None)

    def judge(self, trouble: Trouble) -> Outcome:
        return outcomes.of_trouble(trouble)

    def _intent(self, operation: Operation, session: Session | None, sent: int | None) -> None:
        self.rows.write({"k": "i", "n": operation.n, **self.head(operation, session), "sent": sent})

    def _outcome(
        self, operation: Operation, outcome: str, state: str | None, message: str | None, server: str | None
    ) -> None:
        row: dict[str, Any] = {"k": "o", "n": operation.n, "done": now(), "outcome": outcome}
        row |= {"sqlstate": state, "message": message, "server": server}
        self.rows.write(row)


def turn(context: Context, intervals_s: tuple[float, float], fresh: bool) -> tuple[Schedule, Any]:
    """When this one of two writers (lasting, fresh) writes, and the number of its k-th write."""
    lasting, short_lived = writers(context.base, *intervals_s)
    own, other = (short_lived, lasting) if fresh else (lasting, short_lived)
    assert own is not None
    return own, lambda k: number(own, other, k, first=not fresh)


async def _run(context: Context, fresh: bool) -> None:
    config, probes = context.config, context.config.probes
    assert config.writer is not None
    loop = asyncio.get_running_loop()
    name = "fresh" if fresh else "lasting"
    book = Ledger(context, "writes", name, config.writer.name, fresh)
    infos = conninfos(config.writer, f"lab-writer-{name}")
    own, numbers = turn(context, (probes.writer_interval_s, probes.fresh_writer_interval_s), fresh)
    await drive(book, lambda: Wire(loop, *infos), probes, own, numbers, GRACE_S, len(infos))


def lasting(context: Context) -> None:
    """Process: writes over lasting sessions."""
    asyncio.run(_run(context, fresh=False))


def fresh(context: Context) -> None:
    """Process: every write over a session of its own."""
    asyncio.run(_run(context, fresh=True))
