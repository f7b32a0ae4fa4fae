"""One connection to PostgreSQL or PgBouncer on libpq's asynchronous interface, inside an asyncio loop.

psycopg's own connection hides what a probe has to know: when the network let the connection through
(before TLS and the log-in), when exactly a statement was handed over, and that an answer is one only
once ReadyForQuery came: with the extended protocol CommandComplete precedes the commit, so the probes
speak the simple one and wait for the end of the answer.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg import pq

from lab.observe.config import Endpoint
from lab.observe.link import Answer, Row
from lab.observe.outcomes import Notice, Trouble, short

HOST_S = 1.5
"""How long one of several hosts is waited for: as long as a new session is (``Probes.connect_timeout_s``)."""


def conninfos(endpoint: Endpoint, application: str) -> tuple[bytes, ...]:
    """A connection string for each host of an endpoint, in the order in which they are tried."""
    hosts, addresses = endpoint.host.split(","), endpoint.address.split(",")
    return tuple(
        conninfo(replace(endpoint, host=host, address=address), application)
        for host, address in zip(hosts, addresses, strict=True)
    )


def conninfo(endpoint: Endpoint, application: str, options: str = "") -> bytes:
    """The connection string of an endpoint. Holds the password: never to be printed."""
    password = Path(endpoint.password_file).read_text().strip() if endpoint.password_file else None
    tls = endpoint.sslmode != "disable"
    parameters: dict[str, str | int | None] = {
        "host": endpoint.host,
        "hostaddr": endpoint.address,
        "port": endpoint.port,
        "dbname": endpoint.database,
        "user": endpoint.user,
        "password": password,
        "sslmode": endpoint.sslmode,
        "sslrootcert": endpoint.sslrootcert if tls else None,
        "gssencmode": "disable",
        "application_name": application,
        "options": options or None,
        "target_session_attrs": endpoint.target_session_attrs or None,
        **endpoint.tcp,
    }
    given = {key: value for key, value in parameters.items() if value is not None}
    return psycopg.conninfo.make_conninfo("", **given).encode()


class Wire:
    """A connection (``lab.observe.link.Link``).

    Of several hosts the next one is tried where one cannot be reached, will not do
    (``target_session_attrs``), or is no usable session after ``HOST_S``: as libpq does where a program waits
    for it, but not by itself in its asynchronous interface.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *infos: bytes) -> None:
        self._loop = loop
        self._infos = infos
        self._tried = 0
        self._host_timer: asyncio.TimerHandle | None = None
        self._on_open: Callable[[], None] | None = None
        self._on_ready: Callable[[], None] | None = None
        self._pg: pq.abc.PGconn | None = None
        self._fd = -1
        self._sent = False
        self._flushing = False
        self._notices: list[Notice] = []
        self._rows: list[Row] = []
        self.names: list[str] = []
        self._trouble: tuple[str | None, str] | None = None
        self._done: Callable[[Answer], None] | None = None
        self._failed: Callable[[Trouble], None] | None = None
        self.on_closed: Callable[[Trouble], None] | None = None

    @property
    def alive(self) -> bool:
        return self._pg is not None

    def connect(self, on_open: Callable[[], None], on_trouble: Callable[[Trouble], None]) -> None:
        self._failed = on_trouble
        self._on_open = on_open
        self._dial()

    def _dial(self) -> None:
        """Begin to connect to the next host."""
        info = self._infos[self._tried]
        self._tried += 1
        self._limit_host()
        try:
            self._pg = pq.PGconn.connect_start(info)
            if self._pg.status == pq.ConnStatus.BAD:
                self._fail(self._error())
                return
            self._fd = self._pg.socket
        except psycopg.Error as error:
            self._fail(str(error))
            return
        self._loop.add_writer(self._fd, self._opened)

    def _opened(self) -> None:
        self._unwatch()
        with socket.socket(fileno=os.dup(self._fd)) as peek:
            error = peek.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(f"connect: {os.strerror(error)}")
        elif self._on_open is None:
            self._poll()  # another host, after one with which the log-in had begun
        else:
            self._end_timer()
            on_open, self._on_open = self._on_open, None
            on_open()

    def log_in(self, on_ready: Callable[[], None]) -> None:
        """TLS and authentication; the caller limits how long it takes, by ``close``."""
        self._on_ready = on_ready
        self._limit_host()
        self._poll()

    def _poll(self) -> None:
        self._unwatch()
        if self._pg is None:
            return
        try:
            state = self._pg.connect_poll()
            if state == pq.PollingStatus.FAILED:
                self._fail(self._error())
                return
            self._fd = self._pg.socket
            if state == pq.PollingStatus.READING:
                self._loop.add_reader(self._fd, self._poll)
                return
            if state == pq.PollingStatus.WRITING:
                self._loop.add_writer(self._fd, self._poll)
                return
            self._pg.nonblocking = 1
            self._pg.notice_handler = self._notice
        except psycopg.Error as error:
            self._fail(str(error))
            return
        self._end_timer()
        self._loop.add_reader(self._fd, self._readable)
        on_ready, self._on_ready, self._failed = self._on_ready, None, None
        assert on_ready is not None
        on_ready()

    def query(
        self, sql: bytes, on_answer: Callable[[Answer], None], on_trouble: Callable[[Trouble], None]
    ) -> None:
        """Send one statement by the simple protocol.

        Exactly one of the callbacks is called, or none after ``close``.
        """
        if self._pg is None:
            on_trouble(Trouble(False, None, "not sent: the session was closed"))
            return
        self._notices, self._rows, self._trouble = [], [], None
        self._done, self._failed, self._sent = on_answer, on_trouble, True
        try:
            self._pg.send_query(sql)
        except psycopg.Error as error:
            self._fail(str(error))
            return
        self._flush()

    def _flush(self) -> None:
        assert self._pg is not None
        try:
            more = self._pg.flush()
        except psycopg.Error as error:
            self._fail(str(error))
            return
        if more:
            self._loop.add_writer(self._fd, self._flush)
            self._flushing = True
        elif self._flushing:
            self._loop.remove_writer(self._fd)
            self._flushing = False

    def _readable(self) -> None:
        assert self._pg is not None
        try:
            self._pg.consume_input()
            if self._failed is None:
                if self._pg.status != pq.ConnStatus.OK:
                    self._fail(self._error())
                return
            while not self._pg.is_busy():
                result = self._pg.get_result()
                if result is None:
                    self._finished()
                    return
                self._take(result)
        except psycopg.Error as error:
            # libpq may hold the server's last words (FATAL …) although the socket is dead.
            self._last_words()
            self._fail(str(error))

    def _last_words(self) -> None:
        assert self._pg is not None
        with suppress(psycopg.Error):
            while not self._pg.is_busy() and (result := self._pg.get_result()) is not None:
                self._take(result)

    def _take(self, result: pq.abc.PGresult) -> None:
        if result.status == pq.ExecStatus.TUPLES_OK:
            for row in range(result.ntuples):
                values = (result.get_value(row, column) for column in range(result.nfields))
                self._rows.append(tuple(None if value is None else value.decode() for value in values))
            self.names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        elif result.status == pq.ExecStatus.FATAL_ERROR and self._trouble is None:
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
            self._trouble = (state.decode() if state else None, text.decode(errors="replace"))

    def _finished(self) -> None:
        assert self._pg is not None
        if self._trouble is None and self._pg.status == pq.ConnStatus.OK:
            done, self._done, self._failed, self._sent = self._done, None, None, False
            if done is not None:
                done(Answer(self._rows, tuple(self._notices)))
            return
        if self._trouble is None or self._pg.status != pq.ConnStatus.OK:
            self._fail(self._error())
            return
        self._report(*self._trouble)

    def _notice(self, result: pq.abc.PGresult) -> None:
        def part(name: pq.DiagnosticField) -> str:
            return (result.error_field(name) or b"").decode(errors="replace")

        self._notices.append(
            Notice(
                part(pq.DiagnosticField.SEVERITY_NONLOCALIZED),
                part(pq.DiagnosticField.SQLSTATE),
                part(pq.DiagnosticField.MESSAGE_PRIMARY),
            )
        )

    def _error(self) -> str:
        return self._pg.get_error_message() if self._pg is not None else "closed"

    def _fail(self, message: str) -> None:
        trouble = self._trouble
        self.close()
        connecting = self._on_open is not None or self._on_ready is not None
        if connecting and self._tried < len(self._infos):
            self._dial()
            return
        # A warning that came before the end says more than "server closed the connection".
        told = next((notice for notice in self._notices if notice.severity == "WARNING"), None)
        if told is not None and (trouble is None or trouble[0] is None):
            trouble = (told.sqlstate, told.message)
        self._report(*(trouble or (None, message)))

    def _report(self, state: str | None, message: str) -> None:
        failed, self._failed, self._done = self._failed, None, None
        sent, self._sent = self._sent, False
        if failed is not None:
            failed(Trouble(sent, state, short(message)))
        elif self.on_closed is not None:
            self.on_closed(Trouble(False, state, short(message)))

    def _unwatch(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)

    def _limit_host(self) -> None:
        """Go on to the next host, where there is one, should this one take too long."""
        if self._tried < len(self._infos):
            self._host_timer = self._loop.call_later(HOST_S, self._fail, "connect: timed out")

    def _end_timer(self) -> None:
        if self._host_timer is not None:
            self._host_timer.cancel()
            self._host_timer = None

    def close(self) -> None:
        """Close at once. Idempotent; no callback is called for it."""
        self._end_timer()
        if self._pg is not None:
            self._unwatch()
            self._pg.finish()
            self._pg, self._fd = None, -1
