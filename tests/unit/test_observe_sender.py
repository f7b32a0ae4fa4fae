"""Which session an operation takes, and what becomes of it, with a network made of paper."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lab.observe.config import Probes
from lab.observe.link import Answer
from lab.observe.outcomes import Trouble
from lab.observe.sender import Operation, Sender, Session

PROBES = Probes(sessions=3, max_in_flight=5, connect_timeout_s=0.4, answer_timeout_s=0.6)


class Net:
    """How the network is: up, refused or swallowing; and how the server answers."""

    def __init__(self) -> None:
        self.state = "up"
        self.silent = False
        self.wires: list[PaperWire] = []


class PaperWire:
    net: Net

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.alive = loop, True
        self.on_closed: Callable[[Trouble], None] | None = None
        self.net.wires.append(self)

    def _if_alive(self, call: Callable[[], None]) -> None:
        if self.alive:
            call()

    def connect(self, on_open: Callable[[], None], on_trouble: Callable[[Trouble], None]) -> None:
        if self.net.state == "up":
            self.loop.call_soon(self._if_alive, on_open)
        elif self.net.state == "refused":
            self.alive = False
            self.loop.call_soon(on_trouble, Trouble(False, None, "connect: Connection refused"))

    def log_in(self, on_ready: Callable[[], None]) -> None:
        self.loop.call_soon(self._if_alive, on_ready)

    def query(
        self, sql: bytes, on_answer: Callable[[Answer], None], on_trouble: Callable[[Trouble], None]
    ) -> None:
        del sql
        if self.net.state == "refused":
            self.alive = False
            self.loop.call_soon(on_trouble, Trouble(True, None, "server closed the connection"))
        elif self.net.state == "up" and not self.net.silent:
            self.loop.call_soon(on_answer, Answer([("10.0.0.1",)], ()))

    def close(self) -> None:
        self.alive = False


class Book:
    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.answers: list[int] = []
        self.troubles: dict[int, tuple[bool, str]] = {}
        self.closed_sessions: list[int] = []

    def statement(self, operation: Operation, session: Session) -> bytes:
        return f"{operation.n} {session.number}".encode()

    def sending(self, operation: Operation, session: Session) -> None:
        self.sent.append((operation.n, session.number))

    def answered(self, operation: Operation, session: Session, answer: Answer) -> None:  # noqa: ARG002
        self.answers.append(operation.n)

    def troubled(self, operation: Operation, session: Session | None, trouble: Trouble) -> None:
        assert operation.n not in self.troubles, "told twice"
        self.troubles[operation.n] = (session is not None, trouble.message)

    def closed(self, session: Session, trouble: Trouble) -> None:  # noqa: ARG002
        self.closed_sessions.append(session.number)


def play(
    script: Callable[[Sender, Net, Book], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> tuple[Net, Book]:
    net, book = Net(), Book()
    monkeypatch.setattr(PaperWire, "net", net, raising=False)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        sender = Sender(loop, lambda: PaperWire(loop), PROBES, book)
        sender.fill()
        await asyncio.sleep(0.25)
        assert sender.idle == 3
        await script(sender, net, book)
        sender.close()
        await asyncio.sleep(0)

    asyncio.run(run())
    return net, book


def operation(n: int) -> Operation:
    import time

    return Operation(n, 1, time.monotonic_ns())


def test_sessions_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(sender: Sender, _net: Net, _book: Book) -> None:
        for n in range(6):
            sender.submit(operation(n))
            await asyncio.sleep(0.002)

    net, book = play(script, monkeypatch)
    assert book.answers == list(range(6))
    assert sorted(session for _, session in book.sent) == [1, 1, 2, 2, 3, 3]
    assert len(net.wires) == 3


def test_an_answer_that_does_not_come_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(sender: Sender, net: Net, _book: Book) -> None:
        net.silent = True
        sender.submit(operation(0))
        await asyncio.sleep(0.002)
        net.silent = False
        sender.submit(operation(1))
        await asyncio.sleep(0.002)

    _, book = play(script, monkeypatch)
    assert book.answers == [1]
    assert book.troubles == {}


def test_refused_then_the_reserve_serves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(sender: Sender, net: Net, book: Book) -> None:
        net.state = "refused"
        for n in range(10):
            sender.submit(operation(n))
            await asyncio.sleep(0.005)
        assert book.troubles[0] == (True, "server closed the connection")
        assert all(book.troubles[n] == (False, "not sent: connect: Connection refused") for n in range(1, 10))
        net.state = "up"
        sender.submit(operation(10))
        await asyncio.sleep(0.002)
        assert book.answers == [10]
        assert book.sent[-1][1] in (2, 3), "a session that was opened before"

    play(script, monkeypatch)


def test_swallowed_then_the_reserve_serves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(sender: Sender, net: Net, book: Book) -> None:
        await asyncio.sleep(0.06)
        net.state = "swallowed"
        sender.submit(operation(0))
        await asyncio.sleep(0.12)  # its answer is overdue now
        for n in range(1, 5):
            sender.submit(operation(n))
            await asyncio.sleep(0.005)
        assert len(book.sent) == 1, "no session is spent while the network swallows"
        net.state = "up"
        sender.submit(operation(5))
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        # Six would have been too many at one time: five may wait.
        assert book.troubles[5] == (False, "not sent: no session free")
        await asyncio.sleep(0.5)
        assert all(book.troubles[n] == (False, "not sent: connect: timed out") for n in range(1, 5))
        sender.submit(operation(6))
        await asyncio.sleep(0.01)
        assert book.answers == [6]
        await asyncio.sleep(0.2)
        assert book.troubles[0] == (True, "no answer in time")

    play(script, monkeypatch)


def test_a_session_closed_while_idle_is_an_event_and_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(sender: Sender, net: Net, book: Book) -> None:
        wire = net.wires[0]
        assert wire.on_closed is not None
        wire.alive = False
        wire.on_closed(Trouble(False, "57P01", "terminating connection"))
        assert book.closed_sessions == [1]
        assert sender.idle == 2
        sender.submit(operation(0))
        await asyncio.sleep(0.2)
        assert sender.idle == 3

    _, book = play(script, monkeypatch)
    assert book.answers == [0]
    assert book.troubles == {}
