"""Comparing runs: tests with known answers, nothing where nothing differs, and refusals."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lab import cli
from lab.errors import UsageError
from reports.analysis.blocks import Stretch, failures, mean, percentiles
from reports.analysis.two_samples import _mann_whitney, _signed_ranks, holm, independent, paired
from reports.compare import Comparison, compare, direction, verdict_of
from reports.compare_text import markdown
from tests.synthetic import make_record

# The two tests


def test_mann_whitney_of_textbook_numbers() -> None:
    # Hollander & Wolfe, table 4.1 (permeability of amnion): the two-sided exact p is 0.2544.
    x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    y = [1.15, 0.88, 0.90, 0.74, 1.21]
    found = independent(x, y)
    assert found.p == pytest.approx(0.2544, abs=5e-5)
    assert found.p == pytest.approx(stats.mannwhitneyu(x, y, method="exact").pvalue)
    # Their estimate of the shift is 0.305 (x − y).
    assert found.estimate == pytest.approx(-0.305)
    assert not found.shown


def test_complete_separation_gives_the_least_p() -> None:
    four = independent([1, 2, 3, 4], [11, 12, 13, 14])
    assert four.p == four.least_p == pytest.approx(2 / 70)
    assert four.shown
    assert four.estimate == 10
    assert four.interval == (7, 13)
    three = independent([1, 2, 3], [11, 12, 13])
    assert three.p == pytest.approx(0.1)
    assert three.too_few
    assert not three.shown
    assert three.interval is None


def test_signed_ranks_of_textbook_numbers() -> None:
    # Hollander & Wolfe, table 3.1 (Hamilton depression scale): W+ = 5 of n = 9, two-sided p 0.039.
    x = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    y = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    found = paired(x, y)
    assert found.p == pytest.approx(0.0390625)
    assert found.estimate == pytest.approx(-0.46)
    assert found.interval == pytest.approx((-0.786, -0.010))
    assert found.shown
    assert paired([1.0] * 5, [2.0] * 5).too_few
    assert not paired([1.0] * 6, [2.0] * 6).too_few


def test_ties_and_equal_values_show_nothing() -> None:
    found = independent([0.0] * 6, [0.0] * 6)
    assert (found.p, found.estimate, found.interval) == (1.0, 0.0, (0.0, 0.0))
    assert paired([0.0] * 8, [0.0] * 8).p == 1.0
    with pytest.raises(ValueError, match="both"):
        independent([], [1.0])
    with pytest.raises(ValueError, match="pairs"):
        paired([1.0], [])


def test_an_outage_without_an_end_ranks_last() -> None:
    found = independent([20.0, 21, 22, 23], [math.inf] * 4)
    assert found.shown
    assert found.estimate is None
    assert verdict_of("rto.write", found, [20.0, 21, 22, 23], [math.inf] * 4) == "worse"
    assert verdict_of(
        "rto.write", independent([math.inf] * 4, [1.0, 2, 3, 4]), [math.inf] * 4, [1.0, 2, 3, 4]
    ) == ("better")
    assert paired([math.inf] * 7, [math.inf] * 7).p == 1.0
    assert paired([1.0] * 7, [math.inf] * 7).shown


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (4, 4), (5, 3)])
def test_the_distribution_of_u_is_what_counting_gives(n: int, m: int) -> None:
    counted = np.zeros(n * m + 1)
    for chosen in itertools.combinations(range(n + m), n):
        counted[sum(chosen) - n * (n - 1) // 2] += 1
    assert _mann_whitney(n, m) == pytest.approx(counted / counted.sum())


def test_the_distribution_of_signed_ranks_is_what_counting_gives() -> None:
    counted = np.zeros(16)
    for signs in itertools.product((0, 1), repeat=5):
        counted[sum(rank for rank, sign in zip(range(1, 6), signs, strict=True) if sign)] += 1
    assert _signed_ranks(5) == pytest.approx(counted / 32)


values = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(first=values, second=values)
def test_swapping_the_sides_swaps_the_sign_only(first: list[float], second: list[float]) -> None:
    one, other = independent(first, second), independent(second, first)
    assert one.p == pytest.approx(other.p)
    assert one.estimate is not None
    assert other.estimate is not None
    assert one.estimate == pytest.approx(-other.estimate, abs=1e-6)
    assert 0 < one.p <= 1


@pytest.mark.parametrize(("n", "m"), [(4, 4), (6, 6), (5, 9)])
def test_no_cry_of_wolf_where_nothing_differs(n: int, m: int) -> None:
    """At most 5 % of comparisons of one distribution with itself show a difference (± what 800 can tell)."""
    rng = np.random.default_rng(7)
    alarms = missed = 0
    for _ in range(800):
        found = independent(rng.lognormal(3, 0.2, n).tolist(), rng.lognormal(3, 0.2, m).tolist())
        alarms += found.shown
        assert found.interval is not None
        missed += not found.interval[0] <= 0 <= found.interval[1]
    assert alarms <= stats.binom.ppf(0.999, 800, 0.05)
    assert missed <= stats.binom.ppf(0.999, 800, 0.05)


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(3)
    shown = sum(
        independent(rng.normal(20, 1, 6).tolist(), rng.normal(25, 1, 6).tolist()).shown for _ in range(50)
    )
    assert shown >= 49


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


# Blocks


def stretch(rng: np.random.Generator, seconds: int = 60, rate: float = 50, factor: float = 1.0) -> Stretch:
    """Requests whose seconds are correlated: an autoregressive slow-down."""
    slow = np.zeros(seconds)
    for i in range(1, seconds):
        slow[i] = 0.3 * slow[i - 1] + 0.15 * rng.normal()
    counts = rng.poisson(rate, seconds)
    second = np.repeat(np.arange(seconds), counts)
    response = factor * np.exp(1 + 0.5 * rng.normal(size=len(second)) + slow[second])
    return Stretch(second, response, seconds, counts, (rng.random(seconds) < 0.1).astype(np.int64))


def test_percentiles_of_one_load_do_not_differ_and_of_a_slower_one_do() -> None:
    rng = np.random.default_rng(11)
    alarms = 0
    rounds = 12
    for _ in range(rounds):
        found = percentiles([stretch(rng)], [stretch(rng)], [0.5])[0]
        assert found.interval is not None
        alarms += not found.interval[0] <= 0 <= found.interval[1]
    assert alarms <= stats.binom.ppf(0.999, rounds, 0.1)
    slower = percentiles([stretch(rng)], [stretch(rng, factor=1.5)], [0.5, 0.95])
    for shift in slower:
        assert shift.interval is not None
        assert shift.interval[0] > 0
        assert shift.first is not None
        assert shift.second is not None
        assert shift.second / shift.first == pytest.approx(1.5, rel=0.15)
        assert shift.interval[0] < shift.second - shift.first < shift.interval[1]


def test_too_few_seconds_or_requests_give_no_interval() -> None:
    rng = np.random.default_rng(1)
    assert percentiles([stretch(rng, 9)], [stretch(rng)], [0.5])[0].interval is None
    assert percentiles([stretch(rng, rate=2)], [stretch(rng)], [0.99])[0].first is None
    assert percentiles([], [stretch(rng)], [0.5])[0].interval is None


def test_means_and_failures_are_those_of_all_requests() -> None:
    rng = np.random.default_rng(5)
    a, b, c = stretch(rng), stretch(rng), stretch(rng, factor=2)
    found = mean([a, b], [c])
    assert found.first == pytest.approx(np.concatenate([a.response_ms, b.response_ms]).mean())
    assert found.interval is not None
    assert found.interval[0] > 0
    lost = failures([a], [b])
    assert lost.first == pytest.approx(100 * a.failed.sum() / a.ended.sum())


# Runs

SMALL: dict[str, Any] = {"rate": 20.0, "request_rate": 60.0, "seconds": 30.0, "window_s": 32.0}
CALM = (20.1, 21.4, 19.8, 20.7, 20.4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    make_record(folder / "base", trials=5, outage_s=CALM, seed=1, **SMALL)
    make_record(folder / "same", trials=5, outage_s=(20.3, 20.0, 21.1, 19.9, 20.9), seed=2, **SMALL)
    make_record(
        folder / "worse", trials=5, outage_s=[s + 6 for s in CALM], lost=(3, 4, 5, 6, 7), seed=3, **SMALL
    )
    make_record(folder / "three", trials=3, outage_s=(26.0, 27.0, 28.0), seed=4, **SMALL)
    make_record(folder / "calm", trials=5, outage_s=(None,), seed=5, **SMALL)
    make_record(
        folder / "other", trials=3, seed=6, scenario="kill-postmaster", fault="kill-postmaster", **SMALL
    )
    return folder


def row(found: Comparison, metric: str) -> Any:
    return next(one for one in found.rows if one.metric == metric)


def test_one_scenario_twice_shows_no_difference_in_what_trials_make(runs: Path) -> None:
    found = compare([runs / "base"], [runs / "same"])
    assert {r.verdict for r in found.rows if r.unit_of == "trials"} == {"no difference shown"}
    rto = row(found, "rto.write")
    assert rto.first.n == rto.second.n == 5
    assert rto.first.value == pytest.approx(20.4, abs=0.02)
    assert rto.interval[0] < 0 < rto.interval[1]
    assert "exact Mann–Whitney, 5 against 5" in rto.method
    assert row(found, "query.mean").verdict == "no difference shown"
    # One value a run: shown, not judged.
    assert row(found, "pool.efficiency").verdict == "too few"


def test_longer_outages_and_lost_writes_are_worse_and_turned_round_better(runs: Path) -> None:
    found = compare([runs / "base"], [runs / "worse"])
    rto = row(found, "rto.write")
    assert rto.verdict == "worse"
    assert rto.difference == pytest.approx(6, abs=0.05)
    assert rto.p == pytest.approx(2 / math.comb(10, 5))
    assert rto.interval[0] > 4
    lost = row(found, "ledger.lost")
    assert (lost.verdict, lost.difference, lost.second.worst) == ("worse", 5.0, 7.0)
    turned = compare([runs / "worse"], [runs / "base"])
    assert row(turned, "rto.write").verdict == "better"
    assert row(turned, "ledger.lost").verdict == "better"


def test_three_trials_are_too_few_however_far_apart(runs: Path) -> None:
    found = row(compare([runs / "base"], [runs / "three"]), "rto.write")
    # 5 against 3: 2 of 56 arrangements. 3 against 3 cannot.
    assert found.verdict == "worse"
    small = independent([20.0, 21.0, 22.0], [26.0, 27.0, 28.0])
    assert verdict_of("rto.write", small, [20.0, 21.0, 22.0], [26.0, 27.0, 28.0]) == "too few"


def test_no_outage_is_better_than_any(runs: Path) -> None:
    found = row(compare([runs / "base"], [runs / "calm"]), "rto.write")
    assert found.verdict == "better"
    assert found.second.samples == ("no outage",) * 5


def test_groups_pool_their_trials(runs: Path) -> None:
    found = row(compare([runs / "base", runs / "same"], [runs / "worse", runs / "three"]), "rto.write")
    assert (found.first.n, found.second.n, found.verdict) == (10, 8, "worse")


def test_other_scenarios_are_refused_or_loudly_marked(runs: Path) -> None:
    with pytest.raises(UsageError, match="scenario: kill-primary and kill-postmaster") as caught:
        compare([runs / "base"], [runs / "other"])
    assert caught.value.hint is not None
    forced = compare([runs / "base"], [runs / "other"], force=True)
    assert forced.warnings[0].startswith("NOT COMPARABLE: scenario")
    assert "NOT COMPARABLE" in markdown(forced)
    with pytest.raises(UsageError, match="twice"):
        compare([runs / "base"], [runs / "base"])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("slow_after_s", 2.0, "T"), ("scale", 0.9, "scale"), ("machine", {"cores": 64}, "cores"),
        ("load", {"workload": "risk-api", "rate": 1.0}, "load rate"),
    ],
)  # fmt: skip
def test_every_difference_that_matters_is_refused(
    runs: Path, tmp_path: Path, field: str, value: Any, said: str
) -> None:
    import shutil

    shutil.copytree(runs / "same", tmp_path / "copy")
    head = json.loads((tmp_path / "copy/manifest.json").read_text())
    head |= {"run": "copy", field: value}
    (tmp_path / "copy/manifest.json").write_text(json.dumps(head))
    with pytest.raises(UsageError, match=said):
        compare([runs / "base"], [tmp_path / "copy"])


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "base", "worse", "--runs", str(runs)]
    assert cli.run(words) == 0
    assert "worse" in capsys.readouterr().out
    assert cli.run([*words, "--json", "--fail-on-worse", "--markdown", str(tmp_path / "x.md")]) == 1
    document = json.loads(capsys.readouterr().out)
    assert {r["metric"]: r["verdict"] for r in document["rows"]}["rto.write"] == "worse"
    assert document["false_alarms_expected"] == pytest.approx(
        0.05 * sum(r["verdict"] != "too few" for r in document["rows"])
    )
    assert "| `rto.write` |" in (tmp_path / "x.md").read_text()
    assert cli.run(["compare", "base", "other", "--runs", str(runs)]) == 3
    assert cli.run(["compare", ",", "other", "--runs", str(runs)]) == 3
    assert cli.run(["compare", "base", "no-such-run", "--runs", str(runs)]) == 3


def test_directions() -> None:
    assert direction("rto.write", 1.0) == "worse"
    assert direction("availability.write", 1.0) == "better"
    assert direction("pool.utilisation", 1.0) == "different"
    assert direction("made.up", 1.0) == "different"
