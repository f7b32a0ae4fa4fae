"""Which rate to offer next, from the steps so far.

Pure: the same steps give the same next rate, so that a run that was interrupted goes on where it was.
Up by a factor until a rate is bad; then by bisection (of the logarithm) between the last good and the first
bad, until they lie within the precision; then the good one is repeated, and all others after it.

A rate is what most of its steps are. A bad step is repeated at once, and a rate whose steps disagree is
offered until one side has the more: one stall of the machine must not pass for the knee. A rate that turns
bad when it is repeated sends the search below it, one that turns good lets it go on above.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

FACTOR = 1.7
Step = tuple[float, bool]
"""(offered rate, good)"""


@dataclass(frozen=True)
class Ladder:
    """How the knee is looked for. Rates are requests per second."""

    first: float
    factor: float = FACTOR
    precision: float = 0.08
    """Bisection ends where first bad ÷ last good − 1 is not greater."""
    repeats: int = 2
    """Steps that have to agree on a rate: on a bad one at once, on all others once the knee is found."""
    least: float = 1.0
    most: float = 20_000.0
    most_steps: int = 40

    def bracket(self, steps: Sequence[Step]) -> tuple[float | None, float | None]:
        """(greatest good rate below every bad one, least bad rate). Where steps are even, the rate is bad."""
        good, bad = _tally(steps)
        worst = min((rate for rate in bad if bad[rate] >= good[rate]), default=None)
        best = max((rate for rate in good if worst is None or rate < worst), default=None)
        return best, worst

    def following(self, steps: Sequence[Step]) -> float | None:
        """The next rate; None where the search has ended."""
        if not steps:
            return self.first
        if len(steps) >= self.most_steps:
            return None
        if (doubtful := self._doubtful(steps)) is not None:
            return doubtful
        good, bad = self.bracket(steps)
        if bad is None:
            assert good is not None  # there are steps, and none is bad
            return (
                round(min(good * self.factor, self.most), 2) if good < self.most else self._again(steps, good)
            )
        if good is None:
            return round(max(bad / self.factor**2, self.least), 2) if bad > self.least else None
        if bad / good - 1 > self.precision:
            return round(math.sqrt(good * bad), 2)
        return self._again(steps, good)

    def _doubtful(self, steps: Sequence[Step]) -> float | None:
        """The least rate that too few steps call bad, or whose steps are even."""
        good, bad = _tally(steps)
        found = (rate for rate in bad if bad[rate] == good[rate] or good[rate] < bad[rate] < self.repeats)
        return min(found, default=None)

    def _again(self, steps: Sequence[Step], rate: float) -> float | None:
        good, bad = _tally(steps)
        wanted = [rate, *sorted({known for known, _ in steps})]
        return next((one for one in wanted if max(good[one], bad[one]) < self.repeats), None)


def _tally(steps: Sequence[Step]) -> tuple[Counter[float], Counter[float]]:
    """How many steps call each rate good, and bad."""
    return Counter(rate for rate, fine in steps if fine), Counter(rate for rate, fine in steps if not fine)
