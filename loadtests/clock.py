"""This machine's monotonic clock against the observer's, by exchanging datagrams."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from time import monotonic_ns

EXCHANGES = 8
TIMEOUT_S = 0.5


@dataclass(frozen=True)
class Offset:
    """observer = client + ``offset_ns``, ± ``uncertainty_ns``, as of ``at_ns`` of the client's clock."""

    offset_ns: int
    uncertainty_ns: int
    at_ns: int


def measure(address: tuple[str, int], exchanges: int = EXCHANGES) -> Offset | None:
    """Ask the observer's clock some times; the exchange with the shortest round trip counts.

    The uncertainty is half that round trip. None where no answer came.
    """
    best: Offset | None = None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        try:
            sock.connect(address)
        except OSError:
            return None
        misses = 0
        while exchanges > 0 and misses < 2:
            exchanges -= 1
            sent = monotonic_ns()
            try:
                sock.send(b"clock")
                answer = sock.recv(64)
            except OSError:
                misses += 1
                continue
            back = monotonic_ns()
            try:
                theirs = int(answer.split()[0])
            except (ValueError, IndexError):
                continue
            half = (back - sent + 1) // 2
            if best is None or half < best.uncertainty_ns:
                best = Offset(theirs - (sent + back) // 2, half, back)
    return best
