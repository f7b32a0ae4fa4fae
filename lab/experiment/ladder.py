"""Which rate to offer next, from the steps so far.

Pure: the same steps give the same next rate, so that a run that was interrupted goes on where it was.
Up by a factor until a step is bad; then by bisection (of the logarithm) between the last good and the first
bad, until they lie within the precision; then the good one is repeated, and all others after it. A rate is
good if all its steps are: a repeat that fails makes it bad, and the search goes on below it.
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
    """Steps that the knee's rate needs, all of them good, and then every other rate."""
    least: float = 1.0
    most: float = 20_000.0
    most_steps: int = 40

    def bracket(self, steps: Sequence[Step]) -> tuple[float | None, float | None]:
        """(greatest good rate below every bad one, least bad rate)."""
        bad = min((rate for rate, good in steps if not good), default=None)
        good = max((rate for rate, fine in steps if fine and (bad is None or rate < bad)), default=None)
        return good, bad

    def following(self, steps: Sequence[Step]) -> float | None:
        """The next rate; None where the search has ended."""
        if not steps:
            return self.first
        if len(steps) >= self.most_steps:
            return None
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

    def _again(self, steps: Sequence[Step], rate: float) -> float | None:
        times = Counter(known for known, _ in steps)
        wanted = [rate, *sorted(times)]
        return next((one for one in wanted if times[one] < self.repeats), None)
