"""Bank: concurrent transfers between accounts, and readers that add all accounts up.

The invariant of every transfer is that the sum of all balances stays what it was. It breaks where a
transaction is applied in part, where a reader is shown half of one, and where a node holds something else
than the others. Makes its tables in schema ``lab`` at its start, so that it runs on any topology.

    80 %  POST /transfers      one transaction: two accounts locked in order, one down, one up   writer
    10 %  GET /total           the sum of all balances                                           writer
    10 %  GET /total (reader)  the same, where replicas serve reads                              reader

A sum that is not the promised one makes its request fail as ``client:WrongTotal``; the check ``bank.total``
counts those, and the sums that the audit found on every node. Default rate: 100
requests/s. Role: lab_probe (it owns the schema lab).
"""

from __future__ import annotations

from loadtests.session import Session
from loadtests.user import PostgresUser, request

ACCOUNTS = 100
OPENING = 1_000
TOTAL = ACCOUNTS * OPENING

MAKE = f"""
SELECT pg_advisory_xact_lock(hashtext('bank'));
CREATE TABLE IF NOT EXISTS lab.bank_account (
    id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
CREATE TABLE IF NOT EXISTS lab.bank_promise (total bigint NOT NULL);
INSERT INTO lab.bank_account SELECT i, {OPENING} FROM generate_series(1, {ACCOUNTS}) AS i
ON CONFLICT DO NOTHING;
INSERT INTO lab.bank_promise SELECT {TOTAL} WHERE NOT EXISTS (SELECT FROM lab.bank_promise);
UPDATE lab.bank_account SET balance = {OPENING}
WHERE {TOTAL} <> (SELECT sum(balance) FROM lab.bank_account)"""
"""One transaction, under a lock, since every worker runs it. A total that an earlier run broke is put right,
so that it is not held against this one."""

LOCK = """
SELECT id, balance FROM lab.bank_account WHERE id IN (%s, %s) ORDER BY id FOR UPDATE"""

MOVE = """
UPDATE lab.bank_account SET balance = balance + %s WHERE id = %s"""

SUM = """
SELECT sum(balance)::bigint, count(*) FROM lab.bank_account"""


class WrongTotal(Exception):
    """The balances do not add up to what was paid in."""


class Bank(PostgresUser):
    """One client that moves money and one that counts it."""

    rate = 100
    user = "lab_probe"

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Make the accounts where there are none."""
        with db.transaction():
            for statement in MAKE.split(";"):
                db.execute(statement)

    @request("POST /transfers", weight=8)
    def transfer(self, db: Session) -> None:
        """Move up to 10 from one account to another, if it is there."""
        giver = 1 + int(self.rng.random() * ACCOUNTS)
        taker = 1 + (giver + int(self.rng.random() * (ACCOUNTS - 1))) % ACCOUNTS
        amount = 1 + int(self.rng.random() * 10)
        with db.transaction():
            balances: dict[int, int] = dict(db.rows(LOCK, (giver, taker)))
            if balances[giver] >= amount:
                db.execute(MOVE, (-amount, giver))
                db.execute(MOVE, (amount, taker))

    @request("GET /total", weight=1)
    def total(self, db: Session) -> None:
        """Add up every account at the writer."""
        check_total(db.one(SUM))

    @request("GET /total (reader)", weight=1, reads=True)
    def total_of_reader(self, db: Session) -> None:
        """Add up every account where replicas serve reads."""
        check_total(db.one(SUM))


def check_total(row: tuple[object, ...] | None) -> None:
    """WrongTotal where (sum, accounts) is not what was paid in."""
    if row is None or tuple(row) != (TOTAL, ACCOUNTS):
        raise WrongTotal(f"(sum, accounts) is {row}, should be {(TOTAL, ACCOUNTS)}")
