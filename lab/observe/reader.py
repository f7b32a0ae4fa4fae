"""The reader probe: the newest number that the reader endpoint shows, open loop.

What it saw and the audit does not find is a dirty read; which node answered tells how reads spread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from lab.observe.fresh import FreshSender
from lab.observe.outcomes import Trouble
from lab.observe.process import Context, Stop, now, ticks
from lab.observe.rows import Rows
from lab.observe.schedule import NS
from lab.observe.sender import Operation, Sender, Session, session_closed
from lab.observe.wire import Answer, conninfo


class Reads:
    """Writes one row of the table ``reads`` for every read that ended."""

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
        self._rows, self._events, self._run, self._endpoint = rows, events, run, endpoint
        self._trial = trial
        self._addresses, self._fresh = addresses, fresh
        self._sent: dict[Operation, int] = {}

    def statement(self, operation: Operation, session: Session) -> bytes:  # noqa: ARG002
        # Two scalar parts, so that max(n) is one step in the index (run, n).
        return (
            f"SELECT (SELECT max(n) FROM lab.ledger WHERE run = '{self._run}'), host(inet_server_addr())"
        ).encode()

    def sending(self, operation: Operation, session: Session) -> None:  # noqa: ARG002
        self._sent[operation] = now()

    def answered(self, operation: Operation, session: Session, answer: Answer) -> None:
        newest, address = answer.rows[0] if answer.rows else (None, None)
        self._write(
            operation,
            session,
            ok=True,
            server=self._addresses.get(address or "", address),
            newest=int(newest) if newest is not None else None,
        )

    def troubled(self, operation: Operation, session: Session | None, trouble: Trouble) -> None:
        self._write(operation, session, ok=False, sqlstate=trouble.sqlstate, message=trouble.message)

    def closed(self, session: Session, trouble: Trouble) -> None:
        self._events.write(session_closed(self._trial(), self._endpoint, session, trouble))

    def _write(self, operation: Operation, session: Session | None, **rest: Any) -> None:
        row: dict[str, Any] = {
            "trial": operation.trial,
            "endpoint": self._endpoint,
            "session": session.number if session else None,
            "session_opened": session.opened if session else None,
            "fresh": self._fresh,
            "intended": operation.intended,
            "sent": self._sent.pop(operation, None),
            "done": now(),
        }
        self._rows.write(row | rest)

    def unanswered(self) -> None:
        """A row without ``done`` for every read that is still awaited when the probe ends."""
        for operation, sent in self._sent.items():
            self._rows.write(
                {
                    "trial": operation.trial,
                    "endpoint": self._endpoint,
                    "fresh": self._fresh,
                    "intended": operation.intended,
                    "sent": sent,
                    "ok": False,
                    "message": "the probe ended",
                }
            )


async def _run(context: Context, fresh: bool) -> None:
    config, probes = context.config, context.config.probes
    assert config.reader is not None
    loop = asyncio.get_running_loop()
    stop = Stop(loop, context)
    seconds = probes.fresh_reader_interval_s if fresh else probes.reader_interval_s
    name = "fresh" if fresh else "lasting"
    rows, events = Rows(config.out, "reads", name), Rows(config.out, "events", f"reader-{name}")
    reads = Reads(
        rows, events, config.run, config.reader.name, config.addresses, fresh, lambda: context.trial
    )
    info = conninfo(config.reader, f"lab-reader-{name}")
    sender: Sender | FreshSender
    if fresh:
        sender = FreshSender(loop, info, probes, reads)
    else:
        sender = Sender(loop, info, probes, reads)
        sender.fill()
    interval = round(seconds * NS)
    cancel = ticks(
        loop,
        context.base + interval // 2,
        interval,
        lambda k, intended: sender.submit(Operation(k, context.trial, intended)),
    )
    await stop.event.wait()
    cancel()
    for _ in range(50):
        if not sender.pending:
            break
        await asyncio.sleep(0.01)
    sender.close()
    reads.unanswered()
    rows.close()


def lasting(context: Context) -> None:
    """Process: reads over lasting sessions."""
    asyncio.run(_run(context, fresh=False))


def fresh(context: Context) -> None:
    """Process: every read over a session of its own."""
    asyncio.run(_run(context, fresh=True))
