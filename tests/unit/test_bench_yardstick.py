"""The yardstick's own arithmetic, against histories with a known answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.bench.yardstick import (
    Known,
    Measured,
    judge,
    known_outage,
    measure,
    percentile,
    plan,
    quiet_ms,
    read_operations,
)
from lab.errors import LabError
from lab.record.schema import NS

MS = NS // 1000


def ledger(folder: Path, begin: int, end: int, *, step: int = 10 * MS, until: int = 10 * NS) -> None:
    """Writes every ``step``; refused between begin and end, acknowledged after 2 ms otherwise."""
    lines: list[dict[str, object]] = []
    for n, intended in enumerate(range(0, until, step), 1):
        refused = begin <= intended < end
        intent = {"k": "i", "n": n, "trial": 0, "session_opened": 0, "fresh": False, "intended": intended}
        sent = {"session": None, "sent": None} if refused else {"session": 1, "sent": intended}
        lines.append(intent | sent)
        outcome = "failed" if refused else "acknowledged"
        lines.append({"k": "o", "n": n, "done": intended + 2 * MS, "outcome": outcome, "message": None})
    (folder / "writes.lasting.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_known_outage_is_measured(tmp_path: Path) -> None:
    begin, end = 3 * NS + 4 * MS, 4 * NS + 4 * MS
    ledger(tmp_path, begin, end)
    known = Known("refused", 1.0, begin, end, 0)
    (found,) = measure(read_operations(tmp_path), [known])
    # Next write after the end is intended at 4.010 s and answered 2 ms later.
    assert found.state == "recovered"
    assert found.error_ms == pytest.approx(8.0)
    assert [figure.holds for figure in judge([found])] == [True, True, None]


def test_an_outage_that_the_probe_did_not_see_fails_every_aim(tmp_path: Path) -> None:
    ledger(tmp_path, 0, 0)
    known = Known("black-holed", 1.0, 3 * NS, 4 * NS, 0)
    found = measure(read_operations(tmp_path), [known])
    assert found[0].seconds is None
    assert [figure.holds for figure in judge(found)] == [False, False, False]
    seen = Measured(known, "recovered", 1.0)
    assert [figure.holds for figure in judge([*found, seen])] == [False, False, None]


def test_errors_beyond_the_aims_fail() -> None:
    known = Known("refused", 1.0, 0, NS, 0)
    late = [Measured(known, "recovered", 1.011)] * 20
    median, p95, bias = judge(late)
    assert (median.holds, p95.holds) == (False, True)
    assert bias.value == pytest.approx(11.0)
    spread = [Measured(known, "recovered", 1.001)] * 18 + [Measured(known, "recovered", 1.05)] * 2
    median, p95, _ = judge(spread)
    assert (median.holds, p95.holds) == (True, False)


def test_a_busy_machine_is_said(tmp_path: Path) -> None:
    known = Known("refused", 1.0, 3 * NS, 4 * NS, 0)
    ledger(tmp_path, known.begin, known.end)
    quiet = quiet_ms(read_operations(tmp_path), [known])
    assert quiet == {"median": 2.0, "p95": 2.0}
    seen = [Measured(known, "recovered", 1.05)]
    assert judge(seen, quiet=quiet)[0].note == ""
    assert "busy" in judge(seen, quiet={"median": 20.0, "p95": 90.0})[0].note


def test_no_outage_is_no_success() -> None:
    assert [figure.holds for figure in judge([])] == [False, False, False]


def test_known_outage_on_the_observers_clock() -> None:
    known = known_outage("refused", 0.2, "100.000 100.004 100.204 100.210\n", -90 * NS)
    assert known.begin == 10 * NS + 2 * MS
    assert known.seconds == pytest.approx(0.205)
    assert known.uncertainty == 5 * MS
    with pytest.raises(LabError, match="packet filter"):
        known_outage("refused", 0.2, "iptables: no", 0)


def test_percentile_is_nearest_rank() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert percentile([3.0], 0.95) == 3.0


def test_plan_holds_every_outage() -> None:
    outages = list(plan(10, seed=1))
    assert len(outages) == 60
    assert len({(kind, length) for kind, length, _ in outages}) == 6
    assert all(0 <= pause <= 0.1 for _, _, pause in outages)
