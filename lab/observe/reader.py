"""The reader probe: the newest number that the reader endpoint shows, open loop.

What it saw and the audit does not find is a dirty read; which node answered tells how reads spread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from lab.observe.book import Book, drive
from lab.observe.link import Answer
from lab.observe.outcomes import Trouble
from lab.observe.process import Context, now
from lab.observe.schedule import NS, Schedule
from lab.observe.sender import Operation, Session
from lab.observe.wire import Wire, conninfos

GRACE_S = 0.5


@dataclass
class Reads(Book):
    """Writes one row of the table ``reads`` for every read that ended."""

    _sent: dict[Operation, int] = field(default_factory=dict)

    def statement(self, operation: Operation, session: Session) -> bytes:  # noqa: ARG002
        # Two scalar parts, so that max(n) is one step in the index (run, n).
        run = self.context.config.run
        return (
            f"SELECT (SELECT max(n) FROM lab.ledger WHERE run = '{run}'), host(inet_server_addr())"
        ).encode()

    def sending(self, operation: Operation, session: Session) -> None:  # noqa: ARG002
        self._sent[operation] = now()

    def answered(self, operation: Operation, session: Session, answer: Answer) -> None:
        newest, address = answer.rows[0] if answer.rows else (None, None)
        self._write(
            operation,
            session,
            done=now(),
            ok=True,
            server=self.node(address),
            newest=int(newest) if newest is not None else None,
        )

    def troubled(self, operation: Operation, session: Session | None, trouble: Trouble) -> None:
        self._write(
            operation, session, done=now(), ok=False, sqlstate=trouble.sqlstate, message=trouble.message
        )

    def _write(self, operation: Operation, session: Session | None, **rest: Any) -> None:
        sent = self._sent.pop(operation, None)
        self.rows.write(self.head(operation, session) | {"sent": sent} | rest)

    def end(self) -> None:
        """A row without ``done`` for every read that is still awaited."""
        for operation in list(self._sent):
            self._write(operation, None, ok=False, message="the probe ended")
        super().end()


async def _run(context: Context, fresh: bool) -> None:
    config, probes = context.config, context.config.probes
    assert config.reader is not None
    loop = asyncio.get_running_loop()
    name = "fresh" if fresh else "lasting"
    book = Reads(context, "reads", name, config.reader.name, fresh)
    infos = conninfos(config.reader, f"lab-reader-{name}")
    interval = round((probes.fresh_reader_interval_s if fresh else probes.reader_interval_s) * NS)
    schedule = Schedule(context.base + interval // 2, interval)
    await drive(book, lambda: Wire(loop, *infos), probes, schedule, lambda k: k, GRACE_S, len(infos))


def lasting(context: Context) -> None:
    """Process: reads over lasting sessions."""
    asyncio.run(_run(context, fresh=False))


def fresh(context: Context) -> None:
    """Process: every read over a session of its own."""
    asyncio.run(_run(context, fresh=True))
