"""What proves that a write did not commit, and what does not."""

from __future__ import annotations

import pytest

from lab.observe.outcomes import Notice, Trouble, of_answer, of_trouble, short, warning

CANCELLED = Notice("WARNING", "01000", "canceling wait for synchronous replication due to user request")
ENDED = Notice(
    "WARNING",
    "57P01",
    "canceling the wait for synchronous replication and terminating connection due to administrator command",
)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("25006", "cannot execute INSERT in a read-only transaction"),
        ("40001", "could not serialize access"),
        ("40P01", "deadlock detected"),
        ("53300", "sorry, too many clients already"),
        ("57P03", "the database system is starting up"),
        ("23505", "duplicate key"),
        ("42P01", 'relation "lab.ledger" does not exist'),
        ("28P01", "password authentication failed"),
        ("08P01", "query_wait_timeout"),
        ("08P01", "server login has been failing, try again later (server_login_retry)"),
        ("08P01", "server login has been failing, cached error: connect failed (server_login_retry)"),
        ("08P01", "no more connections allowed (max_client_conn)"),
    ],
)
def test_proves_that_nothing_was_committed(state: str, message: str) -> None:
    assert of_trouble(Trouble(True, state, message)) == "failed"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "server closed the connection unexpectedly"),
        (None, "no answer in time"),
        ("57P01", "terminating connection due to administrator command"),
        ("57P02", "terminating connection because of crash of another server process"),
        ("57014", "canceling statement due to user request"),
        ("40003", "statement completion unknown"),
        ("08006", "connection failure"),
        ("58030", "could not write"),
        ("XX000", "something internal"),
        ("53100", "disk full"),
        ("08P01", "server conn crashed?"),
        ("08P01", "query timeout"),
        ("08P01", "server lifetime over"),
        ("08P01", "server shutting down"),
        ("57P01", "query_wait_timeout"),
        ("57P01", ENDED.message),
    ],
)
def test_proves_nothing(state: str | None, message: str) -> None:
    assert of_trouble(Trouble(True, state, message)) == "unknown"


def test_what_was_never_sent_failed_whatever_the_error() -> None:
    assert of_trouble(Trouble(False, None, "connect: Connection refused")) == "failed"
    assert of_trouble(Trouble(False, "57P01", "terminating connection")) == "failed"


@pytest.mark.parametrize("notice", [CANCELLED, ENDED, Notice("WARNING", "01000", "in another language")])
def test_a_warning_makes_an_acknowledgement_local(notice: Notice) -> None:
    assert of_answer((notice,)) == "acknowledged_locally"


def test_other_notices_do_not() -> None:
    assert of_answer(()) == "acknowledged"
    assert of_answer((Notice("NOTICE", "00000", "synchronous replication"),)) == "acknowledged"


def test_the_telling_warning_is_named() -> None:
    assert warning((Notice("WARNING", "01000", "x"), CANCELLED)) == CANCELLED


def test_short_drops_what_makes_each_message_different() -> None:
    long = 'connection to server at "pg" (10.0.0.2), port 5432 failed: FATAL:  starting up\n'
    assert short(long) == "connect: FATAL:  starting up"
    assert short("FATAL:  gone\n\tThis probably means\n") == "gone"
    assert short("") == ""
