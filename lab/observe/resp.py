"""Redis's serialization protocol, version 2, as far as a probe needs it.

redis-py sends and reads in one call; a probe has to know when its command was handed over, and when the
network let it through. Source: https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from lab.observe.config import Redis

LONGEST = 1 << 20
"""Bytes (or elements) of a reply that are believed; nothing that is asked for has more."""

Reply = str | int | None | list["Reply"]


class ReplyError(Exception):
    """An error reply; ``code`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


def encode(*words: str | int) -> bytes:
    """A command as an array of bulk strings."""
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


async def read(stream: asyncio.StreamReader) -> Reply:
    """The next reply. ReplyError for an error, EOFError at the end, ValueError for what is no reply."""
    line = (await stream.readuntil(b"\r\n"))[:-2].decode(errors="replace")
    kind, rest = line[:1], line[1:]
    if kind == "+":
        return rest
    if kind == "-":
        raise ReplyError(rest)
    if kind == ":":
        return int(rest)
    if kind not in ("$", "*"):
        raise ValueError(f"no reply of Redis: {line[:40]!r}")
    size = int(rest)
    if size < 0:
        return None
    if size > LONGEST:
        raise ValueError(f"a reply of {size} is too long")
    if kind == "$":
        return (await stream.readexactly(size + 2))[:-2].decode(errors="replace")
    return [await read(stream) for _ in range(size)]


def tls_of(server: Redis) -> ssl.SSLContext | None:
    """What verifies the server's certificate and its name; None where it speaks in clear."""
    return ssl.create_default_context(cafile=server.sslrootcert) if server.tls else None


def password_of(server: Redis) -> str | None:
    return Path(server.password_file).read_text().strip() if server.password_file else None


class Connection:
    """Commands, one after the other, over a connected socket or to an address."""

    def __init__(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.stream, self._writer = stream, writer

    @classmethod
    async def over(
        cls, server: Redis, tls: ssl.SSLContext | None, password: str | None, **where: object
    ) -> Connection:
        """TLS and AUTH. ``where``: ``sock``, or ``host`` and ``port``. OSError, ReplyError, EOFError."""
        name = server.host if tls else None
        stream, writer = await asyncio.open_connection(ssl=tls, server_hostname=name, **where)  # type: ignore[arg-type]
        found = cls(stream, writer)
        try:
            if password is not None:
                names = (server.username,) if server.username else ()
                await found.call("AUTH", *names, password)
        except BaseException:
            found.close()
            raise
        return found

    async def call(self, *words: str | int) -> Reply:
        self.send(encode(*words))
        return await read(self.stream)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        """At once: nothing that is still to be sent matters."""
        self._writer.transport.abort()
