"""Verdicts, exhaustively at the edges."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.findings import Finding, Target
from reports.judge import judge, judge_finding

settings.register_profile("lab", deadline=None)  # a shared machine has slow moments
settings.load_profile("lab")

TARGET = Target(
    id="R16.rto",
    quote="RTO: < 5 minutes",
    place="4",
    metric="rto.write",
    comparison="<",
    limit=300,
    unit="s",
    min_trials=3,
)


def finding(value: float | None, **changes: Any) -> Finding:
    fields: dict[str, Any] = {"metric": "rto.write", "unit": "s", "value": value, "detail": {"trials": 3}}
    return Finding(**(fields | changes))


def status(value: float | None, target: Target = TARGET, **changes: Any) -> str:
    return judge_finding(target, finding(value, **changes)).status


def test_the_worst_trial_decides() -> None:
    assert status(299.9) == "met"
    assert status(300.0) == "not met"
    assert status(301.0) == "not met"


def test_it_says_how_strong() -> None:
    why = judge_finding(TARGET, finding(20.0)).why
    assert "1 in 4" in why
    assert "63%" in why


def test_few_trials_can_refute_and_not_prove() -> None:
    assert status(20.0, detail={"trials": 2}) == "inconclusive"
    assert status(400.0, detail={"trials": 1}) == "not met"
    five = TARGET.model_copy(update={"min_trials": 5})
    assert status(20.0, five, detail={"trials": 4}) == "inconclusive"
    assert status(20.0, five, detail={"trials": 5}) == "met"
    assert status(20.0, TARGET.model_copy(update={"min_trials": 1}), detail={"trials": 2}) == "inconclusive"


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "=="])
def test_what_is_no_number_is_never_green(value: float | None, comparison: Any) -> None:
    assert status(value, TARGET.model_copy(update={"comparison": comparison})) != "met"


def test_a_nan_among_the_trials_is_never_green() -> None:
    assert status(20.0, samples=(20.0, math.nan, 19.0)) == "inconclusive"


@pytest.mark.parametrize("state", ["invalid", "not run", "inconclusive"])
def test_what_must_not_be_judged_is_not(state: Any) -> None:
    verdict = judge_finding(TARGET, finding(1.0, status=state, why="because"))
    assert (verdict.status, verdict.why) == (state, "because")
    assert status(1000.0, status="invalid") == "invalid"


def test_no_finding_is_not_run() -> None:
    assert judge_finding(TARGET, None).status == "not run"


def test_units_and_metrics_must_agree() -> None:
    assert status(1.0, unit="ms") == "invalid"
    assert status(1.0, metric="rto.read") == "invalid"


def test_no_outage_meets_an_rto_with_enough_trials_only() -> None:
    assert status(None, detail={"trials": 3, "no_outage": 3}) == "met"
    assert status(None, detail={"trials": 2, "no_outage": 2}) == "inconclusive"
    assert status(None, detail={"trials": 3, "no_outage": 2}) == "inconclusive"
    assert status(None, detail={"trials": 0, "no_outage": 0}) == "inconclusive"
    assert status(None, detail={}) == "inconclusive"
    more = TARGET.model_copy(update={"comparison": ">"})
    assert status(None, more, detail={"trials": 3, "no_outage": 3}) == "inconclusive"


def test_an_outage_that_did_not_end_refutes_a_shorter_limit() -> None:
    open_end = {"status": "inconclusive", "why": "trial 2 did not recover"}
    assert status(None, detail={"trials": 3, "at_least": 40.0}, **open_end) == "inconclusive"
    short = TARGET.model_copy(update={"limit": 30.0})
    assert status(None, short, detail={"trials": 1, "at_least": 40.0}, **open_end) == "not met"
    assert status(None, TARGET.model_copy(update={"limit": 40.0}), detail={"at_least": 40.0}) == "not met"


@given(
    st.floats(0, 1000), st.floats(0, 1000), st.integers(0, 9), st.sampled_from(["<", "<=", ">", ">=", "=="])
)
def test_met_means_the_comparison_holds_with_three_trials(
    value: float, limit: float, trials: int, comparison: Any
) -> None:
    target = TARGET.model_copy(update={"limit": limit, "comparison": comparison})
    got = status(value, target, detail={"trials": trials})
    holds = {
        "<": value < limit,
        "<=": value <= limit,
        ">": value > limit,
        ">=": value >= limit,
        "==": value == limit,
    }[comparison]
    assert (got == "met") == (holds and trials >= 3)
    assert (got == "not met") == (not holds)


def test_a_run_that_can_only_refute_never_proves() -> None:
    target = TARGET.model_copy(
        update={"scenarios": ("kill-primary", "kill-postmaster"), "proven_by": ("kill-primary",)}
    )

    def said(scenario: str, value: float) -> str:
        run: Any = SimpleNamespace(
            manifest=SimpleNamespace(scenario=scenario, substitutions=[]), finding=lambda _: finding(value)
        )
        return judge(run, target).status

    assert said("kill-primary", 20) == "met"
    assert said("kill-postmaster", 20) == "inconclusive"
    assert said("kill-postmaster", 301) == "not met"
    assert said("steady", 20) == "not run"


@pytest.mark.parametrize(
    ("comparison", "samples", "interval", "status"),
    [
        # A median on one side of the limit says little where its interval reaches to the other.
        (">", (6.0,), (-23.0, 25.0), "inconclusive"),
        (">", (-6.0,), (-23.0, 25.0), "inconclusive"),
        (">", (6.0,), (2.0, 25.0), "met"),
        (">", (-6.0,), (-25.0, -2.0), "not met"),
        # Too few for an interval: all of them have to agree.
        (">", (6.0, -1.0, 7.0), None, "inconclusive"),
        (">", (6.0, 1.0, 7.0), None, "met"),
        (">", (-6.0, -1.0, -7.0), None, "not met"),
        (">=", (6.0, 0.0, 7.0), None, "met"),
    ],
)
def test_a_median_over_repeats_is_judged_with_its_spread(
    comparison: Any, samples: tuple[float, ...], interval: tuple[float, float] | None, status: str
) -> None:
    asked = TARGET.model_copy(update={"comparison": comparison, "limit": 0.0, "unit": "%"})
    found = finding(
        sorted(samples)[len(samples) // 2], unit="%", samples=samples, interval=interval,
        confidence=0.96875 if interval else None, detail={"repeats": 6 if interval else len(samples)},
    )  # fmt: skip
    told = judge_finding(asked, found)
    assert told.status == status
    assert ("of 6 repeats is -23 % to 25 %" in told.why) == (interval == (-23.0, 25.0))
    # The same spread of trials is none of a median: there the worst decides.
    trials = found.model_copy(update={"detail": {"trials": 6}})
    assert judge_finding(asked, trials).status in ("met", "not met")


def test_a_spread_counts_where_it_is_one_of_repeats() -> None:
    above = TARGET.model_copy(update={"comparison": ">", "limit": 0.0})

    def told(**fields: Any) -> tuple[str, str]:
        verdict = judge_finding(above, finding(6.0, **fields))
        return verdict.status, verdict.why

    wide = {"interval": (-1.0, 9.0), "confidence": 0.97}
    state, why = told(**wide, samples=(1.0, 9.0), detail={"repeats": 6})
    assert (state, "the 97% interval of 6 repeats is -1 s to 9 s" in why) == ("inconclusive", True)
    # Without an interval it is the range of all values, whatever confidence is written beside it.
    state, why = told(confidence=0.97, samples=(-1.0, 6.0, 9.0), detail={"repeats": 3})
    assert (state, "the range of 3 repeats is -1 s to 9 s" in why) == ("inconclusive", True)
    state, why = told(interval=(-1.0, 9.0), detail={"repeats": 6})
    assert (state, "the range of 6 repeats" in why) == ("inconclusive", True)
    # The interval decides, not single values.
    assert told(interval=(1.0, 9.0), confidence=0.97, samples=(-1.0, 9.0), detail={"repeats": 6})[0] == "met"
    # No repeats, or none whose values are known: there is no spread to look at.
    assert told(**wide, detail={})[0] == "met"
    assert told(samples=(-1.0, 9.0), detail={"trials": 6})[0] == "met"
    assert told(detail={"repeats": 6})[0] == "met"
