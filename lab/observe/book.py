"""What all probes share: where rows go, what is known of every operation, and how operations are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from lab.observe.config import Probes
from lab.observe.fresh import FreshSender
from lab.observe.link import Connect
from lab.observe.outcomes import Trouble
from lab.observe.process import Context, Stop, ticks
from lab.observe.rows import Rows
from lab.observe.schedule import Schedule
from lab.observe.sender import Operation, Record, Sender, Session, session_closed


@dataclass
class Book:
    """Rows of one probe."""

    context: Context
    table: str
    probe: str
    """Distinguishes this probe's files among those of a table: ``fresh``, ``lasting``."""
    endpoint: str
    fresh: bool
    rows: Rows = field(init=False)
    events: Rows = field(init=False)

    def __post_init__(self) -> None:
        out = self.context.config.out
        self.rows = Rows(out, self.table, self.probe)
        self.events = Rows(out, "events", f"{self.table}-{self.probe}")

    def head(self, operation: Operation, session: Session | None) -> dict[str, Any]:
        """The columns that tell an operation and the session that carried it."""
        return {
            "trial": operation.trial,
            "endpoint": self.endpoint,
            "session": session.number if session else None,
            "session_opened": session.opened if session else None,
            "fresh": self.fresh,
            "intended": operation.intended,
        }

    def node(self, address: str | None) -> str | None:
        """The node of an address; an unknown one is given back as it is."""
        return self.context.config.addresses.get(address or "", address)

    def closed(self, session: Session, trouble: Trouble) -> None:
        """The other end closed a session while it was idle."""
        self.events.write(session_closed(self.context.trial, self.endpoint, session, trouble))

    def end(self) -> None:
        """No further row comes."""
        self.rows.close()
        self.events.close()


class Probing(Record, Protocol):
    """A probe's record as it is driven: a ``Book`` with what its own operations need."""

    context: Context
    fresh: bool

    def end(self) -> None: ...


async def drive(
    book: Probing,
    connect: Connect,
    probes: Probes,
    schedule: Schedule,
    number: Callable[[int], int],
    grace_s: float,
    hosts: int = 1,
) -> None:
    """Send operations open loop until the observer ends, then await answers for ``grace_s`` seconds.

    ``number`` gives the number of the k-th operation. A fresh probe opens a session for each of them. Of
    ``hosts`` that a connection may try one after another, each is given ``connect_timeout_s``.
    """
    loop, context = asyncio.get_running_loop(), book.context
    probes = replace(probes, connect_timeout_s=probes.connect_timeout_s * hosts)
    stop = Stop(loop, context)
    sender: Sender | FreshSender
    if book.fresh:
        sender = FreshSender(loop, connect, probes, book)
    else:
        sender = Sender(loop, connect, probes, book)
        sender.fill()
    cancel = ticks(
        loop,
        schedule.start,
        schedule.interval,
        lambda k, intended: sender.submit(Operation(number(k), context.trial, intended)),
    )
    await stop.event.wait()
    cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            while sender.pending:
                await asyncio.sleep(0.01)
    sender.close()
    book.end()
