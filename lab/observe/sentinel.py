"""Who is the Redis primary? As Sentinel's clients find out: ask one Sentinel after the other.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/ (the one that answered is asked
first the next time; what it names must say itself that it is primary).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from lab.observe.config import Redis
from lab.observe.resp import Connection, ReplyError, password_of, tls_of

ASK_S = 0.3
"""How long one Sentinel is awaited before the next one is asked."""

ERRORS = (OSError, EOFError, ValueError, ReplyError, asyncio.LimitOverrunError)


class Sentinels:
    """Knows the primary's address. Questions that come while one is open share its answer."""

    def __init__(
        self, servers: Sequence[Redis], service: str, on_change: Callable[[str, str | None], None]
    ) -> None:
        """``on_change`` is called with the address that is announced now, and the one before."""
        self._service, self._on_change = service, on_change
        self._order = list(servers)
        self._tls: dict[str, ssl.SSLContext | None] = {one.node: tls_of(one) for one in servers}
        self._passwords = {one.node: password_of(one) for one in servers}
        self._open: dict[str, Connection] = {}
        self._asking: asyncio.Task[tuple[str, int]] | None = None
        self._announced: str | None = None

    async def primary(self) -> tuple[str, int]:
        """Address and port of the primary. OSError where no Sentinel tells it."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
            # Whoever asked may have given up: the error is taken note of all the same.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> tuple[str, int]:
        for server in list(self._order):
            try:
                async with asyncio.timeout(ASK_S):
                    place = await self._ask_one(server)
            except ERRORS:
                place = None
                if (broken := self._open.pop(server.node, None)) is not None:
                    broken.close()
            if place is None:
                self._order.remove(server)
                self._order.append(server)
                continue
            if place[0] != self._announced:
                self._on_change(place[0], self._announced)
                self._announced = place[0]
            return place
        raise OSError("no Sentinel tells the primary")

    async def _ask_one(self, server: Redis) -> tuple[str, int] | None:
        connection = self._open.get(server.node)
        if connection is None:
            connection = await Connection.over(
                server,
                self._tls[server.node],
                self._passwords[server.node],
                host=server.address,
                port=server.port,
            )
            self._open[server.node] = connection
        said = await connection.call("SENTINEL", "get-master-addr-by-name", self._service)
        if not isinstance(said, list) or len(said) != 2:
            return None
        return str(said[0]), int(str(said[1]))

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        for connection in self._open.values():
            connection.close()
        self._open.clear()
