"""Commands on a container through the engine's attach stream: separate outputs, input, deadlines.

The SDK's own reader has no deadline, cannot send input, and drops output that arrives in the same
packet as the response header. Here the buffered rest of the response is read first, then the socket.

Wire format (Docker Engine API, "Stream format"): frames of an 8-byte header {type, 0, 0, 0,
big-endian length} and a payload; type 1 is standard output, 2 standard error.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any

import docker

_CHUNK = 65_536


class Frames:
    """Splits the multiplexed byte stream into (type, payload) frames, whatever the packet borders."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes in, give every frame that is complete by now."""
        self._buffer += data
        while len(self._buffer) >= 8:
            kind, length = struct.unpack_from(">BxxxL", self._buffer)
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            yield kind, payload

    @property
    def rest(self) -> int:
        """Bytes of an incomplete frame."""
        return len(self._buffer)


class Attached:
    """The attached streams of one exec; one thread reads, any thread may close."""

    def __init__(self, client: docker.APIClient, exec_id: str) -> None:
        raw: Any = client.exec_start(exec_id, socket=True)
        self._raw = raw
        response = getattr(raw, "_response", None)
        self._response = response
        self._buffered: Any = None
        if response is not None:
            with contextlib.suppress(AttributeError):
                self._buffered = response.raw._fp.fp
        self._sock: Any = getattr(raw, "_sock", raw)
        with contextlib.suppress(AttributeError):
            self._sock.settimeout(0)
        self._first = True
        self._frames = Frames()
        # A socketpair lets close() from another thread end a blocking read.
        self._wake_in, self._wake_out = socket.socketpair()
        self._closed = False
        self._reading = False

    def send_and_read(self, data: bytes | None, deadline: float | None) -> Iterator[tuple[int, bytes]]:
        """Send all input (then end of file) while giving output frames until the command ends.

        Args:
            data: input of the command; None where no input is attached.
            deadline: ``time.monotonic()`` value; None waits for ever.

        Raises:
            TimeoutError: the deadline passed.
        """
        self._reading = True
        pending = memoryview(data or b"")
        to_send = data is not None
        if to_send and not pending:
            self._half_close()
            to_send = False
        while not self._closed:
            if self._first:
                self._first = False
                yield from self._frames.feed(self._read_buffered())
                if self._closed:
                    return
            wait = None if deadline is None else deadline - time.monotonic()
            if wait is not None and wait <= 0:
                raise TimeoutError
            readable: list[Any] = [self._sock, self._wake_out]
            if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                wait = 0
            ready, writable, _ = select.select(readable, [self._sock] if to_send else [], [], wait)
            if self._wake_out in ready or self._closed:
                return
            if writable:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
                    try:
                        pending = pending[self._sock.send(pending[:_CHUNK]) :]
                    except (BrokenPipeError, ConnectionResetError):
                        to_send = False  # the command ended without reading all of its input
                    else:
                        if not pending:
                            self._half_close()
                            to_send = False
            if self._sock in ready or wait == 0:
                try:
                    chunk = self._sock.recv(_CHUNK)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                except ConnectionResetError:
                    chunk = b""
                if not chunk:
                    return
                yield from self._frames.feed(chunk)

    def _read_buffered(self) -> bytes:
        """What came in the same packets as the response header."""
        if self._buffered is None:
            return b""
        data = bytearray()
        with contextlib.suppress(BlockingIOError, ValueError, OSError):
            while piece := self._buffered.read1(_CHUNK):
                data += piece
        return bytes(data)

    def _half_close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection (and with it the command's standard input). Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._wake_in.send(b"x")
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if not self._reading:
            self.release()

    def release(self) -> None:
        """Free the descriptors; called by the reading thread when it is done."""
        self.close()
        for thing in (self._wake_in, self._wake_out, self._raw, self._sock, self._response):
            if thing is not None:
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    thing.close()
