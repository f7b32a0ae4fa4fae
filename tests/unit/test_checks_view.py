"""The report's list of checks: what is not sound comes first, and nothing is sound without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import view
from reports.analysis import Analysis, analyse
from reports.checks import checks
from tests.synthetic import make_record


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analyse(make_record(tmp_path_factory.mktemp("view") / "run", trials=1, seconds=5, duplicates=2))


def test_what_is_not_sound_comes_first(found: Analysis) -> None:
    rows = view.checked(found)
    tones = {finding.metric: tone for finding, _, tone in rows}
    assert rows[0][0].metric == "ledger.duplicate"
    assert tones["ledger.duplicate"] == "bad"
    assert tones["ledger.phantom"] == "good"
    assert tones["ledger.lost"] == "unsure"  # a kill proves nothing
    assert tones["availability.write"] == ""
    assert "bank.total" not in tones  # not run
    assert "tables.equal" not in tones


def test_an_unjudged_finding_is_never_sound(found: Analysis) -> None:
    for status in ("invalid", "inconclusive"):
        findings = tuple(f.model_copy(update={"status": status}) for f in found.findings)
        tones = {
            f.metric: tone for f, _, tone in view.checked(found.model_copy(update={"findings": findings}))
        }
        assert "good" not in tones.values()
        assert tones["ledger.duplicate"] == ("bad" if status == "inconclusive" else "unsure")


def test_every_check_of_the_list_exists_and_has_words() -> None:
    metrics = {metric for check in checks().values() for metric in check.metrics}
    assert set(view.SOUND) <= metrics
    assert set(view.SOUND) <= set(view.METRICS)


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "measurement.md").read_text(encoding="utf-8")
    families = ("rto.write.", "rto.read.", "pool.server_connections.", "latency.")  # named by their pattern
    metrics = {metric for check in checks().values() for metric in check.metrics}
    assert [m for m in sorted(metrics) if f"`{m}`" not in text and not m.startswith(families)] == []
