"""Serverless functions: bursts of short-lived clients, a connection each.

Models functions (AWS Lambda) as clients of a database: the Clinical Trial Platform's, which reach it through
a proxy in production, and the Experimentation Platform's, whose function makes its schema, queries and checks
its health. An invocation has no connection to reuse: it connects, works and goes. Invocations come in bursts
of 10, as an event source with that batch size or a fan-out makes them. The documents give no mix:

    80 %  invoke          connect, check health, store a result, read the latest ones            writer
    10 %  cold start      connect, make the schema if it is not there, then the same             writer
    10 %  health check    connect, SELECT 1                                                      writer

The time of the connection is part of each request. Default rate: 20 invocations/s, 2 bursts a second.
Role: lab_probe. Works on any topology (it makes its table in schema lab), through a pooler or, with
``--pool router``, without; in transaction and session pooling.
"""

from __future__ import annotations

from loadtests.session import Session
from loadtests.user import PostgresUser, request

MAKE = """
CREATE TABLE IF NOT EXISTS lab.function_result (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject int NOT NULL, value int NOT NULL,
    stored timestamptz NOT NULL DEFAULT now());
CREATE INDEX IF NOT EXISTS function_result_subject ON lab.function_result (subject, id DESC)"""

STORE = """INSERT INTO lab.function_result (subject, value) VALUES (%s, %s)"""

LATEST = """SELECT value, stored FROM lab.function_result WHERE subject = %s ORDER BY id DESC LIMIT 10"""

HEALTH = "SELECT 1"
SUBJECTS = 1000


class Serverless(PostgresUser):
    """A place for one invocation at a time; it holds no connection between them."""

    rate = 20
    burst = 10
    user = "lab_probe"

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Make the table before many try to at once."""
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(hashtext('lab.function_result'))")
            for statement in MAKE.split(";"):
                db.execute(statement)

    @request("invoke", weight=80, fresh=True)
    def invoke(self, db: Session) -> None:
        """One invocation on a warm runtime."""
        self._work(db)

    @request("cold start", weight=10, fresh=True)
    def cold_start(self, db: Session) -> None:
        """One that checks its schema first."""
        for statement in MAKE.split(";"):
            db.execute(statement)
        self._work(db)

    @request("health check", weight=10, fresh=True)
    def health(self, db: Session) -> None:
        """The monitoring's function."""
        db.one(HEALTH)

    def _work(self, db: Session) -> None:
        db.one(HEALTH)
        subject = int(self.rng.random() * SUBJECTS)
        with db.transaction():
            db.execute(STORE, (subject, int(self.rng.random() * 1000)))
            db.rows(LATEST, (subject,))
