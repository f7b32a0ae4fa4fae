"""Where prices come from."""

from __future__ import annotations

from lab.topology.instances import ESTIMATED, LISTED, QUOTED, SERVERLESS, UNVERIFIED, price_source
from reports.capacity.cost import dated


def test_every_price_says_where_it_comes_from() -> None:
    assert price_source("db.r5.large") == LISTED
    assert price_source("db.r5.large", aurora=True) == UNVERIFIED
    assert price_source("db.t3.medium", aurora=True) == ESTIMATED
    assert price_source("db.m6i.large") == UNVERIFIED
    assert price_source(SERVERLESS) == QUOTED
    told = dated()
    assert LISTED in told
    assert "not verified: db.m6i.*" in told
    assert "db.t3.small" in told
    assert "db.r5.large" not in told
