"""PostgreSQL is stopped by hand, the hard way: ``pg_ctl stop -m immediate`` behind Patroni's back.

Every process ends at once without a checkpoint, as in a crash; what is left recovers from WAL.
"""

from __future__ import annotations

from lab.faults._stop import Stop

FAULT = Stop(
    name="stop-immediate",
    summary="pg_ctl stop -m immediate by hand: every process of PostgreSQL ends at once, as in a crash",
    colour="#b31412",
    kind="operator",
    moves_leader="yes",
    chain="release",
    ends_itself=True,
    mode="immediate",
)
