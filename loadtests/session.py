"""A session as an application holds one: a lasting connection that comes back after it was lost."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from psycopg import Cursor, Error
from psycopg.errors import Diagnostic
from psycopg.types.numeric import Int8BinaryDumper

from loadtests.config import LoadConfig, LoadTarget
from loadtests.connection import GeventConnection
from loadtests.outcomes import classify, ends_session

Row = tuple[Any, ...]
Params = Sequence[Any]


def connect_parameters(
    config: LoadConfig, target: LoadTarget, password: str, user: str | None = None
) -> dict[str, Any]:
    """What ``psycopg.connect`` is given: autocommit, and a connection that notices a dead peer.

    ``user``: the role, unless it is the load's own.
    """
    parameters: dict[str, Any] = {
        "host": target.host,
        "port": target.port,
        "dbname": target.database,
        "user": user or config.user,
        "password": password,
        "sslmode": config.sslmode,
        "connect_timeout": config.connect_timeout_s,
        "application_name": f"load-{config.workload}",
        "autocommit": True,
        "prepare_threshold": config.prepare_threshold,
        **config.tcp,
    }
    if target.address:
        parameters["hostaddr"] = target.address
    if target.target_session_attrs:
        parameters["target_session_attrs"] = target.target_session_attrs
        if target.target_session_attrs == "any":
            # Reads spread over the hosts; writes look for the one that takes them.
            parameters["load_balance_hosts"] = "random"
    if config.sslmode.startswith("verify"):
        parameters["sslrootcert"] = config.sslrootcert
    return parameters


class Session:
    """One connection to one endpoint, opened when first needed and again after it was lost.

    Statements commit on their own; ``transaction`` makes an explicit one. A cursor is kept for each
    statement text (results come in binary), so pass constant texts with ``%s`` placeholders.
    """

    def __init__(
        self,
        config: LoadConfig,
        target: LoadTarget,
        password: str,
        rng: random.Random,
        user: str | None = None,
    ) -> None:
        self.target = target
        self.tag = ""
        """What leads every statement, a comment: pg_stat_statements then tells whose it is."""
        self.warned: str | None = None
        """SQLSTATE of a warning that came with the request under way, None: none did."""
        self._parameters = connect_parameters(config, target, password, user)
        self._first, self._most = config.backoff_first_s, config.backoff_max_s
        self._rng = rng
        self._connection: GeventConnection | None = None
        self._cursors: dict[str, tuple[Cursor[Row], str]] = {}
        self.executed = 0
        """Statements sent so far."""
        self.failures = 0
        """Requests that cost the connection since the last one that went well."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known without asking."""
        return self._connection is not None

    def connect(self) -> GeventConnection:
        """The connection, opened now where there is none. psycopg.Error where that fails."""
        connection = self._connection
        if connection is None:
            connection = GeventConnection.connect(**self._parameters)
            connection.add_notice_handler(self._notice)
            # psycopg sends an int as the smallest type that holds it, and prepares a statement once for
            # each combination of types; as bigint always, there is one plan a statement.
            connection.adapters.register_dumper(int, Int8BinaryDumper)
            self._connection = connection
        return connection

    def execute(self, sql: str, params: Params | None = None) -> Cursor[Row]:
        """Run a statement; its result is valid until the same text runs again. psycopg.Error."""
        self.executed += 1
        known = self._cursors.get(sql)
        if known is None:
            known = self._cursors[sql] = self.connect().cursor(binary=True), self.tag + sql
        return known[0].execute(known[1], params)

    def copy(self, sql: str, rows: Iterable[Params]) -> None:
        """Send rows by ``COPY … FROM STDIN``. psycopg.Error."""
        with self.connect().cursor() as cursor, cursor.copy(self.tag + sql) as copy:
            for row in rows:
                copy.write_row(row)

    def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Run a statement and fetch what it returns."""
        return self.execute(sql, params).fetchall()

    def one(self, sql: str, params: Params | None = None) -> Row | None:
        """Run a statement and fetch the first row."""
        return self.execute(sql, params).fetchone()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """An explicit transaction: committed at the end of the block, rolled back on an exception."""
        with self.connect().transaction():
            yield self

    def failed(self, error: BaseException) -> str:
        """Clean up after a request failed; returns its outcome.

        The connection is closed where it is broken, of no more use, or in the middle of something.
        """
        outcome = classify(error)
        connection = self._connection
        # 0: idle, the only state in which the next request can begin.
        if (
            connection is None
            or connection.closed
            or ends_session(outcome)
            or not isinstance(error, Error)
            or connection.info.transaction_status != 0
        ):
            self.close()
        return outcome

    def back_off(self) -> None:
        """After a failure that cost the connection: wait a random part of first · 2ⁿ seconds.

        Full jitter, so that many clients do not come back all at once.
        """
        if self._connection is None:
            most = min(self._most, self._first * 2 ** min(self.failures, 20))
            self.failures += 1
            gevent.sleep(self._rng.uniform(0, most))

    def close(self) -> None:
        """Close the connection. Idempotent; ``connect`` opens it again."""
        connection, self._connection = self._connection, None
        self._cursors.clear()
        if connection is not None:
            connection.close()

    def _notice(self, diagnostic: Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warned = diagnostic.sqlstate


def read_password(config: LoadConfig, role: str | None = None) -> str:
    """The password of a role (None: the load's own), from its file. OSError where it cannot be read."""
    file = config.password_file if role in (None, config.user) else f"{config.password_file}.{role}"
    return Path(file).read_text(encoding="utf-8").rstrip("\n")
