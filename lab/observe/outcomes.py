"""What an error, or a warning, says about the write that met it. Pure.

``failed`` is said only where the error *proves* that nothing was committed; everything else after the
statement was handed to the network is ``unknown``.

Sources: PostgreSQL's appendix A (error codes) and ``src/backend/replication/syncrep.c`` (a wait for the
synchronous standby that is cancelled ends in a WARNING, the commit stands); PgBouncer's ``src/janitor.c``,
``src/objects.c`` and ``src/client.c`` (its own errors carry 08P01 whatever they mean, so the text decides);
Redis's ``src/server.c``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["acknowledged", "acknowledged_locally", "failed", "unknown"]

NOT_SENT = "not sent: "
"""How the message of an operation begins that never left the probe."""

PROVING_STATES: dict[str, str] = {
    "25006": "read-only transaction: the node is a standby, nothing was written",
    "40001": "serialization failure: rolled back",
    "40P01": "deadlock: rolled back",
    "55P03": "lock not available: rolled back",
    "53300": "too many connections: refused at the log-in",
    "57P03": "cannot connect now (starting up, in recovery, shutting down): refused at the log-in",
}
"""SQLSTATEs that prove that the statement did not commit, one by one."""

PROVING_CLASSES: dict[str, str] = {
    "0A": "feature not supported",
    "22": "data exception",
    "23": "integrity constraint violation",
    "28": "invalid authorization: refused at the log-in",
    "3D": "no such database: refused at the log-in",
    "3F": "no such schema",
    "42": "syntax error or access rule violation",
}
"""Classes of SQLSTATE that do. Not among them: 08 (connection), 57 (a shutdown or cancel proves nothing: it
may strike after the commit), 53 beyond 53300, 58, XX."""

POOLER_NOT_SENT: tuple[str, ...] = (
    "query_wait_timeout",
    "server login has been failing",
    "client_login_timeout",
    "no more connections allowed",
    "client connections exceeded",
    "no such database",
    "no such user",
    "pooler is shutting down",
    "database does not allow connections",
    "SASL authentication failed",
    "password authentication failed",
    "login rejected",
)
"""How PgBouncer's messages begin that it sends only to a client that no server is linked to: it waited in
the queue, or had not logged in. Its other messages (``server conn crashed?``, ``query timeout``, ``server
lifetime over``, ``server shutting down``, …) can reach a client whose statement a server already has."""

REDIS_PROVING = frozenset(
    ("READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "OOM", "MISCONF", "NOAUTH", "WRONGPASS", "NOPERM",
     "BUSY", "DENIED", "WRONGTYPE")
)  # fmt: skip
"""First words of Redis's errors that are said before a command is executed (``processCommand`` in
src/server.c: a rejected command changes nothing), or by a command that refuses its key."""

POOLER_STATE = "08P01"
SYNC_WAIT_CANCELLED = "synchronous replication"
"""Part of both messages of syncrep.c, in the server's own language setting C."""


@dataclass(frozen=True)
class Notice:
    """A notice that came with an answer."""

    severity: str
    sqlstate: str
    message: str


@dataclass(frozen=True)
class Trouble:
    """An operation that ended otherwise than by its answer."""

    sent: bool
    """Whether the statement can have left for the server: false while connecting or waiting."""
    sqlstate: str | None
    message: str


def of_trouble(trouble: Trouble) -> Outcome:
    """``failed`` where the trouble proves that nothing was committed, else ``unknown``."""
    if not trouble.sent:
        return "failed"
    state = trouble.sqlstate
    if state is None:
        return "unknown"
    if state in PROVING_STATES or state[:2] in PROVING_CLASSES:
        return "failed"
    if state == POOLER_STATE and trouble.message.startswith(POOLER_NOT_SENT):
        return "failed"
    return "unknown"


def of_redis(trouble: Trouble) -> Outcome:
    """The same of a write to Redis; ``sqlstate`` holds the first word of its error."""
    if not trouble.sent or trouble.sqlstate in REDIS_PROVING:
        return "failed"
    return "unknown"


def of_answer(notices: tuple[Notice, ...]) -> Outcome:
    """An acknowledgement; one that came with a warning is only local."""
    return "acknowledged_locally" if warning(notices) else "acknowledged"


def warning(notices: tuple[Notice, ...]) -> Notice | None:
    """The warning of a commit that did not wait for its synchronous standby.

    Any WARNING counts: the probe's INSERT causes none of its own, so that one that is not recognised
    (another version, another language) must not pass for a full acknowledgement.
    """
    warnings = [notice for notice in notices if notice.severity == "WARNING"]
    telling = [notice for notice in warnings if SYNC_WAIT_CANCELLED in notice.message]
    return next(iter(telling or warnings), None)


def short(message: str, limit: int = 160) -> str:
    """One line of an error message, without what makes each one different (ports, addresses)."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if text.startswith("connection to server at") and "failed: " in text:
        text = "connect: " + text.split("failed: ", 1)[1]
    for level in ("FATAL:", "ERROR:", "PANIC:"):
        text = text.removeprefix(level).strip()
    return text[:limit]
