"""A slow link: every piece of data is under way for longer, in both directions.

As between regions, or behind a VPN that takes a detour: a statement costs one round trip more, a transaction
as many as it has statements, a new connection all those of TCP's data, TLS and SCRAM.
"""

from __future__ import annotations

from lab.faults._toxics import LinkFault, Measured, both_ways
from lab.faults._toxiproxy import Toxic

ONE_WAY_MS = 50


def _shows(through: Measured, past: Measured) -> tuple[bool, str]:
    """At least nine tenths of the round trip were added."""
    slow, plain = through.typical * 1000, past.typical * 1000
    how = f"an answer takes {slow:.0f} ms through the proxy, {plain:.0f} ms past it"
    return slow - plain >= 0.9 * 2 * ONE_WAY_MS, f"{how}{through.error and '; ' + through.error}"


FAULT = LinkFault(
    name="latency",
    summary=f"the link to the node is {ONE_WAY_MS} ms longer each way",
    colour="#8ab4f8",
    toxics=both_ways(Toxic("pglab-latency", "latency", {"latency": ONE_WAY_MS, "jitter": 0})),
    shows=_shows,
)
