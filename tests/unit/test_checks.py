"""Every check: that it can fail, and that it says nothing where there is nothing to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.record.reader import RecordReader
from reports.analysis import Analysis, analyse
from reports.analysis.model import Latency, Pool, Reason, Usage
from reports.checks import checks, run_checks, units
from reports.findings import Finding
from tests.synthetic import make_record


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record(tmp_path_factory.mktemp("checks") / "run")


@pytest.fixture(scope="module")
def found(record: Path) -> Analysis:
    return analyse(record)


def again(found: Analysis, record: Path, metric: str, **changes: Any) -> Finding:
    changed = found.model_copy(update=changes)
    return next(f for f in run_checks(changed, RecordReader(record)) if f.metric == metric)


def test_every_check_yields_exactly_what_it_says(found: Analysis, record: Path) -> None:
    reader = RecordReader(record)
    assert len(checks()) >= 8
    for check in checks().values():
        yielded = check.run(found, reader)
        assert sorted(f.metric for f in yielded) == sorted(check.metrics), check.id
        assert all(f.unit == (units()[f.metric] or f.unit) for f in yielded), check.id
    empty = Analysis(run="x", manifest=found.manifest.model_copy(update={"fault": None}), duration_s=0)
    for check in checks().values():
        findings = check.run(empty, reader)
        assert sorted(f.metric for f in findings) == sorted(check.metrics), check.id
        for finding in findings:
            assert finding.unit == (units()[finding.metric] or finding.unit), finding
            assert finding.value is None, finding
            assert finding.status in ("not run", "inconclusive"), finding
            assert finding.why


def test_a_trial_that_is_invalid_is_left_out_and_named(found: Analysis, record: Path) -> None:
    one = found.trials[1].model_copy(update={"invalid": ("the probe slept",)})
    finding = again(found, record, "rto.write", trials=(found.trials[0], one, found.trials[2]))
    assert finding.samples == pytest.approx((20.1, 19.8))
    assert finding.detail["trials"] == 2
    assert "trial 2: the probe slept" in finding.why


def test_a_blurred_trial_still_counts_for_the_ledger(found: Analysis, record: Path) -> None:
    trials = tuple(t.model_copy(update={"invalid": ("the probe lagged",)}) for t in found.trials)
    assert again(found, record, "rto.write", trials=trials).status == "invalid"
    assert again(found, record, "ledger.phantom", trials=trials).value == 0
    assert again(found, record, "split_brain.seconds", trials=trials).value == 0
    trials = tuple(t.model_copy(update={"void": ("no fault",)}) for t in trials)
    assert again(found, record, "ledger.phantom", trials=trials).status == "invalid"
    assert again(found, record, "split_brain.seconds", trials=trials).status == "invalid"


def test_reasons_apply_to_their_metrics_only(found: Analysis, record: Path) -> None:
    reasons = (Reason(metrics=("rto",), why="clocks"),)
    assert again(found, record, "rto.write", reasons=reasons).status == "invalid"
    assert again(found, record, "rto.write.open_sessions", reasons=reasons).status == "invalid"
    assert again(found, record, "query.mean", reasons=reasons).status is None
    everything = (Reason(metrics=("*",), why="leader"),)
    assert again(found, record, "query.mean", reasons=everything).status == "invalid"


def pool(**fields: Any) -> Pool:
    base: dict[str, Any] = {"pooler": "p", "mode": "session", "limit": 50, "max_server_connections": 30}
    return Pool(
        **(base | {"assignments": 1000, "efficiency": 99.0, "utilisation": 10.0, "wait_ms": 1.0} | fields)
    )


def test_pools_the_worst_one_counts(found: Analysis, record: Path) -> None:
    pools = (pool(), pool(pooler="q", mode="statement", efficiency=40.0, utilisation=95.0))
    assert again(found, record, "pool.efficiency", pools=pools).value == 40
    assert again(found, record, "pool.utilisation", pools=pools).value == 95
    unused = (pool(), pool(pooler="q", assignments=0, efficiency=None, utilisation=0.0))
    assert again(found, record, "pool.efficiency", pools=unused).value == 99
    few = (pool(), pool(pooler="q", assignments=5, efficiency=None, why="only 5"))
    assert again(found, record, "pool.efficiency", pools=few).value == 99
    assert "q is left out: only 5" in again(found, record, "pool.efficiency", pools=few).why
    assert again(found, record, "pool.efficiency", pools=few[1:]).value is None
    assert again(found, record, "pool.efficiency", pools=few[1:]).status == "not run"
    untold = (pool(), pool(pooler="q", efficiency=None, why="no log"))
    assert again(found, record, "pool.efficiency", pools=untold).status == "inconclusive"


def test_pool_limits(found: Analysis, record: Path) -> None:
    metric = "pool.server_connections.session"
    assert again(found, record, metric, pools=(pool(max_server_connections=51),)).value == 51
    unused = pool(max_server_connections=1, assignments=0)
    assert again(found, record, metric, pools=(unused,)).status == "inconclusive"
    over = pool(max_server_connections=51, assignments=0)
    assert again(found, record, metric, pools=(over,)).status is None
    assert again(found, record, metric, pools=(pool(max_server_connections=None),)).status == "not run"
    assert again(found, record, metric, pools=()).status == "not run"


def load(found: Analysis, **fields: Any) -> Any:
    base: dict[str, Any] = {
        "name": "all",
        "endpoint": None,
        "count": 1000,
        "ok": 1000,
        "errors": 0,
        "dropped": 0,
    }
    response = {"mean": 140.0, "p50": 100.0, "p95": 300.0, "p99": None}
    steady = Latency(**(base | {"rate": 10.0, "response": response} | fields))
    return found.load.model_copy(update={"steady": steady})


def test_response_times(found: Analysis, record: Path) -> None:
    assert again(found, record, "query.mean", load=load(found)).value == 140
    assert again(found, record, "latency.p99", load=load(found)).status == "inconclusive"
    assert again(found, record, "query.mean", load=load(found, ok=50, count=50)).status == "inconclusive"
    failing = load(found, errors=20, dropped=0, ok=980)
    assert again(found, record, "query.mean", load=failing).status == "invalid"


def test_requests_that_failed(found: Analysis, record: Path) -> None:
    metric = "requests.failed"
    assert again(found, record, metric, load=load(found)).value == 0
    assert again(found, record, metric, load=load(found)).status is None
    assert again(found, record, metric, load=load(found, errors=2, dropped=3, ok=995)).value == 5
    few = load(found, count=99, ok=99)
    assert again(found, record, metric, load=few).status == "inconclusive"
    # One that failed is enough, however few there were.
    one = again(found, record, metric, load=load(found, count=99, ok=98, errors=1))
    assert (one.value, one.status) == (1, None)
    assert "of 99" in one.why
    nothing = found.load.model_copy(update={"steady": None})
    assert again(found, record, metric, load=nothing).status == "not run"


def test_cpu_of_the_busiest_database(found: Analysis, record: Path) -> None:
    def usage(share: float | None) -> tuple[Usage, ...]:
        return (
            Usage(node="pg1", cpu_cores=0.1, cpu_share=20.0),
            Usage(node="pg2", cpu_cores=0.7, cpu_share=share),
            Usage(node="client", cpu_cores=0.9, cpu_share=99.0),
        )

    assert again(found, record, "db.cpu", usage=usage(91.0)).value == 91
    assert again(found, record, "db.cpu", usage=usage(None)).status == "not run"
    assert again(found, record, "db.cpu", usage=()).status == "not run"


def test_tls_counts_a_login_without_it(found: Analysis, tmp_path: Path) -> None:
    assert found.finding("tls.poolers").value == 100  # type: ignore[union-attr]
    plain = make_record(tmp_path / "run", seconds=5)
    log = plain / "logs" / "pool-session.log"
    log.write_text(log.read_text().replace("tls=TLSv1.3/TLS_AES_256_GCM_SHA384", "tls=no", 10))
    finding = analyse(plain).finding("tls.poolers")
    assert finding is not None
    assert finding.value == pytest.approx(100 * 110 / 120)
    old = make_record(tmp_path / "old", seconds=5)
    log = old / "logs" / "pool-session.log"
    log.write_text(log.read_text().replace("tls=TLSv1.3/", "tls=TLSv1.1/"))
    assert analyse(old).finding("tls.poolers").value < 100  # type: ignore[union-attr,operator]
    for log in (old / "logs").glob("pool-*.log"):
        log.write_text("")
    assert analyse(old).finding("tls.poolers").status == "not run"  # type: ignore[union-attr]


def test_a_fault_that_was_healed_in_the_window_proves_no_automation(found: Analysis, record: Path) -> None:
    marks = tuple(
        mark.model_copy(update={"t_s": mark.t_s - 20}) if mark.kind == "heal-begin" else mark
        for mark in found.marks
    )
    assert again(found, record, "failover.automatic", marks=marks).status == "invalid"
    stuck = found.trials[0].write.model_copy(update={"state": "not recovered", "seconds": None})
    late = found.trials[0].model_copy(update={"write": stuck})
    trials = (late, *found.trials[1:])
    assert again(found, record, "failover.automatic", trials=trials).status == "inconclusive"
    trials = (late.model_copy(update={"new_primary": None}), *found.trials[1:])
    assert again(found, record, "failover.automatic", trials=trials).value == 0


def test_split_brain_that_is_proven_and_too_short_to_measure_is_not_zero(
    found: Analysis, record: Path
) -> None:
    seen = found.trials[0].split_brain.model_copy(update={"moments": 1, "possible_s": 0.1})
    trials = (found.trials[0].model_copy(update={"split_brain": seen}), *found.trials[1:])
    assert again(found, record, "split_brain.seconds", trials=trials).value == pytest.approx(0.1)
