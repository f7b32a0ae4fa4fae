"""What was made worse on purpose turns the promises that it breaks to *not met*, and no others.

On records with a known truth, through the same scorecard; tests/integration/test_worse.py does it with labs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lab.scenario.progress import Progress
from lab.topology.loader import load_topology
from lab.verify import Asked, Need, choose, open_folder, run
from reports.findings import Status
from reports.verified import _scaled, scorecard
from tests.synthetic import make_record

PROD = load_topology("risk-prod")
ASKED = Asked(name="risk-prod", topologies=("risk-prod",), quick=True)
NEEDS = [Need(topology="risk-prod", target="R16.rto-write", scenarios=("kill-primary",))]
CALM: dict[str, Any] = {"trials": 3, "seconds": 30.0, "request_rate": 60.0, "rate": 20.0}


def verify(runs: Path, spoil: Callable[[Path], None] | None = None, **options: Any) -> dict[str, Status]:
    """Target → verdict of a verification whose one run is a made-up record."""

    def stand_in(_lab: Any, story: Any, *, runs_dir: Path, **_: Any) -> Any:
        path = make_record(
            runs_dir / "20261121T120000Z-kill-primary", scenario=story.name, **{**CALM, **options}
        )
        head = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**head, "run": path.name}))
        if spoil is not None:
            spoil(path)
        return SimpleNamespace(path=path)

    folder = open_folder(ASKED, runs)
    labs: Any = SimpleNamespace(get=lambda *_: None)
    state = run(ASKED, NEEDS, choose(NEEDS, ASKED), folder, labs, Progress(), runner=stand_in)
    card = scorecard(folder, state, [PROD], (), lambda _: None)
    return {row.verdict.target.id: row.verdict.status for row in card.rows if row.run is not None}


def broken(verdicts: dict[str, Status]) -> set[str]:
    return {target for target, status in verdicts.items() if status == "not met"}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Status]:
    return verify(tmp_path_factory.mktemp("calm"))


def test_as_the_document_has_it_nothing_that_was_run_is_broken(calm: dict[str, Status]) -> None:
    assert broken(calm) == set()
    assert calm["R16.rto-write"] == calm["R15.pool-utilisation"] == "met"
    # A kill cannot prove it.
    assert calm["R16.rpo"] == "inconclusive"


def every_connection_in_use(path: Path) -> None:
    """A pool of a size that the load fills: each server connection works all the time."""
    table = pq.read_table(path / "metrics.parquet")
    names = table.column("metric").cast(pa.string())
    totals = {
        (row["t"], row["node"], row["label"]): row["value"]
        for row in table.filter(pc.equal(names, "pgb_sv_total")).to_pylist()
    }
    rows = table.to_pylist()
    for row in rows:
        if row["metric"] == "pgb_sv_active":
            row["value"] = totals[row["t"], row["node"], row["label"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path / "metrics.parquet")


@pytest.mark.parametrize(
    ("options", "spoil", "expected"),
    [
        # synchronous off: what was acknowledged alone is gone
        ({"lost": (3, 0, 0)}, None, {"R16.rpo"}),
        # ttl 300: nobody leads for so long
        ({"outage_s": (331.0,), "window_s": 360.0}, None, {"R16.rto-write"}),
        # a pool of two
        ({"max_server_connections": 0.95}, every_connection_in_use, {"R15.pool-utilisation"}),
    ],
    ids=["synchronous-off", "ttl-300", "pool-of-2"],
)
def test_what_is_worse_breaks_its_promises_and_no_others(
    options: dict[str, Any],
    spoil: Callable[[Path], None] | None,
    expected: set[str],
    calm: dict[str, Status],
    tmp_path: Path,
) -> None:
    now = verify(tmp_path, spoil, **options)
    assert broken(now) == expected
    # What else was answered stays answered as it was.
    assert {t: s for t, s in now.items() if t not in expected} == {
        t: s for t, s in calm.items() if t not in expected
    }


def test_each_scale_is_told_with_its_topologies() -> None:
    assert _scaled({"0.25": ["risk-prod", "risk-prod"]}) == ["instance classes × 0.25"]
    assert _scaled({"1": ["risk-dev"], "0.25": ["risk-prod", "dora-prod", "risk-prod"]}) == [
        "instance classes × 1 in risk-dev",
        "instance classes × 0.25 in risk-prod, dora-prod",
    ]
    assert _scaled({"": ["risk-prod"]}) == []
