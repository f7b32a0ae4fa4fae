"""Analytics: reports that scan whole tables, on replicas only.

Models the Risk Management Platform's analytics service, which the document gives access to the read replicas
alone. A report is a session of its own: the tool connects, asks, and goes. The document gives no mix:

    40 %  GET /reports/volume          traded volume by month and class (scans every trade)      reader
    30 %  GET /reports/counterparties  open exposure by counterparty and rating (scans)          reader
    20 %  GET /reports/var             95 % value at risk of every portfolio over 30 days        reader
    10 %  GET /reports/limits          use of every limit with its breaches                      reader

Statements are led by a comment that names the service, so that pg_stat_statements of every node tells
whether one of them ever ran on the primary. Default rate: 4 reports/s. Role: app_readonly. Works in every
pool mode (single statements). Needs the schema set risk.
"""

from __future__ import annotations

from loadtests.risk_data import RiskData
from loadtests.session import Session
from loadtests.user import PostgresUser, request

VOLUME = """
SELECT date_trunc('month', t.traded_at), i.asset_class, count(*), sum(t.quantity * t.price)
FROM risk.trade t JOIN risk.instrument i USING (instrument_id)
WHERE t.status <> 'cancelled' GROUP BY 1, 2 ORDER BY 1, 2"""

COUNTERPARTIES = """
SELECT c.rating, c.country, c.name, count(*),
       sum(t.quantity * t.price * CASE t.side WHEN 'B' THEN 1 ELSE -1 END)
FROM risk.trade t JOIN risk.counterparty c USING (counterparty_id)
GROUP BY c.rating, c.country, c.name ORDER BY 5 DESC LIMIT 50"""

VALUE_AT_RISK = """
WITH move AS (
    SELECT instrument_id, day, close - lag(close) OVER (PARTITION BY instrument_id ORDER BY day) AS change
    FROM risk.price
), result AS (
    SELECT p.portfolio_id, m.day, sum(p.quantity * m.change) AS profit
    FROM risk.position p JOIN move m USING (instrument_id)
    WHERE m.change IS NOT NULL GROUP BY p.portfolio_id, m.day
)
SELECT portfolio_id, percentile_cont(0.05) WITHIN GROUP (ORDER BY profit) FROM result GROUP BY portfolio_id"""

LIMITS = """
SELECT l.limit_id, l.kind, l.used / l.amount, count(b.breach_id), max(b.breached_at)
FROM risk.risk_limit l LEFT JOIN risk.limit_breach b USING (limit_id) GROUP BY l.limit_id ORDER BY 3 DESC"""


class Analytics(RiskData, PostgresUser):
    """One reporting tool; its connections last for one report."""

    rate = 4
    transactions = False
    user = "app_readonly"
    interactive = False
    schema_set = "risk"

    @request("GET /reports/volume", weight=40, reads=True, fresh=True)
    def volume(self, db: Session) -> None:
        """Volume by month and class."""
        db.rows(VOLUME)

    @request("GET /reports/counterparties", weight=30, reads=True, fresh=True)
    def counterparty_report(self, db: Session) -> None:
        """Exposure by counterparty."""
        db.rows(COUNTERPARTIES)

    @request("GET /reports/var", weight=20, reads=True, fresh=True)
    def value_at_risk(self, db: Session) -> None:
        """Value at risk by historical simulation."""
        db.rows(VALUE_AT_RISK)

    @request("GET /reports/limits", weight=10, reads=True, fresh=True)
    def limit_report(self, db: Session) -> None:
        """Use of limits."""
        db.rows(LIMITS)
