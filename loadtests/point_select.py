"""Point SELECT: one row by its primary key, nothing else.

The cheapest request there is, for measuring the load generator itself (``make bench``). It makes no
claim about any application. Needs a table ``lab.point (id int primary key, v int)``, ids from 1 without gaps.
"""

from __future__ import annotations

from typing import ClassVar

from loadtests.session import Session
from loadtests.user import PostgresUser, request


class PointSelect(PostgresUser):
    """One statement a request."""

    transactions = False
    rate = 1000
    rows: ClassVar[int] = 1

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Find out how many rows there are."""
        found = db.one("SELECT max(id) FROM lab.point")
        cls.rows = int(found[0]) if found and found[0] else 1

    @request("point SELECT")
    def point(self, db: Session) -> None:
        """One row by its key."""
        db.one("SELECT v FROM lab.point WHERE id = %s", (int(self.rng.random() * self.rows) + 1,))
