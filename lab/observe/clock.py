"""The observer's clock and control channel: one UDP port, one datagram a question.

    clock               →  ``<monotonic_ns> <wall_ns>``
    trial <n> <token>   →  ``trial <n> <monotonic_ns>``: from that moment rows carry trial n
    anything else       →  no answer

Half the round trip bounds the error of an offset measured with it. The token is in the configuration of
the run; without it the trial cannot be changed.
"""

from __future__ import annotations

import hmac
import socket
import time
from collections.abc import Callable

MAX_TRIAL = 1_000_000


def answer(
    datagram: bytes,
    token: str,
    set_trial: Callable[[int], None],
    monotonic: Callable[[], int] = time.monotonic_ns,
    wall: Callable[[], int] = time.time_ns,
) -> bytes | None:
    """The reply to one datagram, None for none."""
    words = datagram.split()
    if words == [b"clock"]:
        return b"%d %d" % (monotonic(), wall())
    if len(words) == 3 and words[0] == b"trial" and hmac.compare_digest(words[2], token.encode()):
        if not words[1].isdigit() or int(words[1]) > MAX_TRIAL:
            return None
        set_trial(int(words[1]))
        return b"trial %d %d" % (int(words[1]), monotonic())
    return None


def bind(address: str, port: int) -> socket.socket:
    """A UDP socket on the clock's port. OSError where it is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.setblocking(False)
    return sock


def serve(sock: socket.socket, token: str, set_trial: Callable[[int], None]) -> None:
    """Answer everything that has arrived."""
    while True:
        try:
            datagram, sender = sock.recvfrom(512)
        except BlockingIOError:
            return
        except OSError:
            continue
        reply = answer(datagram, token, set_trial)
        if reply is not None:
            try:
                sock.sendto(reply, sender)
            except OSError:
                continue
