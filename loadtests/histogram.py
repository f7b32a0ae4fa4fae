"""A histogram of durations with a bounded relative error, that adds up over processes."""

from __future__ import annotations

import math
from collections.abc import Mapping

GROWTH = 1.02
"""Each bucket's bound is 2 % above the one before: no percentile is off by more than that."""
_FACTOR = 1.0 / math.log(GROWTH)


class Histogram:
    """Durations in ns, in buckets that grow by 2 %; everything below 1 µs is one bucket."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})
        self.most = 0

    def add(self, value_ns: int) -> None:
        """Count one duration."""
        bucket = int(math.log(value_ns * 1e-3) * _FACTOR) + 1 if value_ns > 1000 else 0
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        if value_ns > self.most:
            self.most = value_ns

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.most = max(self.most, other.most)

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def percentile(self, p: float) -> float | None:
        """The upper bound, in ns, of the bucket that the p-th percentile falls in.

        None with fewer than 10 samples beyond it: such a figure would be chance.
        """
        total = self.total
        if total * (100 - p) / 100 < 10:
            return None
        rank = total * p / 100
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return 1000.0 * GROWTH**bucket
        return None

    def to_json(self) -> dict[str, object]:
        """What ``from_json`` reads."""
        return {"counts": {str(k): v for k, v in self.counts.items()}, "most": self.most}

    @classmethod
    def from_json(cls, value: dict[str, object]) -> Histogram:
        """Read what another process wrote."""
        counts = value["counts"]
        assert isinstance(counts, dict)
        made = cls({int(k): int(v) for k, v in counts.items()})
        made.most = int(str(value["most"]))
        return made
