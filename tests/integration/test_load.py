"""The load on a real lab: through pooler, router and TLS, with everything recorded."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.errors import UsageError
from lab.load import CODE, PYTHON, LoadSpec, start_load
from lab.load_run import run_load
from lab.record.reader import RecordReader
from loadtests.format import read_requests

PROOF = """
from gevent import monkey; monkey.patch_all()
import json, sys
import psycopg
from loadtests.connection import GeventConnection
from loadtests.config import LoadConfig
from loadtests.proof import NotConcurrent, prove_concurrency
from loadtests.session import connect_parameters, read_password
config = LoadConfig.load(sys.argv[1])
kind = GeventConnection if sys.argv[2] == "ours" else psycopg.Connection
made = [kind.connect(**connect_parameters(config, config.writer, read_password(config))) for _ in range(6)]
sleepers = [lambda seconds, c=c: c.execute("SELECT pg_sleep(%s)", (seconds,)) for c in made]
try:
    print(json.dumps(prove_concurrency(sleepers)))
except NotConcurrent as error:
    print(json.dumps({"error": str(error)}))
"""


def test_the_risk_api_runs_through_the_transaction_pool(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    document = run_load(lab_risk_prod, LoadSpec(rate=80, duration_s=6, seed=4), tmp_path, quiet=True)
    assert document["outcomes"].keys() == {"ok"}
    assert document["requests"] == document["offered"] == pytest.approx(480, rel=0.25)
    assert {"POST /trades", "GET /portfolios/{id}/positions", "redis SET"} <= document["by_name"].keys()
    assert document["concurrency"][0]["overlap"] == 20
    reader = RecordReader(document["run"])
    assert reader.manifest.state == "closed"
    rows = reader.table("requests").to_pandas()
    cached = rows["endpoint"].astype(str).str.endswith(".redis")
    # Whichever leads now: a test before this one may have made Sentinel choose the other.
    (leader,) = set(rows.loc[cached, "endpoint"])
    assert leader in {"redis1.redis", "redis2.redis"}
    rows = rows[~cached]
    assert len(rows) == document["requests"]
    assert set(rows["endpoint"]) == {"pool-transaction.writer"}
    assert (rows["intended"] <= rows["started"]).all()
    assert (rows["started"] < rows["done"]).all()
    # The same seed offers the same schedule again: gap by gap.
    gaps = sorted(rows["intended"])
    again = run_load(lab_risk_prod, LoadSpec(rate=80, duration_s=6, seed=4), tmp_path, quiet=True)
    rows = RecordReader(again["run"]).table("requests").to_pandas()
    repeated = sorted(rows.loc[rows["endpoint"] == "pool-transaction.writer", "intended"])
    assert [t - gaps[0] for t in gaps] == [t - repeated[0] for t in repeated]
    password = lab_risk_prod.secret("password_app_readwrite")
    recorded = [path for path in Path(document["run"]).rglob("*") if path.is_file()]
    assert not [path for path in recorded if password.encode() in path.read_bytes()]


def test_a_master_and_workers_share_one_load(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    spec = LoadSpec(rate=60, duration_s=4, workers=2, arrivals="constant", pool="session")
    document = run_load(lab_risk_prod, spec, tmp_path, quiet=True)
    assert (document["requests"], document["ok"]) == (240, 240)
    rows = RecordReader(document["run"]).table("requests").to_pandas()
    rows = rows[rows["endpoint"] == "pool-session.writer"]
    assert rows.groupby("worker").size().to_dict() == {0: 120, 1: 120}


def test_a_load_ends_at_its_deadline_though_nobody_comes_back(lab_risk_prod: DockerLab) -> None:
    handle = start_load(lab_risk_prod, LoadSpec(rate=20, deadline_s=4), f"deadline-{time.time_ns()}")
    assert not handle.ended()
    assert handle.wait(40).requests > 0


def test_sigterm_ends_a_load_and_keeps_every_row(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    handle = start_load(lab_risk_prod, LoadSpec(rate=50), f"stop-{time.time_ns()}")
    time.sleep(2)
    handle.stop()
    result = handle.result()
    path = tmp_path / "requests.0.bin"
    path.write_bytes(handle.node.get(handle.files()["requests.0.bin"]))
    assert read_requests(path).num_rows == result.requests > 0
    assert handle.node.run(["test", "-e", handle.config.password_file], check=False).exit_code != 0
    handle.stop()


def test_rows_are_on_disk_while_the_load_runs(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    handle = start_load(lab_risk_prod, LoadSpec(rate=100), f"flush-{time.time_ns()}")
    try:
        time.sleep(3)
        path = tmp_path / "requests.0.bin"
        path.write_bytes(handle.node.get(handle.files()["requests.0.bin"]))
        assert read_requests(path).num_rows > 100
    finally:
        handle.stop()


def test_a_wait_that_blocks_is_found_out(lab_risk_prod: DockerLab) -> None:
    handle = start_load(lab_risk_prod, LoadSpec(rate=5), f"proof-{time.time_ns()}")
    handle.stop()
    config = handle.out.removesuffix("/load") + "/load.json"
    password = lab_risk_prod.secret("password_app_readwrite").encode()
    handle.node.put(handle.config.password_file, password, mode=0o600)
    said = {}
    for kind, env in (("ours", {}), ("plain", {}), ("blocking", {"PSYCOPG_WAIT_FUNC": "wait_c"})):
        words = [PYTHON, "-c", PROOF, config, kind]
        said[kind] = json.loads(handle.node.run(words, env={"PYTHONPATH": CODE, **env}).stdout)
    handle.node.run(["rm", "-f", handle.config.password_file])
    assert said["ours"]["overlap"] == said["plain"]["overlap"] == 6
    assert "does not cooperate" in said["blocking"]["error"]


def test_a_workload_with_transactions_is_refused_by_statement_pooling(lab_risk_prod: DockerLab) -> None:
    with pytest.raises(UsageError, match="needs transactions"):
        start_load(lab_risk_prod, LoadSpec(pool="statement"), "statement")
