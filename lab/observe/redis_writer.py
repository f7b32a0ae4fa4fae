"""The Redis writer probe: increasing numbers to the primary that Sentinel announces, with a ledger.

Each write appends its number to one list, ``lab:ledger:<run>``, so that a duplicate can show. ``lasting``
keeps its connections until they break, as applications with a pool do; ``fresh`` asks Sentinel anew for every
write. An acknowledgement of Redis promises that the primary executed the write, and no more: replication is
asynchronous.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from lab.observe import outcomes
from lab.observe.book import drive
from lab.observe.outcomes import Outcome, Trouble
from lab.observe.process import Context, now
from lab.observe.redis_wire import RedisWire, Servers
from lab.observe.resp import encode
from lab.observe.rows import event
from lab.observe.sender import Operation, Session
from lab.observe.sentinel import Sentinels
from lab.observe.writer import GRACE_S, Ledger, turn

ENDPOINT = "sentinel"
"""What stands as ``endpoint`` in the ledger: clients are given no server, only the Sentinels."""


def key_of(run: str) -> str:
    """The list that holds a run's numbers."""
    return f"lab:ledger:{run}"


@dataclass
class RedisLedger(Ledger):
    """The ledger of the table ``redis_writes``; ``sqlstate`` holds the first word of Redis's error."""

    def statement(self, operation: Operation, session: Session) -> bytes:  # noqa: ARG002
        return encode("RPUSH", key_of(self.run), operation.n)

    def judge(self, trouble: Trouble) -> Outcome:
        return outcomes.of_redis(trouble)

    def announced(self, address: str, before: str | None) -> None:
        """Sentinel names another primary than before (or the first one)."""
        was = self.node(before)
        told = event(
            now(),
            "redis-primary",
            self.context.trial,
            source="observer",
            uncertainty=0,
            node=self.node(address),
            was=was,
            sessions=self.probe,
        )
        self.events.write(told)


async def _run(context: Context, fresh: bool) -> None:
    config = context.config
    loop = asyncio.get_running_loop()
    ledger = RedisLedger(context, "redis_writes", "fresh" if fresh else "lasting", ENDPOINT, fresh)
    sentinels = Sentinels(config.sentinels, config.sentinel_service, ledger.announced)
    servers = Servers(config.redis_clients, config.addresses)
    probes = replace(config.probes, sessions=config.probes.redis_sessions)
    intervals = probes.redis_writer_interval_s, probes.fresh_redis_writer_interval_s
    own, numbers = turn(context, intervals, fresh)
    await drive(ledger, lambda: RedisWire(loop, sentinels, servers), probes, own, numbers, GRACE_S)
    sentinels.close()


def lasting(context: Context) -> None:
    """Process: writes over lasting sessions."""
    asyncio.run(_run(context, fresh=False))


def fresh(context: Context) -> None:
    """Process: every write over a session of its own."""
    asyncio.run(_run(context, fresh=True))
