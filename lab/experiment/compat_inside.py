"""Runs *inside* the client, as one file: what each session feature does through one pooler, or without one.

Standard library and psycopg only. ``python compat_inside.py <settings.json>`` prints one JSON object a
feature: {"feature", "outcome", "why", "same", "moved"}.

Client A uses a feature. Then client B, who knows nothing of it, is served by the very server connection that
A had, and *peeks*: does it see, or own, what A left there? While B holds that connection, A *checks* on
another one: does it still have what it set up? In session pooling A keeps its connection; B peeks once A has
gone. ``same``: the server's process ids show that B had A's connection; ``moved``: that A then had another.

Outcomes: ``works``; ``fails loudly`` (an error, with its SQLSTATE); ``leaks`` (B saw it or owned it, and
nobody was told); ``is lost`` (A no longer had it, and nobody was told); ``not run`` (why).
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
HELD_S = 1.2
"""How long B's statement holds the server connection where it cannot hold it by a transaction."""
KEY = 4242
SCHEMA = "lab_compat"


@dataclass
class World:
    """Whom a feature may use."""

    settings: dict[str, Any]
    a: Connection
    plain: Connection
    """Straight to the server."""

    def connect(self, name: str, **more: Any) -> Connection:
        return connect(self.settings, name, **more)


Part = Callable[[World, Connection], Any]


@dataclass(frozen=True)
class Feature:
    """What A does, what it then expects, and what B must not see."""

    key: str
    setup: Part
    check: Part
    """True where A has what it set up."""
    peek: Part | None = None
    """True where B has it too."""
    transaction: bool = False
    """Set up and checked within one transaction."""


def connect(settings: dict[str, Any], name: str, **more: Any) -> Connection:
    """A connection through what is tested; ``settings["plain"]`` leads straight to the server."""
    where = {**settings["through"], **more}
    with open(settings["password_file"], encoding="utf-8") as file:  # noqa: PTH123
        password = file.read().strip()
    return psycopg.connect(
        password=password, application_name=name, autocommit=True, prepare_threshold=1000,
        connect_timeout=10, **where,
    )  # fmt: skip


def run(sql: str) -> Part:
    return lambda _, link: link.execute(sql)


def gives(sql: str, wanted: Any) -> Part:
    """Whether a query gives one value."""

    def ask(_: World, link: Connection) -> bool:
        row = link.execute(sql).fetchone()
        return row is not None and row[0] == wanted

    return ask


def holds(sql: str) -> Part:
    """Whether a query gives true."""
    return gives(sql, True)


def each(*parts: Part) -> Part:
    def do(world: World, link: Connection) -> Any:
        result = None
        for part in parts:
            result = part(world, link)
        return result

    return do


def _heard(world: World, link: Connection) -> bool:
    """A notification sent now reaches the one who listens."""
    world.plain.execute("NOTIFY lab_compat_listen, 'x'")
    for _ in range(2):
        link.execute("SELECT 1")
        if any(True for _ in link.notifies(timeout=0.2, stop_after=1)):
            return True
    return False


def _told(world: World, link: Connection) -> bool:
    link.execute("NOTIFY lab_compat_notify, 'x'")
    return any(True for _ in world.plain.notifies(timeout=2, stop_after=1))


def _prepared(_: World, link: Connection) -> bool:
    rows = [link.execute("SELECT %s::int + 1", (n,), prepare=True).fetchone() for n in range(3)]
    return rows == [(1,), (2,), (3,)]


def _copy_in(_: World, link: Connection) -> bool:
    with link.cursor().copy(f"COPY {SCHEMA}.t (x) FROM STDIN") as copy:
        for n in range(3):
            copy.write_row((100 + n,))
    return gives(f"SELECT count(*) FROM {SCHEMA}.t WHERE x >= 100", 3)(_, link) is True


def _copy_out(_: World, link: Connection) -> bool:
    with link.cursor().copy("COPY (SELECT generate_series(1, 5)) TO STDOUT") as copy:
        return b"".join(bytes(data) for data in copy).split() == [b"1", b"2", b"3", b"4", b"5"]


def _cancelled(_: World, link: Connection) -> bool:
    timer = threading.Timer(0.3, link.cancel)
    timer.start()
    begin = time.monotonic()
    try:
        link.execute("SELECT pg_sleep(3)")
    except psycopg.errors.QueryCanceled:
        return time.monotonic() - begin < 2.5
    finally:
        timer.join()
    return False


