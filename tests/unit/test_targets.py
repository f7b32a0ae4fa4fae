"""Files of targets: the shipped ones, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import UsageError
from reports.checks import checks
from reports.experiments import experiments
from reports.targets import list_targets, load_targets, targets_of

GOOD = """\
system: risk
document: D
targets:
  - id: A
    quote: q
    place: p
    metric: rto.write
    comparison: "<"
    limit: 300
    unit: s
    scenarios: [kill-primary]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "risk.yaml"
    path.write_text(text)
    return path


def test_shipped_targets_load_and_every_judged_metric_has_a_check() -> None:
    assert "risk" in list_targets()
    yielded = {metric for check in checks().values() for metric in check.metrics}
    yielded |= {metric for one in experiments().values() for metric in one.metrics}
    for system in list_targets():
        for target in targets_of(system):
            assert target.quote
            assert target.place
            assert not target.scenarios or target.metric in yielded


ROWS = {
    "risk": ("R", 25),
    "dora": ("D", 18),
    "clinical": ("C", 12),
    "innovate": ("I", 8),
    "experimentation": ("E", 8),
}
"""System → letter and number of the rows of its document's table."""


@pytest.mark.parametrize("system", ROWS)
def test_every_row_of_every_document_has_a_target(system: str) -> None:
    letter, count = ROWS[system]
    rows = {target.id.partition(".")[0] for target in targets_of(system)}
    assert rows == {f"{letter}{number}" for number in range(1, count + 1)}


@pytest.mark.parametrize("system", ROWS)
def test_every_target_is_answered_or_says_why_not(system: str) -> None:
    for target in targets_of(system):
        ways = [bool(target.scenarios), bool(target.not_built)]
        assert any(ways) or target.method == "on paper", target.id
        assert not all(ways), target.id


def test_a_promise_concerns_its_environments() -> None:
    of = {target.id: target for target in targets_of("risk")}
    assert of["R1.dev"].concerns("dev")
    assert not of["R1.dev"].concerns("prod")
    assert of["R1.dev"].concerns(None)
    assert of["R6"].concerns("anything")


def test_a_system_without_a_file_has_no_targets(tmp_path: Path) -> None:
    assert targets_of("risk", tmp_path) == ()


def test_a_good_file(tmp_path: Path) -> None:
    assert load_targets(write(tmp_path, GOOD)).targets[0].limit == 300


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("limit: 300", "limit: soon", "risk.yaml:9"),
        ("limit: 300", "limt: 300", "limt"),
        ('"<"', '"=>"', "comparison"),
        ("metric: rto.write", "metric: rto.wriet", "rto.wriet"),
        ("    quote: q\n", "", "quote"),
        ("id: A", "id: [", "risk.yaml"),
        ("limit: 300", "limit: .inf", "risk.yaml"),
        ("unit: s", "unit: s\n    min_trials: 0", "risk.yaml:11"),
        ("unit: s", "unit: ms", "risk.yaml:10:5: A: rto.write is measured in 's'"),
        ("metric: rto.write", "metric: rto.wriet", "risk.yaml:7:5: A: nothing yields"),
        ("[kill-primary]", "[kill-primry]", "risk.yaml:11:5: A: no scenario 'kill-primry'; did you mean"),
        ("scenarios: [kill-primary]", "scenarios: []", "risk.yaml:4:5: A: nothing answers it"),
        ("[kill-primary]", "[kill-primary]\n    not_built: x", "risk.yaml:12:5: A: it names scenarios"),
        (
            "[kill-primary]",
            "[kill-primary]\n    proven_by: [steady]",
            "risk.yaml:12:5: A: 'steady' is not among",
        ),
        (
            "[kill-primary]",
            "[kill-primary]\n    method: on paper",
            "A: what is answered on paper needs no scenario",
        ),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, old: str, new: str, expected: str) -> None:
    with pytest.raises(UsageError, match=r"risk\.yaml") as caught:
        load_targets(write(tmp_path, GOOD.replace(old, new)))
    assert expected in str(caught.value)


def test_two_targets_of_one_id(tmp_path: Path) -> None:
    item = GOOD[GOOD.index("  - id") :]
    with pytest.raises(UsageError, match=r"risk\.yaml:12:5: A: an id must be unique"):
        load_targets(write(tmp_path, GOOD + item))


def test_a_file_of_another_system(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("system: risk", "system: dora"))
    with pytest.raises(UsageError, match="dora"):
        targets_of("risk", tmp_path)
