"""Receives the figures that the agents on the nodes (``agent.sh``) send once a second.

    <token> <node> <metric>=<integer> …

Times of the agents are not used: a row is stamped when it arrives, on the observer's own clock. What
does not carry the token, or is not of that form, is dropped.
"""

from __future__ import annotations

import hmac
from typing import Any

UNITS = {
    "cpu_us": ("cpu_seconds", 1e-6),
    "cpu_ns": ("cpu_seconds", 1e-9),
    "throttled_us": ("cpu_throttled_seconds", 1e-6),
    "throttled_ns": ("cpu_throttled_seconds", 1e-9),
    "memory": ("memory_bytes", 1.0),
    "io_read": ("io_read_bytes", 1.0),
    "io_write": ("io_write_bytes", 1.0),
    "processes": ("processes", 1.0),
    "agent_ns": ("collector_cpu_seconds", 1e-9),
    "agent_ticks": ("collector_cpu_seconds", 0.01),
}
"""Name in the datagram → metric and factor. Clock ticks are 1/100 s on every Linux (USER_HZ)."""


def parse(datagram: bytes, token: str, moment: int) -> list[dict[str, Any]]:
    """Rows of the table ``metrics``; empty for a datagram that is not an agent's."""
    try:
        words = datagram.decode().split()
    except UnicodeDecodeError:
        return []
    if len(words) < 3 or not hmac.compare_digest(words[0].encode(), token.encode()):
        return []
    rows = []
    for word in words[2:]:
        name, _, value = word.partition("=")
        if name in UNITS and value.isdigit():
            metric, factor = UNITS[name]
            rows.append(
                {"t": moment, "node": words[1], "metric": metric, "label": None, "value": int(value) * factor}
            )
    return rows
