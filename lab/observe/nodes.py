"""The node watcher: every database node asked directly, over the control network.

Whether a node accepts writes is found by having it assign a transaction id: a standby cannot, and a
transaction that has an id but wrote nothing waits for no synchronous standby
(``RecordTransactionCommit`` in PostgreSQL's ``xact.c``: it waits only where WAL was written before the
commit record). One round trip, no error on a standby. A node that does not answer delays no other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lab.observe.config import Endpoint, node_of
from lab.observe.link import Answer
from lab.observe.outcomes import Trouble
from lab.observe.process import Context, Stop, now, ticks
from lab.observe.rows import Rows
from lab.observe.schedule import NS
from lab.observe.wire import Wire, conninfo

TIMEOUT_S = 1.0
"""For connecting, and for an answer (a statement timeout on the server, a little more here)."""

SQL = b"""
SELECT r, CASE WHEN NOT r THEN pg_current_xact_id()::text END,
       CASE WHEN NOT r THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
            ELSE COALESCE((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint())) END,
       (CASE WHEN r THEN COALESCE(pg_last_wal_replay_lsn(), '0/0')
             ELSE pg_current_wal_lsn() END - '0/0')::bigint
  FROM (SELECT pg_is_in_recovery() AS r) AS state"""


class NodeWatch:
    """Asks one node, again and again; at most one question is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint, rows: Rows) -> None:
        self.node = node_of(endpoint)
        self._loop, self._rows = loop, rows
        self._info = conninfo(endpoint, "lab-nodes", f"-c statement_timeout={round(TIMEOUT_S * 1000)}")
        self._wire: Wire | None = None
        self._ready = False
        self._timer: asyncio.TimerHandle | None = None
        self._asked = 0

    def ask(self) -> None:
        """Ask, unless the last question is still open."""
        if self._timer is not None:
            return
        self._asked = now()
        self._timer = self._loop.call_later(TIMEOUT_S * (1.2 if self._ready else 1.0), self._late)
        if self._wire is not None and self._ready:
            self._wire.query(SQL, self._answered, self._troubled)
            return
        wire = self._wire = Wire(self._loop, self._info)

        def ready() -> None:
            self._ready = True
            wire.query(SQL, self._answered, self._troubled)

        wire.connect(lambda: wire.log_in(ready), self._troubled)

    def _late(self) -> None:
        self._troubled(Trouble(True, None, "no answer in time"))

    def _troubled(self, trouble: Trouble) -> None:  # noqa: ARG002
        self.close()
        self._row(reachable=False, accepts_writes=False)

    def _answered(self, answer: Answer) -> None:
        self._settle()
        recovery, xid, timeline, lsn = answer.rows[0]
        self._row(
            reachable=True,
            accepts_writes=xid is not None,
            in_recovery=recovery == "t",
            timeline=int(timeline) if timeline is not None else None,
            lsn=int(lsn) if lsn is not None else None,
        )

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _row(self, **values: Any) -> None:
        empty = {"in_recovery": None, "timeline": None, "lsn": None}
        self._rows.write({"t_sent": self._asked, "t_done": now(), "node": self.node} | empty | values)

    def close(self) -> None:
        self._settle()
        if self._wire is not None:
            self._wire.close()
            self._wire, self._ready = None, False


async def _run(context: Context) -> None:
    loop = asyncio.get_running_loop()
    stop = Stop(loop, context)
    rows = Rows(context.config.out, "nodes", "watch")
    interval = round(context.config.probes.node_interval_s * NS)
    cancels = []
    watches = [NodeWatch(loop, endpoint, rows) for endpoint in context.config.nodes]
    for index, watch in enumerate(watches):
        # Spread over the interval, so that the machine is not asked everything at one moment.
        start = context.base + index * interval // len(watches)
        cancels.append(ticks(loop, start, interval, lambda _k, _t, watch=watch: watch.ask()))  # type: ignore[misc]
    await stop.event.wait()
    for cancel in cancels:
        cancel()
    for watch in watches:
        watch.close()
    rows.close()


def watch(context: Context) -> None:
    """Process: the node watcher."""
    asyncio.run(_run(context))
