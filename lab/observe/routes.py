"""The router probe: which node does a new connection straight to the router's write endpoint lead to?"""

from __future__ import annotations

import asyncio

from lab.observe.fresh import FreshSender
from lab.observe.link import Answer
from lab.observe.outcomes import Trouble
from lab.observe.process import Context, Stop, now, ticks
from lab.observe.rows import Rows
from lab.observe.schedule import NS
from lab.observe.sender import Operation, Session
from lab.observe.wire import Wire, conninfo

SQL = b"SELECT host(inet_server_addr())"


class Routes:
    """Writes one row of the table ``routes`` for every connection tried. ``t_sent`` is when it was begun."""

    def __init__(self, rows: Rows, addresses: dict[str, str]) -> None:
        self._rows, self._addresses = rows, addresses

    def statement(self, operation: Operation, session: Session) -> bytes:  # noqa: ARG002
        return SQL

    def sending(self, operation: Operation, session: Session) -> None:
        """Nothing to say before the answer."""

    def answered(self, operation: Operation, session: Session, answer: Answer) -> None:  # noqa: ARG002
        address = answer.rows[0][0] or ""
        self._row(operation, True, self._addresses.get(address, address))

    def troubled(self, operation: Operation, session: Session | None, trouble: Trouble) -> None:  # noqa: ARG002
        self._row(operation, False, None)

    def closed(self, session: Session, trouble: Trouble) -> None:
        """Never: no session lasts."""

    def _row(self, operation: Operation, ok: bool, server: str | None) -> None:
        self._rows.write({"t_sent": operation.intended, "t_done": now(), "ok": ok, "server": server})


async def _run(context: Context) -> None:
    config = context.config
    assert config.router is not None
    loop = asyncio.get_running_loop()
    stop = Stop(loop, context)
    rows = Rows(config.out, "routes", "probe")
    info = conninfo(config.router, "lab-router")
    routes = Routes(rows, dict(config.addresses))
    sender = FreshSender(loop, lambda: Wire(loop, info), config.probes, routes)
    interval = round(config.probes.router_interval_s * NS)
    cancel = ticks(
        loop,
        context.base + interval // 3,
        interval,
        lambda k, _intended: sender.submit(Operation(k, context.trial, now())),
    )
    await stop.event.wait()
    cancel()
    sender.close()
    rows.close()


def probe(context: Context) -> None:
    """Process: the router probe."""
    asyncio.run(_run(context))
