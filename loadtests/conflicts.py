"""Conflicts: long reports on replicas against rows that the primary updates and vacuums all the time.

Makes the conflict between a replica's queries and its replay happen often enough to be measured: PostgreSQL's
documentation, *Handling Query Conflicts*. A report holds its snapshot for 3 s (``pg_sleep`` beside a scan, so
that it costs no CPU); meanwhile the primary updates the rows that it reads, and vacuum removes their old
versions. Replay of that removal waits for the report up to ``max_standby_streaming_delay``, and then cancels
it (outcome 40001). It makes no claim about any application:

    90 %  PUT /rows/{id}      update a row                                                       writer
     5 %  VACUUM              remove old row versions                                            writer
     5 %  GET /report         a report that takes 3 s                                            reader

Default rate: 60 requests/s. Role: lab_probe. Works on any topology (it makes its table in schema lab), in
every pool mode.
"""

from __future__ import annotations

from loadtests.session import Session
from loadtests.user import PostgresUser, request

ROWS = 2_000
REPORT_S = 3.0

MAKE = f"""
SELECT pg_advisory_xact_lock(hashtext('lab.conflict'));
CREATE TABLE IF NOT EXISTS lab.conflict (id int PRIMARY KEY, v int NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO lab.conflict SELECT i, 0 FROM generate_series(1, {ROWS}) AS i ON CONFLICT DO NOTHING"""

UPDATE = """UPDATE lab.conflict SET v = v + 1 WHERE id = %s"""
REPORT = """SELECT count(*), sum(v) FROM lab.conflict, (SELECT pg_sleep(%s)) AS slow"""


class Conflicts(PostgresUser):
    """One client."""

    rate = 60
    user = "lab_probe"
    transactions = False

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Make the table, under a lock, since every worker calls it."""
        with db.transaction():
            for statement in MAKE.split(";"):
                db.execute(statement)

    @request("PUT /rows/{id}", weight=90)
    def update(self, db: Session) -> None:
        """Update one row."""
        db.execute(UPDATE, (1 + int(self.rng.random() * ROWS),))

    @request("VACUUM", weight=5)
    def vacuum(self, db: Session) -> None:
        """Remove old versions of rows; alone, since two would wait for each other."""
        db.execute("VACUUM (SKIP_LOCKED) lab.conflict")

    @request("GET /report", weight=5, reads=True)
    def report(self, db: Session) -> None:
        """Read everything, slowly."""
        db.one(REPORT, (REPORT_S,))