def _pipelined(_: World, link: Connection) -> bool:
    with link.pipeline():
        found = [link.execute("SELECT %s::int", (n,)) for n in range(3)]
    return [one.fetchone() for one in found] == [(0,), (1,), (2,)]


def _simple(_: World, link: Connection) -> bool:
    result = link.pgconn.exec_(b"SELECT 1; SELECT 2")
    if result.status not in (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK):
        raise psycopg.errors.error_from_result(result)
    return result.get_value(0, 0) == b"2"


def _locked(world: World, _: Connection) -> bool:
    try:
        world.plain.execute(f"SELECT x FROM {SCHEMA}.t WHERE x = 1 FOR UPDATE NOWAIT")
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def _option(world: World, _: Connection) -> bool:
    with world.connect("compat-a", options="-c work_mem=7MB") as link:
        return gives("SHOW work_mem", "7MB")(world, link) is True


def _savepoint(_: World, link: Connection) -> bool:
    link.execute("SAVEPOINT s")
    with contextlib.suppress(psycopg.errors.DivisionByZero):
        link.execute("SELECT 1 / 0")
    link.execute("ROLLBACK TO SAVEPOINT s")
    return gives(f"SELECT count(*) FROM {SCHEMA}.t WHERE x = 77", 1)(_, link) is True


def _two_phase(_: World, link: Connection) -> None:
    link.execute("BEGIN")
    link.execute(f"INSERT INTO {SCHEMA}.t VALUES (88)")
    link.execute("PREPARE TRANSACTION 'lab_compat'")


def _large_object(_: World, link: Connection) -> bool:
    row = link.execute("SELECT lo_create(0)").fetchone()
    assert row is not None
    descriptor = link.execute("SELECT lo_open(%s::oid, 131072)", (row[0],)).fetchone()
    assert descriptor is not None
    link.execute("SELECT lowrite(%s::int, %s::bytea)", (descriptor[0], b"abc"))
    seen = link.execute("SELECT lo_get(%s::oid)", (row[0],)).fetchone()
    link.execute("SELECT lo_unlink(%s::oid)", (row[0],))
    return seen == (b"abc",)


def _state(setup: str, query: str, value: Any) -> tuple[Part, Part, Part]:
    """Set up by one statement, and seen by one query, by A as by B."""
    return run(setup), gives(query, value), gives(query, value)


def _setting(name: str, value: str) -> tuple[Part, Part, Part]:
    return _state(f"SET {name} = '{value}'", f"SHOW {name}", value)


TEMP = "CREATE TEMP TABLE compat_temp (x int)"
OWN_LOCK = (
    "SELECT count(*) > 0 FROM pg_locks"
    f" WHERE locktype = 'advisory' AND objid = {KEY} AND pid = pg_backend_pid()"
)
"""Whether a client's own server connection holds the lock, though the client never asked for it."""
TENANT = "SELECT current_setting('lab.tenant', true)"

