"""Connections that break as soon as they are used: the next message on each ends it.

As a firewall that lost its table, or a load balancer that was replaced: connecting succeeds, then a reset
comes (for connections that were open before, Toxiproxy says it with a plain end). Whether the message got
through is not known to who sent it: it did not, but writes are rightly *unknown*.
"""

from __future__ import annotations

from lab.faults._toxics import LinkFault, Measured
from lab.faults._toxiproxy import Toxic


def _shows(through: Measured, past: Measured) -> tuple[bool, str]:
    """A new connection through the proxy breaks before its first answer; past it, statements are answered."""
    how = f"through the proxy: {through.error or 'answers come'}; past it: {past.error or 'answers come'}"
    return bool(through.error) and not through.answers and bool(past.answers), how


FAULT = LinkFault(
    name="reset",
    summary="every connection to the node is reset at its next message",
    colour="#ff7043",
    kind="kill",
    toxics=(Toxic("pglab-reset", "reset_peer", {"timeout": 0}, stream="upstream"),),
    shows=_shows,
    lasts_s=15,
)
