"""TPC-B, as pgbench runs it by default: a reference point that everybody knows.

One transaction of five statements that moves money in an account, its teller and its branch and notes it in
a history, after the description of ``tpcb-like`` in pgbench's documentation. It makes no claim about any
application. Its tables are in schema ``lab``: 100,000 accounts, 20 branches and 200 tellers, so more branches
than pgbench has for that many accounts (scale 1: one branch, on which all clients would queue).

    100 %  TPC-B    three updates, one select, one insert                                        writer

Default rate: 100 transactions/s. Role: lab_probe. Works on any topology, in transaction and session pooling.
"""

from __future__ import annotations

from loadtests.session import Session
from loadtests.user import PostgresUser, request

BRANCHES, TELLERS, ACCOUNTS = 20, 200, 100_000

MAKE = f"""
SELECT pg_advisory_xact_lock(hashtext('lab.tpcb'));
CREATE TABLE IF NOT EXISTS lab.tpcb_branch (
    bid int PRIMARY KEY, bbalance int NOT NULL) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS lab.tpcb_teller (
    tid int PRIMARY KEY, bid int NOT NULL, tbalance int NOT NULL) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS lab.tpcb_account (
    aid int PRIMARY KEY, bid int NOT NULL, abalance int NOT NULL, filler char(84)) WITH (fillfactor = 90);
CREATE TABLE IF NOT EXISTS lab.tpcb_history (
    tid int, bid int, aid int, delta int, mtime timestamptz, filler char(22));
INSERT INTO lab.tpcb_branch SELECT i, 0 FROM generate_series(1, {BRANCHES}) AS i ON CONFLICT DO NOTHING;
INSERT INTO lab.tpcb_teller SELECT i, 1 + (i - 1) % {BRANCHES}, 0 FROM generate_series(1, {TELLERS}) AS i
ON CONFLICT DO NOTHING;
INSERT INTO lab.tpcb_account SELECT i, 1 + (i - 1) % {BRANCHES}, 0, ''
FROM generate_series(1, {ACCOUNTS}) AS i WHERE NOT EXISTS (SELECT FROM lab.tpcb_account)"""

ACCOUNT = """UPDATE lab.tpcb_account SET abalance = abalance + %s WHERE aid = %s"""
BALANCE = """SELECT abalance FROM lab.tpcb_account WHERE aid = %s"""
TELLER = """UPDATE lab.tpcb_teller SET tbalance = tbalance + %s WHERE tid = %s"""
BRANCH = """UPDATE lab.tpcb_branch SET bbalance = bbalance + %s WHERE bid = %s"""
HISTORY = """INSERT INTO lab.tpcb_history (tid, bid, aid, delta, mtime) VALUES (%s, %s, %s, %s, now())"""


def make_tables(db: Session) -> None:
    """Make the tables where there are none: one transaction, under a lock, since every worker calls it."""
    with db.transaction():
        for statement in MAKE.split(";"):
            db.execute(statement)


class Tpcb(PostgresUser):
    """One bank clerk."""

    rate = 100
    user = "lab_probe"

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Make the tables."""
        make_tables(db)

    @request("TPC-B", weight=100)
    def tpcb(self, db: Session) -> None:
        """One transaction."""
        random = self.rng.random
        account, teller = 1 + int(random() * ACCOUNTS), 1 + int(random() * TELLERS)
        branch, delta = 1 + int(random() * BRANCHES), int(random() * 10_001) - 5000
        with db.transaction():
            db.execute(ACCOUNT, (delta, account))
            db.one(BALANCE, (account,))
            db.execute(TELLER, (delta, teller))
            db.execute(BRANCH, (delta, branch))
            db.execute(HISTORY, (teller, branch, account, delta))
