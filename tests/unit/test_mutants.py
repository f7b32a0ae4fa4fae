"""A checker that is wrong fails its own tests: real mutants of the analysis, each noticed by a known answer.

Every mutant that the operators of ``tests/mutants.py`` make of these modules is tried. Those that mean the
same are listed beside this file, with the reason; one that is noticed after all, or is not made any more,
must leave the list.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.mutants import Mutant, applied, killer, known_answers, mutants

LEDGER, RTO, SPLIT = "reports.analysis.ledger", "reports.analysis.rto", "reports.analysis.split_brain"
FORK, FAULTS, JUDGE, RPO = (
    "reports.analysis.fork",
    "reports.analysis.faults",
    "reports.judge",
    "reports.checks.ledger",
)
BOUNDARIES = "test_analysis_boundaries"
TESTS = {
    LEDGER: ("test_analysis_ledger", BOUNDARIES),
    RTO: ("test_analysis_rto", BOUNDARIES),
    SPLIT: ("test_analysis_split_brain", BOUNDARIES),
    FORK: ("test_analysis_fork",),
    FAULTS: ("test_analysis_fork",),
    JUDGE: ("test_judge", BOUNDARIES),
    RPO: (BOUNDARIES,),
}
LEAST = {LEDGER: 130, RTO: 150, SPLIT: 40, FORK: 80, FAULTS: 85, JUDGE: 55, RPO: 33}
"""So many mutants at least: an operator that is lost must not go unnoticed."""
SAME = Path(__file__).with_name("mutants_that_mean_the_same.txt")


def equivalent(module: str) -> dict[str, str]:
    """Mutants of a module that mean the same → why; lines of ``module | mutant | reason``."""
    lines = [line for line in SAME.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    parts = [line.split(" ∥ ") for line in lines]
    assert all(len(part) == 3 and part[2].strip() for part in parts)
    return {mutant: why for of, mutant, why in parts if of == module}


@pytest.mark.parametrize("name", TESTS)
def test_every_mutant_is_noticed(name: str) -> None:
    module = importlib.import_module(name)
    tests = [
        one for test in TESTS[name] for one in known_answers(importlib.import_module(f"tests.unit.{test}"))
    ]
    assert killer(tests) is None, "the tests fail without a mutant"
    listed = equivalent(name)
    survived, made = [], 0
    for mutant in mutants(module):
        made += 1
        with applied(module, mutant):
            by = killer(tests)
        if by is None:
            survived.append(str(mutant))
        else:
            # The next one is likely to be noticed by the same.
            tests.remove(by)
            tests.insert(0, by)
    assert sorted(set(survived) - set(listed)) == [], "no known answer notices these"
    assert sorted(set(listed) - set(survived)) == [], (
        "listed as meaning the same, and noticed or not made any more"
    )
    assert made >= LEAST[name]


def test_a_mutant_that_is_not_there_is_an_error() -> None:
    module = importlib.import_module(LEDGER)
    with (
        pytest.raises(LookupError, match="has no mutant"),
        applied(module, Mutant("account", "a < b", "a > b")),
    ):
        pass
