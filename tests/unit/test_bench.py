"""The arithmetic of the bench, on known answers."""

from __future__ import annotations

import numpy as np
import pytest

from lab.bench.collectors import Window, figures, lower_bound, throughput
from lab.record.schema import NS


def test_throughput_counts_what_ended_within_the_window() -> None:
    done = np.arange(0, 10 * NS, NS // 100)
    assert throughput(done, Window(True, 2 * NS, 4 * NS)) == 100


def test_lower_bound_of_equal_ratios_is_the_ratio() -> None:
    assert lower_bound([0.97] * 10) == pytest.approx(0.97)


def test_lower_bound_falls_with_the_spread() -> None:
    # Two pairs, logs ±d: t(0.95, 1) = 6.3138, standard error = d.
    assert lower_bound([np.exp(0.01), np.exp(-0.01)]) == pytest.approx(np.exp(-0.063138), rel=1e-4)


def test_lower_bound_needs_two_pairs() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        lower_bound([1.0])


@pytest.mark.parametrize(("ratio", "core", "holds"), [(0.99, 0.01, True), (0.90, 0.05, False)])
def test_figures_hold_or_miss(ratio: float, core: float, holds: bool) -> None:
    assert [figure.holds for figure in figures([ratio] * 10, [core] * 10)] == [holds, holds]
