"""The Redis writer's connection, against servers on the loopback that speak Redis's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from lab.observe.config import Redis
from lab.observe.link import Answer
from lab.observe.outcomes import Trouble, of_redis
from lab.observe.redis_audit import standings
from lab.observe.redis_wire import RedisWire, Servers
from lab.observe.resp import ReplyError, encode, read
from lab.observe.sentinel import Sentinels

HOST = "127.0.0.1"


class Server:
    """Answers commands from a table; remembers them, and can hang up."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers, self.seen, self.port = answers, list[str](), 0
        self.open: list[asyncio.StreamWriter] = []
        self.changed = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _talk(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        with suppress(EOFError, ConnectionError):
            while True:
                words = await read(stream)
                assert isinstance(words, list)
                self.seen.append(" ".join(map(str, words)))
                writer.write(self.answers.get(str(words[0]), b"-ERR unknown\r\n"))

    def hang_up(self) -> None:
        for writer in self.open:
            writer.close()
        self.open.clear()

    def stop(self) -> None:
        self._server.close()
        self.hang_up()


def place(port: int) -> bytes:
    return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)


PRIMARY = {"AUTH": b"+OK\r\n", "ROLE": b"*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n", "RPUSH": b":1\r\n"}


def config(name: str, port: int) -> Redis:
    return Redis(name, name, HOST, port, tls=False)


class Client:
    """A wire and what it said."""

    def __init__(self, sentinels: Sentinels, port: int) -> None:
        servers = Servers((config("redis1", port),), {HOST: "redis1"})
        self.wire = RedisWire(asyncio.get_running_loop(), sentinels, servers)
        self.said: asyncio.Queue[object] = asyncio.Queue()

    async def enter(self) -> object:
        self.wire.connect(lambda: self.said.put_nowait("open"), self.said.put_nowait)
        if (first := await self.next()) != "open":
            return first
        self.wire.log_in(lambda: self.said.put_nowait("ready"))
        self.wire.on_closed = self.said.put_nowait
        return await self.next()

    async def push(self, n: int) -> object:
        self.wire.query(encode("RPUSH", "k", n), self.said.put_nowait, self.said.put_nowait)
        return await self.next()

    async def next(self) -> object:
        return await asyncio.wait_for(self.said.get(), 5)


Script = Callable[[Server, Server, Client, list[tuple[str, str | None]]], Awaitable[None]]


def play(script: Script, **answers: bytes) -> None:
    """One primary, a Sentinel that is dead and one that names the primary; then the script."""

    async def run() -> None:
        primary, sentinel = Server(PRIMARY | answers), Server({})
        await primary.start()
        await sentinel.start()
        sentinel.answers["SENTINEL"] = place(primary.port)
        changes: list[tuple[str, str | None]] = []
        sentinels = Sentinels(
            (config("dead", 1), config("sentinel2", sentinel.port)), "cache", lambda *c: changes.append(c)
        )
        client = Client(sentinels, primary.port)
        try:
            await script(primary, sentinel, client, changes)
        finally:
            client.wire.close()
            sentinels.close()
            primary.stop()
            sentinel.stop()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_it_writes_to_the_primary_that_a_sentinel_names() -> None:
    async def script(
        primary: Server, _s: Server, client: Client, changes: list[tuple[str, str | None]]
    ) -> None:
        assert await client.enter() == "ready"
        assert await client.push(7) == Answer([(HOST,)], ())
        assert await client.push(8) == Answer([(HOST,)], ())
        assert primary.seen == ["ROLE", "RPUSH k 7", "RPUSH k 8"]
        assert changes == [(HOST, None)]

    play(script)


def test_a_server_that_is_no_primary_is_not_written_to() -> None:
    async def script(primary: Server, _s: Server, client: Client, _c: object) -> None:
        told = await client.enter()
        assert told == Trouble(False, None, "Sentinel names a server that is not primary")
        assert not client.wire.alive
        assert primary.seen == ["ROLE"]

    play(script, ROLE=b"*1\r\n$5\r\nslave\r\n")


def test_without_a_sentinel_nothing_was_sent() -> None:
    async def script(_p: Server, sentinel: Server, client: Client, _c: object) -> None:
        sentinel.stop()
        assert await client.enter() == Trouble(False, None, "no Sentinel tells the primary")

    play(script)


