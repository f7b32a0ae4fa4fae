"""A link that cuts data into small pieces: each message comes in many segments, with pauses between them.

As a path with a tiny MTU or a middlebox that re-segments. Whoever takes one read for one message breaks here;
whoever reads to the end of a message is only slower.
"""

from __future__ import annotations

from lab.faults._toxics import LinkFault, Measured, both_ways
from lab.faults._toxiproxy import Toxic

SIZE_BYTES = 128
VARIATION_BYTES = 64
DELAY_US = 1000
"""After every piece."""


def _shows(through: Measured, past: Measured) -> tuple[bool, str]:
    """The kernel received pieces no larger than they may be, and past the proxy much larger ones."""
    if through.segment is None or past.segment is None:
        return False, f"a large answer did not come through the proxy: {through.error}"
    most = SIZE_BYTES + VARIATION_BYTES
    how = (
        f"a segment holds {through.segment:.0f} bytes through the proxy, {past.segment:.0f} past it; "
        f"pieces are at most {most}"
    )
    return through.segment <= most and past.segment > 2 * most, how


FAULT = LinkFault(
    name="slicing",
    summary=f"data to and from the node comes in pieces of about {SIZE_BYTES} bytes, 1 ms apart",
    colour="#00796b",
    toxics=both_ways(
        Toxic(
            "pglab-slicing",
            "slicer",
            {"average_size": SIZE_BYTES, "size_variation": VARIATION_BYTES, "delay": DELAY_US},
        )
    ),
    shows=_shows,
)
