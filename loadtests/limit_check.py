"""Limit check: the limits of one portfolio and how much of them is used, in one statement on its own.

Models the check that the Risk API makes before a trade, and the smallest unit by which pool modes can be
compared: one indexed read that commits by itself, which statement pooling can run as well. It says nothing
about transactions of several statements (``trade-booking``).

    100 %  GET /portfolios/{id}/limits    the limits of a portfolio at random    writer

Default rate: 500 requests/s. Role: app_readwrite.
"""

from __future__ import annotations

from loadtests.risk_api import LIMITS
from loadtests.risk_data import RiskData
from loadtests.session import Session
from loadtests.user import PostgresUser, request


class LimitCheck(RiskData, PostgresUser):
    """One statement a request."""

    transactions = False
    rate = 500

    @request("GET /portfolios/{id}/limits")
    def limits(self, db: Session) -> None:
        """The limits of a portfolio."""
        db.rows(LIMITS, (self._portfolio(),))
