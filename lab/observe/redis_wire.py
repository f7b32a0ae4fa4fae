"""A connection to the Redis primary as Sentinel announces it (``lab.observe.link.Link``)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from lab.observe.config import Redis
from lab.observe.link import Answer
from lab.observe.outcomes import Trouble, short
from lab.observe.resp import Connection, ReplyError, password_of, read, tls_of
from lab.observe.sentinel import ERRORS, Sentinels


class Servers:
    """The Redis servers by the address that Sentinel announces, and how each is reached."""

    def __init__(self, servers: tuple[Redis, ...], addresses: Mapping[str, str]) -> None:
        by_node = {server.node: server for server in servers}
        self._by_address = {address: by_node[n] for address, n in addresses.items() if n in by_node}
        self.tls = {server.node: tls_of(server) for server in servers}
        self.passwords = {server.node: password_of(server) for server in servers}

    def at(self, address: str) -> Redis:
        """The server of an announced address (a proxied one is reached through its proxy)."""
        server = self._by_address.get(address)
        if server is None:
            raise OSError(f"Sentinel names {address}, which is no Redis node of the lab")
        return server


class RedisWire:
    """Asks Sentinel, connects, proves that the other end is the primary, and sends commands one by one.

    As a Sentinel-aware client library does, it keeps to the server that it found until the connection
    breaks, or until that server says that it is read-only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sentinels: Sentinels, servers: Servers) -> None:
        self._loop, self._sentinels, self._servers = loop, sentinels, servers
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        self._connection: Connection | None = None
        self._address = ""
        self._closed = False
        self._done: Callable[[Answer], None] | None = None
        self._failed: Callable[[Trouble], None] | None = None
        self.on_closed: Callable[[Trouble], None] | None = None

    @property
    def alive(self) -> bool:
        return not self._closed

    def connect(self, on_open: Callable[[], None], on_trouble: Callable[[Trouble], None]) -> None:
        self._failed = on_trouble
        self._go(self._reach(), on_open)

    def log_in(self, on_ready: Callable[[], None]) -> None:
        self._go(self._enter(), on_ready)

    def query(
        self,
        statement: bytes,
        on_answer: Callable[[Answer], None],
        on_trouble: Callable[[Trouble], None],
    ) -> None:
        """``statement``: an encoded command. The answer's one row is the address that gave it."""
        assert self._connection is not None
        self._done, self._failed = on_answer, on_trouble
        self._connection.send(statement)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._done = self._failed = self.on_closed = None
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.close()
        elif self._socket is not None:
            self._socket.close()

    def _go(self, steps: Coroutine[Any, Any, None], after: Callable[[], None]) -> None:
        async def run() -> None:
            try:
                await steps
            except ERRORS as error:
                self._fail(Trouble(False, _code(error), _said(error)))
                return
            if not self._closed:
                after()

        self._task = self._loop.create_task(run())

    async def _reach(self) -> None:
        self._address, port = await self._sentinels.primary()
        server = self._servers.at(self._address)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        # A proxied server has another address and port than the announced ones.
        there = (server.address, server.port if server.address != self._address else port)
        await self._loop.sock_connect(self._socket, there)

    async def _enter(self) -> None:
        server = self._servers.at(self._address)
        tls, password = self._servers.tls[server.node], self._servers.passwords[server.node]
        self._connection = await Connection.over(server, tls, password, sock=self._socket)
        role = await self._connection.call("ROLE")
        if not isinstance(role, list) or not role or role[0] != "master":
            raise OSError("Sentinel names a server that is not primary")
        self._failed = None
        # The task that logged in ends; another one reads from now on.
        self._loop.call_soon(self._listen)

    def _listen(self) -> None:
        if not self._closed:
            self._task = self._loop.create_task(self._replies())

    async def _replies(self) -> None:
        assert self._connection is not None
        while True:
            try:
                await read(self._connection.stream)
            except ERRORS as error:
                if isinstance(error, ReplyError) and error.code != "READONLY" and self._failed is not None:
                    failed, self._done, self._failed = self._failed, None, None
                    failed(Trouble(True, error.code, short(str(error))))
                    continue
                self._fail(Trouble(True, _code(error), _said(error)))
                return
            done, self._done, self._failed = self._done, None, None
            if done is not None:
                done(Answer([(self._address,)], ()))

    def _fail(self, trouble: Trouble) -> None:
        """Close, and tell who waits (or, on an idle session, who keeps it)."""
        if self._closed:
            return
        tell = self._failed or self.on_closed
        self._task = None  # this very task: it must not cancel itself
        self.close()
        if tell is not None:
            tell(trouble)


def _code(error: BaseException) -> str | None:
    return error.code if isinstance(error, ReplyError) else None


def _said(error: BaseException) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "server closed the connection"
    if isinstance(error, OSError) and error.errno:
        return f"connect: {os.strerror(error.errno)}"  # without the address, which asyncio adds
    return short(str(error)) or type(error).__name__
