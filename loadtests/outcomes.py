"""The outcome of a request, as one word.

ok                 it did what it should
dropped            never started: no user was free within ``drop_after_s``
40001, 25006, …    the SQLSTATE that the server (or the pooler, once connected) answered with
01000              it succeeded, but the server warned (the wait for a synchronous standby was cancelled)
client:refused     nothing listens there
client:timeout     no answer in time (connection attempt, or a connection that the kernel gave up)
client:closed      the connection broke
client:rejected    the server or pooler turned the connection attempt away (no SQLSTATE reaches the client)
client:tls         the TLS handshake or the certificate
client:unreachable no route, no such name
client:stopped     the load ended while it was under way or waiting; says nothing about the server
client:<Type>      anything else, by the exception's type: a defect of the workload
"""

from __future__ import annotations

OK = "ok"
DROPPED = "dropped"
STOPPED = "client:stopped"

# libpq's own English messages, the only thing that tells these apart; the first match wins. A failed
# attempt at several addresses lists all of them, hence the order from the specific to the general.
_MESSAGES: tuple[tuple[str, str], ...] = (
    ("fatal:", "client:rejected"),
    ("certificate", "client:tls"),
    ("connection refused", "client:refused"),
    ("timeout expired", "client:timeout"),
    ("timed out", "client:timeout"),
    ("no route to host", "client:unreachable"),
    ("network is unreachable", "client:unreachable"),
    ("could not translate host name", "client:unreachable"),
    ("failed to resolve host", "client:unreachable"),
    ("closed", "client:closed"),
    ("connection reset", "client:closed"),
    ("broken pipe", "client:closed"),
    ("unexpected eof", "client:closed"),
    ("lost", "client:closed"),
    ("ssl", "client:tls"),
)


def classify(error: BaseException) -> str:
    """The outcome that an exception stands for.

    Works on any exception with psycopg's ``sqlstate`` attribute, so that the host can test it.
    """
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate:
        return str(sqlstate)
    if hasattr(error, "sqlstate") or isinstance(error, OSError):
        message = str(error).lower()
        for text, outcome in _MESSAGES:
            if text in message:
                return outcome
    return f"client:{type(error).__name__}"


def ends_session(outcome: str) -> bool:
    """Whether a connection is of no more use after such an outcome, even where it is still open.

    Class 08 (connection exception), 57P (administrator's shutdown, crash, starting up) and 25006
    (read-only: the session sits on a server that is no primary any more).
    """
    return outcome[:2] == "08" or outcome[:3] == "57P" or outcome == "25006"
