"""Web application: dashboards and look-ups, read from replicas behind a cache.

Models the Risk Management Platform's web application, which the document has read from the replicas and the
cache. Each request first looks up the visitor's session in Redis (and logs in where it has none); 200
visitors share the load. The document gives no mix; this one has a few pages that everybody opens (desks: 8
keys) and many that few do (instruments: 500 keys):

    30 %  GET /desks/{id}                 a desk's exposure by class and currency (cached)       reader
    25 %  GET /portfolios/{id}            a portfolio's positions, summed up (cached)            reader
    20 %  GET /instruments/{id}           an instrument with its latest prices (cached)          reader
    15 %  GET /portfolios/{id}/trades (web)  the 20 latest trades                                reader
    10 %  GET /breaches                   the latest breaches of limits                          reader

What is cached is looked up in Redis first and put there with the topology's TTL (5 minutes, divided by the
load's ``clock``) after it was read from a replica (cache-aside); nothing deletes it, so that a page may be
as old as the TTL. Default rate: 150 requests/s. Role: app_readonly. Works in every pool mode (single
statements). Needs the schema set risk.
"""

from __future__ import annotations

from loadtests.risk_data import RiskData
from loadtests.session import Session
from loadtests.user import PostgresUser, request

VISITORS = 200
SESSION_S = 86_400.0
"""Sessions live for 24 hours, divided by the load's ``clock``."""

DESK = """
SELECT i.asset_class, i.currency, count(*),
       sum(p.quantity * latest.close), sum(abs(p.quantity) * latest.close)
FROM risk.portfolio o
JOIN risk.position p USING (portfolio_id)
JOIN risk.instrument i USING (instrument_id)
CROSS JOIN LATERAL (
    SELECT close FROM risk.price WHERE instrument_id = p.instrument_id ORDER BY day DESC LIMIT 1
) AS latest
WHERE o.desk_id = %s GROUP BY i.asset_class, i.currency ORDER BY 1, 2"""

PORTFOLIO = """
SELECT o.name, o.base_currency, count(*), sum(p.quantity * p.average_price), max(p.updated_at)
FROM risk.portfolio o JOIN risk.position p USING (portfolio_id)
WHERE o.portfolio_id = %s GROUP BY o.name, o.base_currency"""

INSTRUMENT = """
SELECT i.isin, i.name, i.asset_class, p.day, p.close, p.volatility
FROM risk.instrument i JOIN risk.price p USING (instrument_id)
WHERE i.instrument_id = %s ORDER BY p.day DESC LIMIT 10"""

TRADES = """
SELECT t.trade_id, t.traded_at, i.isin, t.side, t.quantity, t.price, t.status
FROM risk.trade t JOIN risk.instrument i USING (instrument_id)
WHERE t.portfolio_id = %s ORDER BY t.traded_at DESC LIMIT 20"""

BREACHES = """
SELECT b.breached_at, l.kind, l.portfolio_id, b.used, b.amount
FROM risk.limit_breach b JOIN risk.risk_limit l USING (limit_id) ORDER BY b.breach_id DESC LIMIT 20"""


class Web(RiskData, PostgresUser):
    """One application server: visitors come by turns."""

    rate = 150
    transactions = False
    user = "app_readonly"
    schema_set = "risk"
    uses_cache = True

    def _visitor(self) -> None:
        """The session of whoever asks: looked up, or begun."""
        if self.cache is None:
            return
        key = f"session:{int(self.rng.random() * VISITORS)}"
        lives_s = SESSION_S / self.runtime.clock
        if not self.cache.session(key, lives_s):
            self.cache.log_in(key, "visitor", lives_s)

    @request("GET /desks/{id}", weight=30, reads=True)
    def desk(self, db: Session) -> None:
        """A desk's dashboard."""
        self._visitor()
        desk = self._desk()
        self.cached(f"desk:{desk}", lambda: db.rows(DESK, (desk,)))

    @request("GET /portfolios/{id}", weight=25, reads=True)
    def portfolio(self, db: Session) -> None:
        """A portfolio at a glance."""
        self._visitor()
        portfolio = self._portfolio()
        self.cached(f"portfolio:{portfolio}", lambda: db.rows(PORTFOLIO, (portfolio,)))

    @request("GET /instruments/{id}", weight=20, reads=True)
    def instrument(self, db: Session) -> None:
        """An instrument and its prices."""
        self._visitor()
        instrument = self._instrument()
        self.cached(f"instrument:{instrument}", lambda: db.rows(INSTRUMENT, (instrument,)))

    @request("GET /portfolios/{id}/trades (web)", weight=15, reads=True)
    def web_trades(self, db: Session) -> None:
        """The latest trades."""
        self._visitor()
        db.rows(TRADES, (self._portfolio(),))

    @request("GET /breaches", weight=10, reads=True)
    def breaches(self, db: Session) -> None:
        """The latest breaches."""
        self._visitor()
        db.rows(BREACHES)
