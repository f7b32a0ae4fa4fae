"""An unsteady link: every piece of data is under way for another time, in both directions.

As over a crowded or wireless network. What is asked in one round trip comes back sometimes at once, sometimes
four times later; order is kept, since TCP keeps it.
"""

from __future__ import annotations

from lab.faults._toxics import LinkFault, Measured, both_ways
from lab.faults._toxiproxy import Toxic

ONE_WAY_MS = 40
"""Mean of the added time, and how far it varies either way: 0 to 80 ms, uniformly."""


def _shows(through: Measured, past: Measured) -> tuple[bool, str]:
    """The middle half of the answers lies wide apart, and past the proxy it does not.

    Two uniform times of 0 … 2 m add up to a triangle of 0 … 4 m, whose quartiles lie 1.17 m apart.
    """
    spread, other = through.spread * 1000, past.spread * 1000
    how = f"the middle half of answers spans {spread:.0f} ms through the proxy, {other:.0f} ms past it"
    shows = spread >= 0.4 * ONE_WAY_MS and spread > 2 * other
    return shows, f"{how}{through.error and '; ' + through.error}"


FAULT = LinkFault(
    name="jitter",
    summary=f"the link to the node is 0 to {2 * ONE_WAY_MS} ms longer each way, as chance has it",
    colour="#669df6",
    toxics=both_ways(Toxic("pglab-jitter", "latency", {"latency": ONE_WAY_MS, "jitter": ONE_WAY_MS})),
    shows=_shows,
)
