"""The runner's clock against the observer's. Truth is the observer's monotonic clock, in ns."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lab.errors import LabError
from lab.record.schema import Anchor, ClockOffset

PINGS = 20
TIMEOUT_S = 0.5
PATIENCE = 8
"""Questions without an answer until a clock that did answer before is given up."""
WALL_UNCERTAINTY_NS = 20_000

Ask = Callable[[], tuple[int, int]]
"""One question to the observer: its monotonic and its wall clock, ns. LabError where it is silent."""


@dataclass(frozen=True)
class Reading:
    """The shortest of some exchanges."""

    offset_ns: int
    """observer = runner + offset."""
    uncertainty_ns: int
    """Half the round trip."""
    anchor: Anchor


def udp(address: tuple[str, int]) -> Ask:
    """Questions as datagrams to the observer's clock port."""

    def ask() -> tuple[int, int]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT_S)
            try:
                sock.connect(address)
                sock.send(b"clock")
                words = sock.recv(64).split()
                return int(words[0]), int(words[1])
            except (OSError, ValueError, IndexError) as error:
                raise LabError(
                    f"the observer's clock does not answer on {address[0]}:{address[1]}"
                ) from error

    return ask


def tell(address: tuple[str, int], datagram: str, attempts: int = 3) -> str:
    """Send a datagram to the observer's clock port; its answer, "" where none comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        for _ in range(attempts):
            try:
                sock.connect(address)
                sock.send(datagram.encode())
                return sock.recv(256).decode(errors="replace")
            except OSError:
                continue
    return ""


def read(ask: Ask, pings: int = PINGS, misses: int = 2) -> Reading:
    """Ask some times; the exchange with the shortest round trip counts.

    LabError where the clock is silent: none of the first ``misses`` questions is answered.
    """
    best: Reading | None = None
    missed = 0
    for _ in range(pings):
        sent = time.monotonic_ns()
        try:
            monotonic, wall = ask()
        except LabError:
            missed += 1
            if missed < misses:
                continue
            if best is None:
                raise
            break
        back = time.monotonic_ns()
        half = (back - sent + 1) // 2
        if best is None or half < best.uncertainty_ns:
            anchor = Anchor(monotonic_ns=monotonic, wall_ns=wall)
            best = Reading(monotonic - (sent + back) // 2, half, anchor)
    assert best is not None
    return best


class ObserverClock:
    """Moments of the runner and of the engine's host on the observer's clock.

    The nodes' wall clock is the engine's; so is the observer's, hence its own pair of clocks, read
    together, turns a node's wall time into the observer's monotonic time.
    """

    def __init__(self, ask: Ask, slow: Ask) -> None:
        """``slow`` is asked where ``ask`` is not answered (a port that is not reachable from here)."""
        self._ask, self._slow = ask, slow
        self._pings = PINGS
        try:
            self.reading = read(ask)
        except LabError:
            self._ask, self._pings = slow, 3
            self.reading = read(slow, 3)

    def refresh(self) -> Reading:
        """Measure anew, so that drift and steps of the wall clock do not add up.

        A machine that is busy, with the fault that has just been injected too, is given some seconds; then
        the observer is asked the slow way. LabError where it is silent all the same.
        """
        try:
            self.reading = read(self._ask, self._pings, PATIENCE)
        except LabError:
            self.reading = read(self._slow, 3)
        return self.reading

    def now(self) -> int:
        return time.monotonic_ns() + self.reading.offset_ns

    @property
    def uncertainty(self) -> int:
        return self.reading.uncertainty_ns

    @property
    def wall_uncertainty(self) -> int:
        """± ns of ``from_wall``: the observer reads its two clocks one after the other."""
        return WALL_UNCERTAINTY_NS

    def from_wall(self, wall_s: float) -> int:
        """A moment of the engine's wall clock (seconds since the epoch)."""
        anchor = self.reading.anchor
        return anchor.monotonic_ns + round(wall_s * 1e9) - anchor.wall_ns

    def offsets(self, when: Literal["start", "end"]) -> list[ClockOffset]:
        """For the manifest: the runner's monotonic clock and the engine's wall clock."""
        anchor = self.reading.anchor
        return [
            ClockOffset(
                clock="runner",
                when=when,
                offset_ns=self.reading.offset_ns,
                uncertainty_ns=self.reading.uncertainty_ns,
            ),
            ClockOffset(
                clock="engine",
                when=when,
                offset_ns=anchor.monotonic_ns - anchor.wall_ns,
                uncertainty_ns=WALL_UNCERTAINTY_NS,
            ),
        ]
