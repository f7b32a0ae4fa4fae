"""Keeps Locust's own statistics right, at a fraction of their cost.

Firing Locust's request event costs several times as much as all the rest that happens to a
request here. So its statistics are told of a whole buffer of the record at once. Listeners that a
workload adds to the event are still called for each request, with exact floats.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any

from locust.stats import StatsEntry, StatsError, bucket_response_time

from loadtests.format import NULL, ROW
from loadtests.outcomes import OK

_MS = 1e-6


class LocustStatistics:
    """Tells Locust of rows of the record. Make it after the runner, whose listener it replaces."""

    def __init__(self, environment: Any, texts: dict[str, list[str]]) -> None:
        self._environment = environment
        self._texts = texts
        event = environment.events.request
        own = [
            handler for handler in event._handlers if getattr(handler, "__module__", "") == "locust.runners"
        ]
        # Should a version of Locust listen in another way, it simply stays as it is: slower, still right.
        self._batch = len(own) == 1
        if self._batch:
            event.remove_listener(own[0])

    def rows(self, rows: memoryview) -> None:
        """Rows as the recorder packs them."""
        groups: dict[tuple[int, int, int], list[float]] = {}
        nulls: dict[tuple[int, int, int], int] = {}
        for intended, started, done, name, endpoint, outcome, _, _ in ROW.iter_unpack(rows):
            key = (name, endpoint, outcome)
            if started == NULL:
                nulls[key] = nulls.get(key, 0) + 1
                continue
            try:
                groups[key].append((done - intended) * _MS)
            except KeyError:
                groups[key] = [(done - intended) * _MS]
        if self._batch:
            for key, values in groups.items():
                self._tell(key, values, len(values))
            for key, count in nulls.items():
                self._tell(key, [], count)
        if self._environment.events.request._handlers:
            self._fire(groups, nulls)

    def _tell(self, key: tuple[int, int, int], values: list[float], count: int) -> None:
        name, endpoint, outcome = self._words(key)
        stats = self._environment.stats
        now = time()
        for entry in (stats.total, stats.entries[(name, endpoint)]):
            _log_many(entry, values, count, now)
            if outcome != OK:
                entry.num_failures += count
                entry.num_fail_per_sec[int(now)] += count
        if outcome != OK:
            error = stats.errors.get(_error_key(endpoint, name, outcome))
            if error is None:
                error = stats.errors[_error_key(endpoint, name, outcome)] = StatsError(
                    endpoint, name, outcome
                )
            error.occurrences += count

    def _fire(
        self, groups: dict[tuple[int, int, int], list[float]], nulls: dict[tuple[int, int, int], int]
    ) -> None:
        fire: Callable[..., None] = self._environment.events.request.fire
        nothing: list[float | None] = [None]
        for key in {**groups, **nulls}:
            name, endpoint, outcome = self._words(key)
            for value in [*groups.get(key, []), *nothing * nulls.get(key, 0)]:
                fire(
                    request_type=endpoint,
                    name=name,
                    response_time=value,
                    response_length=0,
                    exception=None if outcome == OK else RuntimeError(outcome),
                    context={},
                )

    def _words(self, key: tuple[int, int, int]) -> tuple[str, str, str]:
        texts = self._texts
        return texts["name"][key[0]], texts["endpoint"][key[1]], texts["outcome"][key[2]]


def _error_key(method: str, name: str, outcome: str) -> str:
    return str(StatsError.create_key(method, name, outcome))


def _log_many(entry: StatsEntry, values: list[float], count: int, now: float) -> None:
    """What ``StatsEntry.log`` does, for many at once."""
    second = int(now)
    last = entry.last_request_timestamp
    if entry.use_response_times_cache and last and second > int(last):
        entry._cache_response_times(second - 1)
    entry.num_requests += count
    entry.num_reqs_per_sec[second] += count
    entry.last_request_timestamp = now
    if not values:
        entry.num_none_requests += count
        return
    entry.total_response_time += sum(values)  # type: ignore[assignment,unused-ignore]
    least, most = min(values), max(values)
    known = entry.min_response_time
    entry.min_response_time = least if known is None or least < known else known  # type: ignore[assignment,unused-ignore]
    entry.max_response_time = max(entry.max_response_time, most)  # type: ignore[assignment,unused-ignore]
    times = entry.response_times
    for value in values:
        times[round(value) if value < 100 else bucket_response_time(value)] += 1
