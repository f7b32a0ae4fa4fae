"""Bench (e): its figures say when an aim is missed, and it measures for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.bench.analysis import figures, measure


def result(requests: int, seconds: float, peak_gib: float) -> dict[str, Any]:
    return {
        "requests": requests,
        "seconds": seconds,
        "cpu_seconds": seconds,
        "peak_bytes": peak_gib * 2**30,
    }


def test_aims_are_held_or_missed() -> None:
    good = {f.name: f.holds for f in figures([result(10**6, 4, 0.3), result(10**7, 20, 1.0)])}
    assert good == {"analysis.seconds": True, "analysis.memory": True, "analysis.growth": True}
    bad = {f.name: f.holds for f in figures([result(10**6, 4, 0.3), result(10**7, 61, 1.6)])}
    assert bad == {"analysis.seconds": False, "analysis.memory": False, "analysis.growth": False}
    alone = {f.name: f.holds for f in figures([result(10**6, 4, 0.3)])}
    assert alone["analysis.growth"] is None


def test_a_small_record_is_measured(tmp_path: Path) -> None:
    found = measure(5000, tmp_path)
    assert found["requests"] == 5000
    assert found["seconds"] > 0
    assert found["peak_bytes"] > 2**20
