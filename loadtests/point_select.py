"""Point SELECT: one row by its primary key, nothing else.

The cheapest request there is, for measuring the load generator itself (``make bench``). It makes no
claim about any application. Makes table ``lab.point (id int primary key, v int)``, ids from 1 without gaps,
where there is none. Default rate: 1,000 requests/s. Role: lab_probe (it owns the schema lab).
"""

from __future__ import annotations

from typing import ClassVar

from loadtests.session import Session
from loadtests.user import PostgresUser, request

MAKE = """
SELECT pg_advisory_xact_lock(hashtext('lab.point'));
CREATE TABLE IF NOT EXISTS lab.point (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO lab.point SELECT i, i FROM generate_series(1, 10000) AS i
WHERE NOT EXISTS (SELECT FROM lab.point)"""


class PointSelect(PostgresUser):
    """One statement a request."""

    transactions = False
    rate = 1000
    user = "lab_probe"
    rows: ClassVar[int] = 1

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Make the table where there is none, and find out how many rows there are."""
        table = db.one("SELECT to_regclass('lab.point')::text")
        if table is None or table[0] is None:
            with db.transaction():
                for statement in MAKE.split(";"):
                    db.execute(statement)
        found = db.one("SELECT max(id) FROM lab.point")
        cls.rows = int(found[0]) if found and found[0] else 1

    @request("point SELECT")
    def point(self, db: Session) -> None:
        """One row by its key."""
        db.one("SELECT v FROM lab.point WHERE id = %s", (int(self.rng.random() * self.rows) + 1,))
