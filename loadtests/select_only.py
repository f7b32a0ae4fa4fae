"""SELECT only, as ``pgbench -S`` runs it: one account's balance by its key, a reference point.

After the description of ``select-only`` in pgbench's documentation, on the tables of the workload ``tpcb``.

    100 %  SELECT    the balance of a random account                                             writer

Default rate: 500 requests/s. Role: lab_probe. Works on any topology and in every pool mode.
"""

from __future__ import annotations

from loadtests.session import Session
from loadtests.tpcb import ACCOUNTS, BALANCE, make_tables
from loadtests.user import PostgresUser, request


class SelectOnly(PostgresUser):
    """One reader."""

    transactions = False
    rate = 500
    user = "lab_probe"

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Make the tables."""
        make_tables(db)

    @request("SELECT", weight=100)
    def balance(self, db: Session) -> None:
        """One balance."""
        db.one(BALANCE, (1 + int(self.rng.random() * ACCOUNTS),))
