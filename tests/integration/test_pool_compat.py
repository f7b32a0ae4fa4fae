"""The matrix of session features on a real lab: known rows, a silent leak and a loud failure among them."""

from __future__ import annotations

from pathlib import Path

from lab.deploy.docker_driver import DockerLab
from lab.experiment.compat import MODES, run_compat
from lab.record.reader import RecordReader
from reports.experiments.pool_compat import LEAST_FEATURES, matrix

SESSION, TRANSACTION, STATEMENT = MODES

KNOWN = {
    # feature: what session, transaction and statement pooling do with it
    "set": ("works", "leaks", "leaks"),
    "set-tracked": ("works", "works", "works"),
    "set-local": ("works", "works", "fails loudly"),
    "startup-options": ("fails loudly", "fails loudly", "fails loudly"),
    "listen": ("works", "leaks", "leaks"),
    "notify": ("works", "works", "works"),
    "advisory-lock-session": ("works", "leaks", "leaks"),
    "temp-preserve": ("works", "leaks", "leaks"),
    "temp-drop": ("works", "works", "fails loudly"),
    "cursor-with-hold": ("works", "leaks", "leaks"),
    "prepare-sql": ("works", "leaks", "leaks"),
    "prepare-protocol": ("works", "works", "works"),
    "transaction": ("works", "works", "fails loudly"),
    "cancel": ("works", "works", "works"),
}


def test_the_matrix(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    path = run_compat(lab_risk_prod, runs_dir=tmp_path / "runs")
    found = matrix(RecordReader(path))
    tried = [row for row in found.values() if row[TRANSACTION].outcome != "not run"]
    assert len(tried) >= LEAST_FEATURES
    for feature, outcomes in KNOWN.items():
        seen = tuple(found[feature][mode].outcome for mode in MODES)
        assert seen == outcomes, f"{feature}: {[found[feature][mode].why for mode in MODES]}"
    # Nothing stays: neither the further poolers nor what the features made.
    for name in ("pool-session", "pool-transaction", "pool-statement"):
        count = lab_risk_prod.nodes[name].run(["pgrep", "-c", "-x", "pgbouncer"]).stdout
        assert int(count) == 1
