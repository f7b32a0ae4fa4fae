"""PostgreSQL is stopped by hand, in good order: ``pg_ctl stop -m fast`` behind Patroni's back.

Sessions end at once with an error; WAL reaches the standbys, a checkpoint is written, then it ends.
"""

from __future__ import annotations

from lab.faults._stop import Stop

FAULT = Stop(
    name="stop-fast",
    summary="pg_ctl stop -m fast by hand: sessions end at once, PostgreSQL shuts down in good order",
    colour="#c5221f",
    kind="operator",
    moves_leader="yes",
    chain="release",
    ends_itself=True,
    mode="fast",
)
