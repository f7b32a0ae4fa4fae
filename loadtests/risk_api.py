"""Risk API: positions, limits and trades, as the Risk Management Platform's application uses them.

Models the traffic of about 20 application instances: traders and risk managers look at a portfolio's
positions, exposure, limits and recent trades all day, book trades, confirm them, and now and then
correct a position or move a limit. The document gives no mix; this one is four reads to one write, as
is usual for order and risk systems, and is the same for every portfolio (no hot spot):

    35 %  GET /portfolios/{id}/positions      a page of 25 positions with their instruments    writer
    20 %  GET /portfolios/{id}/limits         limits and how much of them is used (cached)     writer
    15 %  GET /portfolios/{id}/trades         the 20 latest trades                             writer
    10 %  GET /portfolios/{id}/exposure       positions at latest prices, by class (cached)    writer
    12 %  POST /trades                        one transaction: trade, position, limit, breach  writer
     4 %  PATCH /trades/{id}                  confirm the latest new trade of a portfolio      writer
     3 %  PUT /positions/{id}                 correct a quantity                               writer
     1 %  PUT /limits/{id}                    move a limit by up to 5 %                        writer

The document has the Risk API connect to the primary and to Redis, so its reads go there too: limits and
exposure are looked up in the cache first (cache-aside) and deleted from it by what changes them, after the
commit. Without a cache every request goes to the database.
Transactions are short (at most 4 statements) and lock in one order (position, then limit), so they
cannot deadlock each other. Default rate: 200 requests/s in all, 10 an instance.
Role: app_readwrite. Works in transaction and session pooling. Needs the schema set risk.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from loadtests.risk_data import RiskData
from loadtests.session import Session
from loadtests.user import PostgresUser, request

POSITIONS = """
SELECT p.instrument_id, i.isin, i.name, i.asset_class, p.quantity, p.average_price, p.updated_at
FROM risk.position p JOIN risk.instrument i USING (instrument_id)
WHERE p.portfolio_id = %s AND p.instrument_id > %s ORDER BY p.instrument_id LIMIT 25"""

LIMITS = """
SELECT limit_id, kind, currency, amount, used, updated_at FROM risk.risk_limit WHERE portfolio_id = %s"""

TRADES = """
SELECT trade_id, traded_at, instrument_id, counterparty_id, side, quantity, price, status
FROM risk.trade WHERE portfolio_id = %s ORDER BY traded_at DESC LIMIT 20"""

EXPOSURE = """
SELECT i.asset_class, i.currency, sum(p.quantity * latest.close), sum(abs(p.quantity) * latest.close)
FROM risk.position p
JOIN risk.instrument i USING (instrument_id)
CROSS JOIN LATERAL (
    SELECT close FROM risk.price WHERE instrument_id = p.instrument_id ORDER BY day DESC LIMIT 1
) AS latest
WHERE p.portfolio_id = %s GROUP BY i.asset_class, i.currency"""

BOOK = """
INSERT INTO risk.trade (portfolio_id, instrument_id, counterparty_id, side, quantity, price)
VALUES (%s, %s, %s, %s, %s, %s)"""

MOVE_POSITION = """
INSERT INTO risk.position (portfolio_id, instrument_id, quantity, average_price) VALUES (%s, %s, %s, %s)
ON CONFLICT (portfolio_id, instrument_id)
DO UPDATE SET quantity = position.quantity + excluded.quantity, updated_at = now()"""

USE_LIMIT = """
UPDATE risk.risk_limit SET used = greatest(0, used + %s), updated_at = now()
WHERE portfolio_id = %s AND kind = 'exposure' RETURNING limit_id, used, amount"""

BREACH = """INSERT INTO risk.limit_breach (limit_id, used, amount) VALUES (%s, %s, %s)"""

CONFIRM = """
UPDATE risk.trade SET status = 'confirmed'
WHERE traded_at > now() - interval '1 day' AND (trade_id, traded_at) IN (
    SELECT trade_id, traded_at FROM risk.trade
    WHERE portfolio_id = %s AND traded_at > now() - interval '1 day' AND status = 'new'
    ORDER BY traded_at DESC LIMIT 1 FOR UPDATE SKIP LOCKED)"""

CORRECT = """
UPDATE risk.position SET quantity = quantity + %s, updated_at = now()
WHERE portfolio_id = %s AND instrument_id = %s"""

MOVE_LIMIT = """
UPDATE risk.risk_limit SET amount = greatest(1, round(amount * %s, 2)), updated_at = now()
WHERE portfolio_id = %s AND kind = 'exposure'"""


def book_trade(db: Session, trade: tuple[Any, ...]) -> None:
    """Book a trade (as ``RiskData`` makes one): position and limit move with it, in one transaction."""
    portfolio, instrument, _, side, quantity, price = trade
    signed = quantity if side == "B" else -quantity
    with db.transaction():
        db.execute(BOOK, trade)
        db.execute(MOVE_POSITION, (portfolio, instrument, signed, price))
        used = db.one(USE_LIMIT, (signed * price, portfolio))
        if used is not None and used[1] > used[2]:
            db.execute(BREACH, used)


class RiskApi(RiskData, PostgresUser):
    """One application instance's connection pair, and the requests that come over it."""

    rate = 200
    schema_set = "risk"
    uses_cache = True

    @request("GET /portfolios/{id}/positions", weight=35)
    def positions(self, db: Session) -> None:
        """A page of positions."""
        db.rows(POSITIONS, (self._portfolio(), self._instrument()))

    @request("GET /portfolios/{id}/limits", weight=20)
    def limits(self, db: Session) -> None:
        """Limits and their use."""
        portfolio = self._portfolio()
        self.cached(f"limits:{portfolio}", lambda: db.rows(LIMITS, (portfolio,)))

    @request("GET /portfolios/{id}/trades", weight=15)
    def trades(self, db: Session) -> None:
        """The latest trades."""
        db.rows(TRADES, (self._portfolio(),))

    @request("GET /portfolios/{id}/exposure", weight=10)
    def exposure(self, db: Session) -> None:
        """Net and gross exposure by asset class and currency."""
        portfolio = self._portfolio()
        self.cached(f"exposure:{portfolio}", lambda: db.rows(EXPOSURE, (portfolio,)))

    @request("POST /trades", weight=12)
    def book(self, db: Session) -> None:
        """Book a trade: position and limit move with it, in one transaction."""
        trade = self._trade()
        book_trade(db, trade)
        self.forget(f"limits:{trade[0]}", f"exposure:{trade[0]}")

    @request("PATCH /trades/{id}", weight=4)
    def confirm(self, db: Session) -> None:
        """Confirm the latest new trade of a portfolio, if it has one."""
        db.execute(CONFIRM, (self._portfolio(),))

    @request("PUT /positions/{id}", weight=3)
    def correct(self, db: Session) -> None:
        """Correct the quantity of a position."""
        portfolio = self._portfolio()
        db.execute(CORRECT, (int(self.rng.uniform(-100, 100)), portfolio, self._instrument()))
        self.forget(f"exposure:{portfolio}")

    @request("PUT /limits/{id}", weight=1)
    def move_limit(self, db: Session) -> None:
        """Move a limit by up to 5 % either way."""
        portfolio = self._portfolio()
        db.execute(MOVE_LIMIT, (Decimal(950 + int(self.rng.random() * 101)).scaleb(-3), portfolio))
        self.forget(f"limits:{portfolio}")
