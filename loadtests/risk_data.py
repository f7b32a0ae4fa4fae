"""What the workloads on the risk schema share: how much data there is, and random choices from it."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any, ClassVar

from loadtests.session import Session

EXTENT = """
SELECT (SELECT max(portfolio_id) FROM risk.portfolio), (SELECT max(instrument_id) FROM risk.instrument),
       (SELECT max(counterparty_id) FROM risk.counterparty), (SELECT max(desk_id)::int FROM risk.desk)"""


class RiskData:
    """Ids go from 1 without gaps; all are equally likely (no hot spot)."""

    rng: random.Random
    schema_set = "risk"
    portfolios: ClassVar[int] = 1
    instruments: ClassVar[int] = 1
    counterparties: ClassVar[int] = 1
    desks: ClassVar[int] = 1

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Find out how much data there is. RuntimeError where there is none."""
        row = db.one(EXTENT)
        if row is None or None in row:
            raise RuntimeError("the schema risk holds no data")
        cls.portfolios, cls.instruments, cls.counterparties, cls.desks = row

    def _portfolio(self) -> int:
        return int(self.rng.random() * self.portfolios) + 1

    def _instrument(self) -> int:
        return int(self.rng.random() * self.instruments) + 1

    def _counterparty(self) -> int:
        return int(self.rng.random() * self.counterparties) + 1

    def _desk(self) -> int:
        return int(self.rng.random() * self.desks) + 1

    def _price(self) -> Decimal:
        return Decimal(5 * 10_000 + int(self.rng.random() * 1_950_000)).scaleb(-4)

    def _trade(self) -> tuple[Any, ...]:
        """portfolio, instrument, counterparty, side, quantity, price"""
        quantity = 1 + int(self.rng.random() * 1000)
        side = "B" if self.rng.random() < 0.5 else "S"
        return self._portfolio(), self._instrument(), self._counterparty(), side, quantity, self._price()
