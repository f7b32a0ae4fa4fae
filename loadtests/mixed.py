"""Mixed load: everything that the Risk Management Platform's 20 application instances do at once.

The document names four services and 20 instances, and not how many instances each service has. Assumed here:
8 Risk API, 9 web, 2 analytics, 1 batch, and requests in these parts:

    40 %  risk-api     transaction pool, writer, and Redis (lasting clients)
    48 %  web          statement pool, reader, and Redis (lasting clients)
     2 %  analytics    session pool, reader: a connection for each report
     1 %  batch        past the poolers, to the primary: a connection for each job
     9 %  mixed        clients that come and go: a connection for each request

The pools are those that the document describes: transaction for short transactions, session for applications
that need a session, statement for high throughput. A pooler that the topology lacks is stood in for by the
one that the load is pointed at. Lasting clients alone would find a server connection open whatever the pool
does; those that come and go are what a pool's efficiency is about. Their own requests:

    50 %  POST /trades (one-off)       a script books a trade                                    writer
    50 %  GET /positions (one-off)     a spreadsheet asks for a portfolio's positions            reader

Default rate: 40 requests/s, which a machine of two cores carries beside the whole lab, with the generator at
a twentieth of its ceiling; at 80 one that does anything else lags, and the run is invalid. Roles:
app_readwrite to the writer, app_readonly to the reader. Needs the schema set risk.
"""

from __future__ import annotations

from typing import ClassVar

from loadtests.analytics import Analytics
from loadtests.batch import Batch
from loadtests.risk_api import BOOK, MOVE_POSITION, POSITIONS, RiskApi
from loadtests.session import Session
from loadtests.user import PostgresUser, request
from loadtests.web import Web


class Mixed(RiskApi, Web, Analytics, Batch, PostgresUser):
    """One application instance, which does what any of the services does."""

    rate = 40
    transactions = True
    user = "app_readwrite"
    roles: ClassVar = {
        "reader": "app_readonly",
        "session.reader": "app_readonly",
        "statement.reader": "app_readonly",
    }
    schema_set = "risk"
    uses_cache = True
    shares: ClassVar = {"risk-api": 40, "web": 48, "analytics": 2, "batch": 1, "mixed": 9}
    via: ClassVar = {"web": "statement", "analytics": "session"}

    @request("POST /trades (one-off)", weight=50, fresh=True)
    def one_off_trade(self, db: Session) -> None:
        """A short-lived client books a trade."""
        trade = self._trade()
        portfolio, instrument, _, side, quantity, price = trade
        with db.transaction():
            db.execute(BOOK, trade)
            db.execute(MOVE_POSITION, (portfolio, instrument, quantity if side == "B" else -quantity, price))

    @request("GET /positions (one-off)", weight=50, route="session.reader", fresh=True)
    def one_off_positions(self, db: Session) -> None:
        """A short-lived client reads."""
        db.rows(POSITIONS, (self._portfolio(), self._instrument()))
