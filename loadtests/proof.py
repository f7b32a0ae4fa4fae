"""Proves at the start that users really run at the same time.

A wait that does not cooperate with gevent would serialise all users, silently: the load would look
slow and the database fast. So every load starts with n sessions that each sleep in the server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

import gevent

SLEEP_S = 0.2


class NotConcurrent(RuntimeError):
    """Users do not run at the same time: the load would measure itself."""


def overlap(spans: Sequence[tuple[float, float]]) -> int:
    """The greatest number of spans (begin, end) that are open at one moment."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def prove_concurrency(sleepers: Sequence[Callable[[float], object]], most: int = 50) -> dict[str, float]:
    """Run the first ``most`` sleepers (each sleeps in the server for the seconds that it is given) at once.

    Returns ``sessions``, ``overlap`` and ``seconds``.

    Raises:
        NotConcurrent: fewer than all (but one in ten) of them overlapped.
        Exception: what a sleeper raised.
    """
    spans: list[tuple[float, float]] = []

    def sleeper(sleep: Callable[[float], object]) -> None:
        begin = monotonic()
        sleep(SLEEP_S)
        spans.append((begin, monotonic()))

    chosen = sleepers[:most]
    begin = monotonic()
    greenlets = [gevent.spawn(sleeper, sleep) for sleep in chosen]
    gevent.joinall(greenlets)
    for greenlet in greenlets:
        if greenlet.exception is not None:
            raise greenlet.exception
    seen = overlap(spans)
    if seen < max(min(2, len(chosen)), 0.9 * len(chosen)):
        raise NotConcurrent(
            f"{len(chosen)} users each slept {SLEEP_S} s in the server, and only {seen} of them at the "
            f"same time ({monotonic() - begin:.1f} s in all): waiting does not cooperate with gevent, "
            f"so the load would send one request at a time"
        )
    return {"sessions": len(chosen), "overlap": seen, "seconds": round(monotonic() - begin, 3)}