FEATURES = (
    Feature("set", *_setting("work_mem", "7MB")),
    # What A resets on another connection stays set on the one that B has.
    Feature("reset", run("SET work_mem = '7MB'"), each(run("RESET work_mem"), lambda *_: True),
            gives("SHOW work_mem", "7MB")),
    Feature("set-search-path", *_setting("search_path", SCHEMA)),
    Feature("set-statement-timeout", *_setting("statement_timeout", "7777ms")),
    Feature("set-tracked", *_setting("TimeZone", "Asia/Tokyo")),
    Feature("set-application-name", *_setting("application_name", "compat-renamed")),
    Feature("set-config-session", *_state("SELECT set_config('lab.tenant', 'a', false)", TENANT, "a")),
    Feature("set-role", *_state("SET ROLE app_admin", "SELECT current_user::text", "app_admin")),
    Feature("session-authorization", *_state(
        "SET SESSION AUTHORIZATION app_admin", "SELECT session_user::text", "app_admin")),
    Feature("session-characteristics", *_state(
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW default_transaction_read_only", "on")),
    Feature("startup-options", run("SELECT 1"), _option),
    Feature("set-local", run("SET LOCAL work_mem = '7MB'"), gives("SHOW work_mem", "7MB"),
            gives("SHOW work_mem", "7MB"), transaction=True),
    Feature("set-config-local", run("SELECT set_config('lab.tenant', 'b', true)"), gives(TENANT, "b"),
            gives(TENANT, "b"), transaction=True),
    Feature("isolation-level", *_state("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SHOW transaction_isolation", "serializable"), transaction=True),
    Feature("listen", run("LISTEN lab_compat_listen"), _heard,
            holds("SELECT count(*) = 1 FROM pg_listening_channels() c WHERE c = 'lab_compat_listen'")),
    Feature("notify", lambda world, _: world.plain.execute("LISTEN lab_compat_notify"), _told),
    Feature("advisory-lock-session", run(f"SELECT pg_advisory_lock({KEY})"),
            holds(f"SELECT pg_advisory_unlock({KEY})"), holds(OWN_LOCK)),
    Feature("advisory-lock-transaction", run(f"SELECT pg_advisory_xact_lock({KEY})"),
            holds(f"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {KEY}"),
            holds(f"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = {KEY}"),
            transaction=True),
    Feature("temp-preserve", each(run(TEMP), run("INSERT INTO compat_temp VALUES (1)")),
            gives("SELECT count(*) FROM compat_temp", 1), gives("SELECT count(*) FROM compat_temp", 1)),
    Feature("temp-delete-rows", run(f"{TEMP} ON COMMIT DELETE ROWS"),
            gives("SELECT count(*) FROM compat_temp", 0), gives("SELECT count(*) FROM compat_temp", 0)),
    Feature("temp-drop", each(run(f"{TEMP} ON COMMIT DROP"), run("INSERT INTO compat_temp VALUES (1)")),
            gives("SELECT count(*) FROM compat_temp", 1), gives("SELECT count(*) FROM compat_temp", 1),
            transaction=True),
    Feature("cursor", run("DECLARE c CURSOR FOR SELECT generate_series(1, 9)"), gives("FETCH c", 1),
            gives("FETCH c", 2), transaction=True),
    Feature("cursor-with-hold", run("DECLARE c CURSOR WITH HOLD FOR SELECT 7 FROM generate_series(1, 9)"),
            gives("FETCH c", 7), gives("FETCH c", 7)),
    Feature("prepare-sql", run("PREPARE p AS SELECT 7"), gives("EXECUTE p", 7), gives("EXECUTE p", 7)),
    Feature("prepare-protocol", _prepared, _prepared),
    Feature("deallocate-all", run("DEALLOCATE ALL"), _prepared),
    Feature("discard-all", run("DISCARD ALL"), _prepared),
    Feature("transaction", run(f"INSERT INTO {SCHEMA}.t VALUES (55)"),
            gives(f"SELECT count(*) FROM {SCHEMA}.t WHERE x = 55", 1), transaction=True),
    Feature("savepoint", run(f"INSERT INTO {SCHEMA}.t VALUES (77)"), _savepoint, transaction=True),
    Feature("two-phase", _two_phase, each(run("COMMIT PREPARED 'lab_compat'"), lambda *_: True)),
    Feature("row-lock", run(f"SELECT x FROM {SCHEMA}.t WHERE x = 1 FOR UPDATE"), _locked, transaction=True),
    Feature("multi-statement-query", _simple, _simple),
    Feature("pipeline", _pipelined, _pipelined),
    Feature("copy-in", run("SELECT 1"), _copy_in),
    Feature("copy-out", _copy_out, _copy_out),
    Feature("nextval", run(f"SELECT nextval('{SCHEMA}.s')"), holds(f"SELECT nextval('{SCHEMA}.s') > 1")),
    Feature("currval", *_state(f"SELECT setval('{SCHEMA}.s', 7777)", f"SELECT currval('{SCHEMA}.s')", 7777)),
    Feature("lastval", run(f"SELECT nextval('{SCHEMA}.s')"), holds("SELECT lastval() > 0"),
            holds("SELECT lastval() > 0")),
    Feature("cancel", run("SELECT 1"), _cancelled),
    Feature("large-object", run("SELECT 1"), _large_object, transaction=True),
    Feature("load", run("LOAD 'auto_explain'"), gives("SHOW auto_explain.log_min_duration", "-1"),
            gives("SHOW auto_explain.log_min_duration", "-1")),
)  # fmt: skip


def pid(link: Connection) -> int:
    row = link.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def clean(world: World) -> None:
    """End every server connection that the last feature was at, whoever pools it."""
    world.plain.execute("UNLISTEN *")
    world.plain.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user"
        " AND pid <> pg_backend_pid() AND application_name LIKE 'compat-%'"
    )
    time.sleep(0.1)


@contextlib.contextmanager
def holding(link: Connection, mode: str) -> Iterator[None]:
    """Keep the server connection of a client: by a transaction, or by a statement that takes its time."""
    if mode != "statement":
        with contextlib.suppress(psycopg.Error):
            link.execute("SELECT 1")  # a peek that failed ended the transaction, not the connection
        try:
            yield
        finally:
            with contextlib.suppress(psycopg.Error):
                link.execute("ROLLBACK")
        return
    thread = threading.Thread(target=_asleep, args=(link,))
    thread.start()
    time.sleep(0.25)
    try:
        yield
    finally:
        thread.join()


def _asleep(link: Connection) -> None:
    with contextlib.suppress(psycopg.Error):
        link.execute("SELECT pg_sleep(%s)", (HELD_S,))


def peeks(feature: Feature, world: World, link: Connection) -> bool:
    """Whether B has it; an error says that it has not."""
    if feature.peek is None:
        return False
    try:
        return feature.peek(world, link) is True
    except psycopg.Error:
        return False


def try_one(feature: Feature, settings: dict[str, Any], plain: Connection) -> dict[str, Any]:
    """One feature through what ``settings`` leads to."""
    mode = settings["mode"]
    said: dict[str, Any] = {"feature": feature.key, "same": None, "moved": None, "why": ""}
    a = connect(settings, "compat-a")
    world = World(settings, a, plain)
    b = connect(settings, "compat-b")
    leaked, kept, error = False, False, None
    first = None
    try:
        try:
            if feature.transaction:
                a.execute("BEGIN")
            feature.setup(world, a)
            if feature.transaction:
                first = pid(a)
                kept = feature.check(world, a) is True
                a.execute("COMMIT")
        except psycopg.Error as failure:
            error = failure
            with contextlib.suppress(psycopg.Error):
                a.execute("ROLLBACK")
        if error is None and first is None:
            first = pid(a)
        if error is None and mode in ("transaction", "statement"):
            if mode == "transaction":
                b.execute("BEGIN")
            said["same"] = pid(b) == first
            leaked = peeks(feature, world, b)
            if not feature.transaction:
                with holding(b, mode):
                    kept, error = checked(feature, world, a)
                    if error is None:
                        with contextlib.suppress(psycopg.Error):
                            said["moved"] = pid(a) != first
            else:
                with contextlib.suppress(psycopg.Error):
                    b.execute("ROLLBACK")
        elif error is None:
            if not feature.transaction:
                b.execute("SELECT 1")
                kept, error = checked(feature, world, a)
            a.close()
            if mode == "session":
                # The next client is given the connection that was let go of last.
                with connect(settings, "compat-c") as c:
                    said["same"] = pid(c) == first
                    leaked = peeks(feature, world, c)
            else:
                leaked = peeks(feature, world, b)
    finally:
        for link in (a, b):
            link.close()
        clean(world)
    return {**said, **outcome(leaked, kept, error)}


def checked(feature: Feature, world: World, a: Connection) -> tuple[bool, psycopg.Error | None]:
    try:
        return feature.check(world, a) is True, None
    except psycopg.Error as failure:
        return False, failure


def outcome(leaked: bool, kept: bool, error: psycopg.Error | None) -> dict[str, str]:
    """The worst that was seen: silence is worse than an error."""
    why = ""
    if error is not None:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        why = f"{error.sqlstate or type(error).__name__}: {text}"
    if leaked:
        return {"outcome": "leaks", "why": why and f"and its own user is told {why}"}
    if error is not None:
        return {"outcome": "fails loudly", "why": why}
    return {"outcome": "works" if kept else "is lost", "why": ""}


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as given:  # noqa: PTH123
        settings: dict[str, Any] = json.load(given)
    signal.setitimer(signal.ITIMER_REAL, settings["seconds"])  # whoever started it may be gone
    plain = connect({**settings, "through": settings["plain"]}, "lab-compat")
    wanted = settings.get("features")
    try:
        plain.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        plain.execute(f"CREATE SCHEMA {SCHEMA}")
        plain.execute(f"CREATE TABLE {SCHEMA}.t (x int)")
        plain.execute(f"INSERT INTO {SCHEMA}.t VALUES (1)")
        plain.execute(f"CREATE SEQUENCE {SCHEMA}.s")
        for feature in FEATURES:
            if wanted and feature.key not in wanted:
                continue
            try:
                said = try_one(feature, settings, plain)
            except psycopg.Error as failure:
                text = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
                said = {
                    "feature": feature.key,
                    "outcome": "not run",
                    "why": text,
                    "same": None,
                    "moved": None,
                }
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()
    finally:
        plain.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        plain.close()


if __name__ == "__main__":
    main()
