"""The mixed load on a real lab: reads on replicas, no analytics on the primary, a cache that answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lab.ceiling import measure
from lab.deploy.docker_driver import DockerLab
from lab.load import LoadSpec
from lab.record.reader import RecordReader
from lab.scenario.loader import load_scenario
from lab.scenario.runner import run_scenario
from reports.analysis import analyse
from reports.pipeline import analyse_and_report


def test_the_mixed_load_goes_where_it_belongs(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    ceiling = measure(lab_risk_prod, LoadSpec(workload="mixed", seed=5), seconds=3)
    assert ceiling.reached_per_s > 0
    assert 0 < ceiling.cpu_ms_per_request < 100
    story = load_scenario("latency", ["settle=15", "load.rate=40"])
    done = run_scenario(
        lab_risk_prod,
        story,
        seed=5,
        runs_dir=tmp_path,
        files={"generator.json": json.dumps(asdict(ceiling))},
    )
    found = analyse(done.path)
    told = {finding.metric: finding for finding in found.findings}
    share, analytics = told["reads.replica_share"], told["analytics.on_primary"]
    assert share.value == 100, share
    assert set(share.detail["nodes"]) == {"pg3", "pg4"}
    assert analytics.value == 0, analytics
    assert sum(analytics.detail["calls"].values()) > 0
    assert found.little is not None
    # A machine that was too busy for the law to hold voids its figures, and says so.
    assert found.little.holds or any("Little" in reason.why for reason in found.reasons), found.little
    hits = {row.name: row.ok for row in found.load.by_name if (row.endpoint or "").endswith(".redis")}
    assert hits["redis GET hit"] > 0
    assert hits["redis GETEX session"] > 0
    endpoints = {row.endpoint for row in found.load.by_name}
    assert {
        "pool-transaction.writer",
        "pool-session.reader",
        "pool-statement.reader",
        "router.write",
    } <= endpoints
    assert found.load.all is not None
    assert found.load.all.errors < 0.02 * found.load.all.count, found.load.errors
    # A run shorter than the TTL shows nothing of it.
    assert told["cache.ttl"].status == "inconclusive"
    assert told["load.ceiling"].value is not None
    assert told["alarm.latency"].value is not None
    document = (analyse_and_report(done.path, quiet=True).paths["html"]).read_text(encoding="utf-8")
    assert "Where statements ran" in document
    assert RecordReader(done.path).manifest.load["cache_ttl_s"] == 300  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("coalesce", [False, True])
def test_entries_run_out_on_a_scaled_clock(
    lab_risk_prod: DockerLab, tmp_path: Path, *, coalesce: bool
) -> None:
    asked = ["settle=15", f"load.coalesce={str(coalesce).lower()}"]
    done = run_scenario(lab_risk_prod, load_scenario("cache-stampede", asked), seed=6, runs_dir=tmp_path)
    told = {finding.metric: finding for finding in analyse(done.path).findings}
    ttl = told["cache.ttl"]
    # 5 s for the document's 300 s; some entry is asked for shortly before it runs out.
    assert ttl.detail["expiries"] > 50
    assert ttl.value is not None
    assert 240 < ttl.value <= 300, ttl
    stampede = told["cache.stampede"]
    assert stampede.value is not None
    assert stampede.value == 1 or not coalesce, stampede
