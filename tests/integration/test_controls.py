"""Negative controls on a real lab: what must come out *not met*, does; what must be refused, is."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.readiness import wait_ready
from lab.deploy.up import up
from lab.record.reader import RecordReader
from lab.scenario.loader import load_scenario
from lab.scenario.runner import run_scenario
from lab.topology.loader import load_topology
from reports.analysis import Analysis, analyse
from reports.judge import judge
from reports.targets import targets_of
from tests.integration.conftest import Silent

ATTEMPTS = 3

SSL_REQUEST = struct.pack("!II", 8, 80877103)
"""PostgreSQL's request to go on with TLS."""


def measured(lab: DockerLab, scenario: str, settings: list[str], runs: Path) -> Analysis:
    """A run that may be judged; one that is *invalid*, as on a machine that was busy, is measured again."""
    why: list[str] = []
    for attempt in range(ATTEMPTS):
        wait_ready(lab)
        done = run_scenario(lab, load_scenario(scenario, settings), seed=5 + attempt, runs_dir=runs)
        analysis = analyse(done.path)
        wrong = [reason.why for reason in analysis.reasons if reason.status == "invalid"]
        wrong += [text for trial in analysis.trials for text in trial.invalid]
        if not wrong:
            return analysis
        why.append("; ".join(wrong))
    pytest.fail(f"{scenario} was invalid {ATTEMPTS} times: " + " | ".join(why))


def test_a_limit_that_a_failover_cannot_keep_is_not_met(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    analysis = measured(lab_risk_prod, "kill-primary", ["settle=8", "trials=1"], tmp_path / "runs")
    (trial,) = analysis.trials
    assert trial.verified
    assert trial.new_primary not in (None, trial.target)
    assert trial.ledger.lost == trial.ledger.phantom == trial.ledger.duplicate == 0
    # A busy machine may be later than predicted, and never earlier: the leader key has to expire.
    assert trial.write.seconds is not None
    assert analysis.predicted["best"] - 1 < trial.write.seconds < analysis.predicted["worst"] + 10
    target = next(target for target in targets_of("risk") if target.id == "R16.rto-write")
    assert judge(analysis, target.model_copy(update={"limit": 5})).status == "not met"
    # One trial within the limit is no proof of anything.
    assert judge(analysis, target).status == "inconclusive"


@pytest.fixture
def short_lived(state_dir: Path) -> Iterator[DockerLab]:
    """A lab whose session pool throws its server connections away after a second."""
    assert state_dir
    name = f"it-{os.getpid()}-short"
    settings = ["server_lifetime=1", "max_server_connections=120"]
    topology = load_topology("risk-prod", [f"poolers.pool-session.{setting}" for setting in settings])
    try:
        yield up(name, topology, Silent(), timeout_s=300).lab
    finally:
        down(name)


def test_connections_that_live_for_a_second_fail_the_efficiency(
    short_lived: DockerLab, tmp_path: Path
) -> None:
    # Sessions that come and go meet a server connection that is often new: about 1 in 10 for writes, 1 in
    # 5 for reads, at the probes' rates.
    analysis = measured(short_lived, "steady", ["settle=15", "load.pool=session"], tmp_path / "runs")
    target = next(target for target in targets_of("risk") if target.id == "R15.pool-efficiency")
    verdict = judge(analysis, target)
    assert verdict.status == "not met", verdict.why


def test_a_steady_run_finds_no_outage_and_meets_the_efficiency(
    lab_risk_prod: DockerLab, tmp_path: Path
) -> None:
    analysis = measured(lab_risk_prod, "steady", ["settle=15"], tmp_path / "runs")
    verdicts = {target.id: judge(analysis, target) for target in targets_of("risk")}
    assert verdicts["R15.pool-efficiency"].status == "met", verdicts["R15.pool-efficiency"].why
    assert verdicts["R16.rto-write"].status == "not run"
    writes = RecordReader(tmp_path / "runs" / analysis.run).frame("writes", ["outcome"])
    outcomes = writes.outcome.astype(str).value_counts(normalize=True)
    # A machine that is busy may refuse one connection; nothing that was sent is left without an answer.
    assert outcomes["acknowledged"] > 0.99
    assert set(outcomes.index) <= {"acknowledged", "failed"}


def negotiated(port: int, newest: ssl.TLSVersion) -> str | None:
    """The TLS version that a PostgreSQL endpoint agrees to with a client that knows none newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this client itself would refuse what is old
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(SSL_REQUEST)
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain) as encrypted:
            return encrypted.version()


@pytest.mark.parametrize("endpoint", ["pool-transaction.writer", "router.write"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_older_than_the_topology_says_is_refused(lab_risk_prod: DockerLab, endpoint: str) -> None:
    port = lab_risk_prod.allocation.published[endpoint]
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        negotiated(port, ssl.TLSVersion.TLSv1_1)
    assert negotiated(port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"


def test_a_redis_primary_without_its_replica_loses_what_it_acknowledges(
    lab_risk_prod: DockerLab, tmp_path: Path
) -> None:
    story = load_scenario("redis-primary-isolated", ["settle=3", "trials=1", "recovery.window=40"])
    done = run_scenario(lab_risk_prod, story, seed=5, runs_dir=tmp_path / "runs")
    analysis = analyse(done.path)
    assert analysis.redis is not None
    (trial,) = analysis.redis.trials
    assert trial.ledger.complete, trial.ledger.why
    assert trial.exposed > 0
    lost = analysis.finding("redis.lost_writes")
    assert lost is not None
    assert lost.status is None
    assert lost.value is not None
    assert lost.value >= trial.exposed, "every exposed write is lost: replication had been cut before"
    # The database has no part in it.
    assert analysis.ledger.lost == 0
