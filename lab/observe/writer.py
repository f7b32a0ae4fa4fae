"""The writer probe: increasing numbers through the application's endpoint, with a ledger.

``lasting`` sends over sessions that were opened before; ``fresh`` connects, inserts and closes for each
write. Both are open loop and share one sequence of numbers (``schedule.number``), in processes of their own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lab.observe import outcomes
from lab.observe.fresh import FreshSender
from lab.observe.outcomes import Trouble
from lab.observe.process import Context, Stop, now, ticks
from lab.observe.rows import Rows
from lab.observe.schedule import number, writers
from lab.observe.sender import Operation, Sender, Session, session_closed
from lab.observe.wire import Answer, conninfo

GRACE_S = 1.5
"""How long answers are awaited after the last write was sent."""


class Ledger:
    """Writes intents and outcomes. The intent is on its way to disk before the statement is sent."""

    def __init__(
        self,
        rows: Rows,
        events: Rows,
        run: str,
        endpoint: str,
        addresses: Mapping[str, str],
        fresh: bool,
        trial: Callable[[], int],
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._:-]+", run):
            raise ValueError(f"run: letters, digits and . _ : - only, is {run!r}")
        self._rows, self._events, self._run, self._endpoint = rows, events, run, endpoint
        self._trial = trial
        self._addresses, self._fresh = addresses, fresh

    def statement(self, operation: Operation, session: Session) -> bytes:
        return (
            f"INSERT INTO lab.ledger (run, trial, n, session) VALUES "
            f"('{self._run}', {operation.trial}, {operation.n}, {session.number}) "
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
            self._addresses.get(address or "", address),
        )

    def troubled(self, operation: Operation, session: Session | None, trouble: Trouble) -> None:
        if session is None:
            self._intent(operation, None, None)
        self._outcome(operation, outcomes.of_trouble(trouble), trouble.sqlstate, trouble.message, None)

    def closed(self, session: Session, trouble: Trouble) -> None:
        self._events.write(session_closed(self._trial(), self._endpoint, session, trouble))

    def _intent(self, operation: Operation, session: Session | None, sent: int | None) -> None:
        self._rows.write(
            {
                "k": "i",
                "n": operation.n,
                "trial": operation.trial,
                "endpoint": self._endpoint,
                "session": session.number if session else None,
                "session_opened": session.opened if session else None,
                "fresh": self._fresh,
                "intended": operation.intended,
                "sent": sent,
            }
        )

    def _outcome(
        self, operation: Operation, outcome: str, state: str | None, message: str | None, server: str | None
    ) -> None:
        row: dict[str, Any] = {"k": "o", "n": operation.n, "done": now(), "outcome": outcome}
        row |= {"sqlstate": state, "message": message, "server": server}
        self._rows.write(row)


async def _run(context: Context, fresh: bool) -> None:
    config, probes = context.config, context.config.probes
    assert config.writer is not None
    loop = asyncio.get_running_loop()
    stop = Stop(loop, context)
    lasting, short_lived = writers(context.base, probes.writer_interval_s, probes.fresh_writer_interval_s)
    own, other = (short_lived, lasting) if fresh else (lasting, short_lived)
    assert own is not None
    name = "fresh" if fresh else "lasting"
    rows, events = Rows(config.out, "writes", name), Rows(config.out, "events", f"writer-{name}")
    ledger = Ledger(
        rows, events, config.run, config.writer.name, config.addresses, fresh, lambda: context.trial
    )
    info = conninfo(config.writer, f"lab-writer-{name}")
    sender: Sender | FreshSender
    if fresh:
        sender = FreshSender(loop, info, probes, ledger)
    else:
        sender = Sender(loop, info, probes, ledger)
        sender.fill()

    def write(k: int, intended: int) -> None:
        sender.submit(Operation(number(own, other, k, first=not fresh), context.trial, intended))

    cancel = ticks(loop, own.start, own.interval, write)
    await stop.event.wait()
    cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            while sender.pending:
                await asyncio.sleep(0.01)
    sender.close()
    rows.close()


def lasting(context: Context) -> None:
    """Process: writes over lasting sessions."""
    asyncio.run(_run(context, fresh=False))


def fresh(context: Context) -> None:
    """Process: every write over a session of its own."""
    asyncio.run(_run(context, fresh=True))