def test_a_read_only_answer_ends_the_session_and_proves_that_nothing_was_written() -> None:
    async def script(_p: Server, _s: Server, client: Client, _c: object) -> None:
        assert await client.enter() == "ready"
        told = await client.push(1)
        assert isinstance(told, Trouble)
        assert (told.sent, told.sqlstate, of_redis(told)) == (True, "READONLY", "failed")
        assert not client.wire.alive

    play(script, RPUSH=b"-READONLY You can't write against a read only replica.\r\n")


def test_another_error_leaves_the_session_usable() -> None:
    async def script(primary: Server, _s: Server, client: Client, _c: object) -> None:
        assert await client.enter() == "ready"
        told = await client.push(1)
        assert isinstance(told, Trouble)
        assert (told.sqlstate, of_redis(told)) == ("OOM", "failed")
        primary.answers["RPUSH"] = b":1\r\n"
        assert await client.push(2) == Answer([(HOST,)], ())

    play(script, RPUSH=b"-OOM command not allowed\r\n")


def test_a_connection_that_breaks_after_the_write_was_sent_is_unknown() -> None:
    async def script(primary: Server, _s: Server, client: Client, _c: object) -> None:
        assert await client.enter() == "ready"
        primary.answers["RPUSH"] = b""
        asyncio.get_running_loop().call_later(0.1, primary.hang_up)
        told = await client.push(1)
        assert told == Trouble(True, None, "server closed the connection")
        assert isinstance(told, Trouble)
        assert of_redis(told) == "unknown"

    play(script)


def test_an_idle_session_that_is_closed_is_told() -> None:
    async def script(primary: Server, _s: Server, client: Client, _c: object) -> None:
        assert await client.enter() == "ready"
        primary.hang_up()
        assert await client.next() == Trouble(True, None, "server closed the connection")
        assert not client.wire.alive

    play(script)


def test_a_primary_that_nobody_knows_is_refused() -> None:
    async def script(_p: Server, sentinel: Server, client: Client, _c: object) -> None:
        sentinel.answers["SENTINEL"] = b"*2\r\n$8\r\n10.9.9.9\r\n$1\r\n1\r\n"
        told = await client.enter()
        assert isinstance(told, Trouble)
        assert "no Redis node of the lab" in told.message

    play(script)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("code", ["READONLY", "NOREPLICAS", "EXECABORT", None])
def test_only_a_refusal_proves_that_nothing_was_written(sent: bool, code: str | None) -> None:
    failed = not sent or code in ("READONLY", "NOREPLICAS")
    assert of_redis(Trouble(sent, code, "x")) == ("failed" if failed else "unknown")


def replies(data: bytes) -> object:
    async def run() -> object:
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        return await read(stream)

    return asyncio.run(run())


def test_replies() -> None:
    assert replies(b"+OK\r\n") == "OK"
    assert replies(b":-7\r\n") == -7
    assert replies(b"$-1\r\n") is None
    assert replies(b"*2\r\n$1\r\na\r\n*1\r\n:3\r\n") == ["a", [3]]
    assert replies(encode("RPUSH", "k", 12)) == ["RPUSH", "k", "12"]
    with pytest.raises(ReplyError, match="READONLY"):
        replies(b"-READONLY no\r\n")
    for wrong in (b"?\r\n", b"$9999999999\r\n", b":x\r\n"):
        with pytest.raises(ValueError, match=r"."):
            replies(wrong)
    with pytest.raises(EOFError):
        replies(b"$5\r\nab")


def test_who_has_caught_up() -> None:
    head = {"role": "master", "master_replid": "r", "master_repl_offset": 10}
    good = {"role": "slave", "master_replid": "r", "master_repl_offset": 10, "master_link_status": "up"}
    found = standings({"a": head, "b": good, "c": good | {"master_repl_offset": 9}, "d": {}})
    assert {name: one["caught_up"] for name, one in found.items()} == {
        "a": True,
        "b": True,
        "c": False,
        "d": False,
    }
    assert [name for name, one in found.items() if one["primary"]] == ["a"]
    assert found["c"]["why"] == "it is behind the primary"
    other = standings(
        {"a": head, "b": good | {"master_replid": "q"}, "c": good | {"master_link_status": "down"}}
    )
    assert not other["b"]["caught_up"]
    assert not other["c"]["caught_up"]
    two = standings({"a": head, "b": head, "c": good})
    assert not any(one["caught_up"] or one["primary"] for one in two.values())
    assert "a, b" in two["c"]["why"]
