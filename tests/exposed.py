"""Synthetic records of a partition in which the old primary lived on, in reach of its clients."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.synthetic import truth


def expose(record: Path, *, reached: bool = True, unreplicated: bool = True) -> Path:
    """Let the old primary live on for a while: clients reach it, and nobody has what it writes."""
    for table, wanted in (("routes", reached), ("nodes", unreplicated)):
        rows = pq.read_table(record / f"{table}.parquet")
        frame = rows.to_pylist()
        for one in truth(record).trials if wanted else ():
            assert one.promoted is not None
            until = one.effect + (one.promoted - one.effect) // 2
            for row in frame:
                if not one.effect <= row["t_sent"] < until:
                    continue
                if table == "routes":
                    row.update(ok=True, server=one.old_primary)
                elif row["node"] == one.old_primary:
                    row.update(reachable=True, accepts_writes=True, in_recovery=False)
                    row.update(timeline=one.trial, lsn=1 << 40)
        pq.write_table(pa.Table.from_pylist(frame, schema=rows.schema), record / f"{table}.parquet")
    return record
