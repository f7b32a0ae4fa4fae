"""Batch jobs: bulk writes straight to the primary, past the poolers.

Models the Risk Management Platform's batch jobs, which the document connects to the primary directly: here
through the router's write port, which follows the primary. Each job opens a connection and closes it. The
document gives no mix; these are the usual feeds of a risk system:

    45 %  POST /imports/trades    100 trades of the day, by COPY                                 direct
    25 %  POST /imports/prices    corrected closes of 100 instruments, one multi-row upsert      direct
    15 %  POST /settlements       up to 400 open trades become settled                           direct
    15 %  POST /archive           the oldest trades beyond 1,000 a portfolio leave               direct

Nothing grows without bound: closes are corrected for days that are there, and the archive takes what is more
than was generated. Else reports that scan would cost the more the longer a load has run, and two rates of one
run could not be compared. Jobs lock rows in the order of their keys, or skip locked ones, so that they cannot
deadlock each other. Default rate: 2 jobs/s (about 90 new trades a second). Role: app_readwrite. Needs the
schema set risk.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from loadtests.risk_data import RiskData
from loadtests.session import Session
from loadtests.user import PostgresUser, request

ROWS = 100
LAST_DAY = date(2025, 12, 31)
DAYS = 30
"""Closes are corrected for the last days of the generated history."""
KEPT = 1000
"""Trades a portfolio that the archive leaves: as many as are generated."""

IMPORT_TRADES = """
COPY risk.trade (portfolio_id, instrument_id, counterparty_id, side, quantity, price, traded_at) FROM STDIN"""

IMPORT_PRICES = """
INSERT INTO risk.price (instrument_id, day, close, volatility)
SELECT instrument, %s::date, close, 0.2 FROM unnest(%s::int[], %s::numeric[]) AS t (instrument, close)
ON CONFLICT (instrument_id, day) DO UPDATE SET close = excluded.close"""

SETTLE = """
UPDATE risk.trade SET status = 'settled'
WHERE (trade_id, traded_at) IN (
    SELECT trade_id, traded_at FROM risk.trade WHERE status IN ('new', 'confirmed')
    ORDER BY traded_at LIMIT 400 FOR UPDATE SKIP LOCKED)"""

ARCHIVE = """
DELETE FROM risk.trade WHERE (trade_id, traded_at) IN (
    SELECT trade_id, traded_at FROM risk.trade ORDER BY trade_id
    LIMIT greatest(0, least(1000, (SELECT count(*) FROM risk.trade) - %s)) FOR UPDATE SKIP LOCKED)"""


class Batch(RiskData, PostgresUser):
    """One scheduler of jobs."""

    rate = 2
    interactive = False
    schema_set = "risk"

    @request("POST /imports/trades", weight=45, route="direct", fresh=True)
    def import_trades(self, db: Session) -> None:
        """A file of trades."""
        now = datetime.now(UTC)
        db.copy(IMPORT_TRADES, [(*self._trade(), now) for _ in range(ROWS)])

    @request("POST /imports/prices", weight=25, route="direct", fresh=True)
    def import_prices(self, db: Session) -> None:
        """Corrected closing prices."""
        day = LAST_DAY - timedelta(days=int(self.rng.random() * DAYS))
        first = int(self.rng.random() * max(1, self.instruments - ROWS)) + 1
        instruments = list(range(first, min(first + ROWS, self.instruments + 1)))
        db.execute(IMPORT_PRICES, (day, instruments, [self._price() for _ in instruments]))

    @request("POST /settlements", weight=15, route="direct", fresh=True)
    def settle(self, db: Session) -> None:
        """Settle what is open."""
        db.execute(SETTLE)

    @request("POST /archive", weight=15, route="direct", fresh=True)
    def archive(self, db: Session) -> None:
        """Take the oldest trades out."""
        db.execute(ARCHIVE, (KEPT * self.portfolios,))
