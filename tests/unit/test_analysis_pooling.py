"""Pools from a pooler's counters and its log, against known answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lab.record.schema import NS
from reports.analysis.metrics import Metrics, Series
from reports.analysis.pooling import logs_connections, pools

LABEL = "risk/app_readwrite"


def counters(**growth: float) -> Metrics:
    """Counters of one pooler that grow evenly by so much in 10 s."""
    t = np.arange(0, 11, dtype=np.int64) * NS
    names = {**growth, "pgb_sv_total": 0.0}
    series = [Series("pool", name, LABEL, t, np.linspace(0, by, 11)) for name, by in names.items()]
    series.append(Series("pg1", "pg_sessions", None, t, np.linspace(0, 50, 11)))

    def find(metric: str, node: str | None = None) -> list[Series]:
        return [s for s in series if s.metric == metric and node in (None, s.node)]

    def nodes(metric: str) -> list[str]:
        return sorted({s.node for s in series if s.metric == metric})

    return cast(Metrics, SimpleNamespace(find=find, nodes=nodes))


def of(log: str, **growth: float) -> Any:
    topology = [{"name": "pool", "mode": "transaction", "max_server_connections": 2}]
    (found,) = pools(counters(**growth), {"pool": log}, topology, 0, (0, 10 * NS + 1))
    return found


def test_time_spent_waiting_for_a_server_is_no_use_of_the_pool() -> None:
    # Two connections for 10 s: 12 s of transactions under way, of which clients waited for 2 s.
    found = of("", pgb_xact_time=12, pgb_query_time=7, pgb_wait_time=2, pgb_assignment=1000)
    assert found.utilisation == pytest.approx(50)
    assert found.sql_share == pytest.approx(50)
    assert found.wait_ms == pytest.approx(2)


@pytest.mark.parametrize(
    ("mode", "writer", "reader", "share", "utilisation"),
    [
        # Ten connections, six for writers and four for readers; 10 s.
        ("transaction", 30.0, 4.0, 0.6, 50.0),
        ("transaction", 6.0, 36.0, 0.6, 90.0),
        ("transaction", 30.0, 20.0, None, 50.0),
        ("session", 3.0, 1.0, 0.6, 50.0),
        ("session", 1.0, 3.0, 0.6, 75.0),
    ],
)
def test_the_fuller_side_of_a_pool_counts(
    mode: str, writer: float, reader: float, share: float | None, utilisation: float
) -> None:
    t = np.arange(0, 11, dtype=np.int64) * NS

    def both(metric: str, of_writer: float, of_reader: float, flat: bool = False) -> list[Series]:
        return [
            Series("pool", metric, label, t, np.full(11, by) if flat else np.linspace(0, by, 11))
            for label, by in ((LABEL, of_writer), ("risk_ro/app_readonly", of_reader))
        ]

    series = [
        *both("pgb_xact_time", writer, reader),
        *both("pgb_sv_active", writer, reader, flat=True),
        *both("pgb_sv_total", 1.0, 1.0, flat=True),
        # PgBouncer's own console is no side of it.
        Series("pool", "pgb_xact_time", "pgbouncer", t, np.linspace(0, 1e6, 11)),
    ]

    def find(metric: str, node: str | None = None) -> list[Series]:
        return [s for s in series if s.metric == metric and node in (None, s.node)]

    metrics = cast(Metrics, SimpleNamespace(find=find, nodes=lambda _metric: ["pool"]))
    paper = {"name": "pool", "mode": mode, "max_server_connections": 10, "writer_share": share}
    (found,) = pools(metrics, {}, [paper], 0, (0, 10 * NS + 1))
    assert found.utilisation == pytest.approx(utilisation)


def test_a_pool_that_was_warm_before_the_run_made_no_new_connection() -> None:
    clients = "2026-11-21T15:09:48.9Z LOG C-0x1: risk/app@10.0.0.1:1 login attempt: db=risk user=app"
    assert logs_connections(clients)
    assert of(clients, pgb_assignment=1000).efficiency == pytest.approx(100)


def test_a_log_without_any_connection_tells_nothing() -> None:
    found = of("LOG process up", pgb_assignment=1000)
    assert found.efficiency is None
    assert "no connection at all" in found.why
