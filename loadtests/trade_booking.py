"""Trade booking: one explicit transaction of three to four statements, as the Risk API books a trade.

Models the writing part of ``risk-api`` alone, to compare what pool modes cost where a transaction has several
round trips. Statement pooling cannot run it.

    100 %  POST /trades    trade, position, limit and, where it is exceeded, its breach    writer

Default rate: 100 requests/s. Role: app_readwrite.
"""

from __future__ import annotations

from loadtests.risk_api import book_trade
from loadtests.risk_data import RiskData
from loadtests.session import Session
from loadtests.user import PostgresUser, request


class TradeBooking(RiskData, PostgresUser):
    """One transaction a request."""

    rate = 100

    @request("POST /trades")
    def book(self, db: Session) -> None:
        """Book a trade of a portfolio and an instrument at random."""
        book_trade(db, self._trade())
