"""A narrow link: each connection gets few bytes a second, in both directions.

Small statements pass, large answers queue, and so do log-ins: certificates are some kilobytes.
"""

from __future__ import annotations

from lab.faults._toxics import BULK_BYTES, LinkFault, Measured, both_ways
from lab.faults._toxiproxy import Toxic

RATE_KB_S = 8
"""Thousands of bytes a second and connection."""


def _shows(through: Measured, past: Measured) -> tuple[bool, str]:
    """A large answer takes about as long as the rate says, and past the proxy less than half of that."""
    if through.bulk is None or past.bulk is None:
        return False, f"a large answer did not come through the proxy: {through.error}"
    should = BULK_BYTES / (RATE_KB_S * 1000)
    how = (
        f"{BULK_BYTES} bytes take {through.bulk:.2f} s through the proxy, {past.bulk:.2f} s past it; "
        f"at {RATE_KB_S} KB/s {should:.2f} s"
    )
    return through.bulk >= 0.7 * should and past.bulk < 0.5 * should, how


FAULT = LinkFault(
    name="bandwidth",
    summary=f"each connection to the node gets {RATE_KB_S} KB/s each way",
    colour="#0097a7",
    toxics=both_ways(Toxic("pglab-bandwidth", "bandwidth", {"rate": RATE_KB_S})),
    shows=_shows,
)
