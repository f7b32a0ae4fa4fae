"""The fork of the timeline at a failover: what the old primary had, and said, that nobody has any more.

Words, for one trial with an old primary and another node that took over:

- *parent timeline*: the one that the old primary wrote when the fault took effect.
- *switch point*: where the new timeline left it; *end*: where the old primary's WAL on it ended. From the
  evidence that was kept before the old primary was rewound (``evidence/<node>-<UTC>.txt``: its whole WAL was
  read); else from samples: what the new primary had replayed when it promoted, and the old one's last
  position (it may have written more after its last sample).
- *beyond* = end − switch point, bytes of WAL, never less than 0: the RPO in bytes of WAL.
- *on the losing timeline*: writes that the old primary acknowledged and that are lost, or that were sent to
  it after the new primary had accepted writes. A node that leads again is no old primary from then on.
- *dual*: writes that the old primary acknowledged and that were sent after the new one had accepted writes,
  to the end of the trial. That is split brain as clients felt it. *dual_s*: the new primary's first accepting
  answer → the last of these acknowledgements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab.record.schema import NS
from reports.analysis.columns import MISSING, Bools, Nodes, Writes
from reports.analysis.model import Fork


def lsn(text: str) -> int | None:
    """A WAL position (``16/B374D848``) in bytes; None where it is none."""
    high, _, low = text.strip().partition("/")
    try:
        return (int(high, 16) << 32) + int(low, 16)
    except ValueError:
        return None


def parse_evidence(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """What ``evidence/<node>-<UTC>.txt`` say: file, node, timeline, fork_lsn, end_lsn (bytes or None)."""
    found = []
    for name, text in sorted(files.items()):
        pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        node = name.rpartition("/")[2].rpartition("-")[0]
        timeline = pairs.get("timeline", "").strip()
        found.append(
            {
                "file": name,
                "node": node,
                "timeline": int(timeline) if timeline.isdigit() else None,
                "fork_lsn": lsn(pairs.get("fork_lsn", "")),
                "end_lsn": lsn(pairs.get("end_lsn", "")),
            }
        )
    return found


def accepted_first(nodes: Nodes, new: str, since: int) -> int | None:
    """The first answer in which the new primary had accepted a write, ns, of those asked after ``since``."""
    rows = np.flatnonzero(nodes.node.equals(new) & nodes.accepts & (nodes.sent >= since))
    return int(nodes.done[rows[0]]) if len(rows) else None


def fork(
    writes: Writes,
    lost: Bools,
    nodes: Nodes,
    evidence: Sequence[dict[str, Any]],
    events: Sequence[dict[str, Any]],
    old: str | None,
    new: str | None,
    effect: int,
    sampled_bytes: int | None,
) -> Fork | None:
    """The fork of one trial; None where nobody took over.

    Args:
        writes: the trial's; ``lost`` its rows that the audit did not find.
        events: the trial's, in the order of time.
        sampled_bytes: WAL beyond the switch point, from samples (``ledger.wal_beyond_fork``).
    """
    if old is None or new is None or old == new:
        return None
    parent = _parent(nodes, old, effect)
    mine = [e for e in evidence if e["node"] == old and e["timeline"] is not None and e["timeline"] == parent]
    kept = next((e for e in mine if e["fork_lsn"] is not None and e["end_lsn"] is not None), None)
    beyond = max(0, kept["end_lsn"] - kept["fork_lsn"]) if kept else sampled_bytes
    by_old = writes.server.equals(old) & writes.outcome.equals("acknowledged", "acknowledged_locally")
    since = accepted_first(nodes, new, effect)
    until = _leads_again(events, old, since if since is not None else effect)
    by_old &= (writes.done != MISSING) & (writes.done < until)
    dual = by_old & (writes.sent > since) if since is not None else np.zeros(len(writes), dtype=np.bool_)
    losing = dual | (by_old & lost)
    return Fork(
        old=old,
        new=new,
        parent_timeline=parent,
        switch_lsn=kept["fork_lsn"] if kept else None,
        end_lsn=kept["end_lsn"] if kept else None,
        beyond_bytes=beyond,
        source=kept["file"] if kept else ("samples" if beyond is not None else None),
        losing=int(losing.sum()),
        losing_lost=int((losing & lost).sum()),
        watched=since is not None,
        dual=int(dual.sum()),
        dual_s=(int(writes.done[dual].max()) - since) / NS if since is not None and dual.any() else 0.0,
    )


def _parent(nodes: Nodes, old: str, effect: int) -> int | None:
    rows = np.flatnonzero(nodes.node.equals(old) & nodes.accepts & (nodes.sent <= effect))
    timeline = int(nodes.timeline[rows[-1]]) if len(rows) else MISSING
    return timeline if timeline != MISSING else None


def _leads_again(events: Sequence[dict[str, Any]], old: str, since: int) -> int:
    """When the old primary is elected once more, ns; the end of time where it is not."""
    again = [
        int(e["t"])
        for e in events
        if e["kind"] == "leader-elected"
        and e["t"] > since
        and (e["detail"].get("leader") or e["node"]) == old
    ]
    return again[0] if again else int(np.iinfo(np.int64).max)
