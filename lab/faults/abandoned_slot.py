"""A replication slot that nobody consumes: the primary keeps all WAL from now on, until the disk is full.

Patroni drops slots that it does not know. What survives it in practice are slots that its configuration
names (``ignore_slots``), made for a consumer that has gone: so is this one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from lab.driver import Lab
from lab.errors import LabError
from lab.faults import _patroni
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves, On, arm, disarm, first_true, node_of
from lab.faults._shell import psql, shell, timed

SLOT = "lab_abandoned"
_PSQL = "psql -X -q -t -A -v ON_ERROR_STOP=1 -h /run/postgresql -d postgres"
_MAKE = f"""{_PSQL} -c "SELECT pg_create_physical_replication_slot('{SLOT}', true)" >/dev/null"""
_DROP = f"""
chpst -u postgres {_PSQL} -c "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
  WHERE slot_name = '{SLOT}' AND NOT active" >/dev/null
"""
_LOOK = f"""
SELECT active, restart_lsn, CASE WHEN pg_is_in_recovery() THEN 0
  ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END
FROM pg_replication_slots WHERE slot_name = '{SLOT}'"""


@dataclass(frozen=True)
class AbandonedSlot:
    name: str = "abandoned-slot"
    summary: str = "a replication slot that nobody consumes: the primary keeps all WAL from now on"
    needs: tuple[str, ...] = ("patroni",)
    colour: str = "#137333"
    kind: Kind = "resource"
    moves_leader: Moves = "no"
    on: tuple[On, ...] = ("database",)
    lasts_s: float = 30

    def plan(self, lab: Lab, node: str) -> Instructions:
        config = _patroni.call(lab, node_of(lab, node).name, "GET", "/config").json()
        ignored = [item for item in config.get("ignore_slots") or [] if item.get("name") != SLOT]
        return {"node": node, "ignore_slots": ignored or None}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        ignored = [*(plan["ignore_slots"] or []), {"name": SLOT, "type": "physical"}]
        self._ignore(lab, node, ignored)
        # Patroni takes its configuration over in its next loop; a slot that it does not know yet goes.
        time.sleep(lab.topology.postgres.patroni.loop_wait + 1.0)
        arm(lab, node, self.name, _DROP, plan.get("deadline_s"))
        earliest, latest = timed(lab, node, _MAKE, user="postgres")
        return Effect(node, earliest, latest, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """After two loops of Patroni it is still there, unused, and holds WAL back."""
        node = str(effect.node)
        time.sleep(2 * lab.topology.postgres.patroni.loop_wait)
        # Something is written in any case, and no more: how fast WAL piles up is a figure of the run.
        psql(lab, node, "SELECT pg_create_restore_point('lab') WHERE NOT pg_is_in_recovery()")
        rows = psql(lab, node, _LOOK)
        if not rows:
            return Evidence(False, f"{node}: there is no slot {SLOT}")
        active, start, behind = rows[0]
        use = "in use" if active == "t" else "unused"
        how = f"{node}: slot {SLOT} is {use}, at {start}, {behind} bytes behind"
        return Evidence(active == "f" and bool(start) and float(behind) > 0, how)

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        name = str(instructions["node"])
        node = node_of(lab, name)
        if not node.state().running:
            node.start()
            raise LabError(f"{name} had to be started first: its slot is dropped at the next attempt")
        disarm(lab, name, self.name)
        shell(lab, name, _DROP)
        self._ignore(lab, name, instructions["ignore_slots"])

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])

        def look() -> Evidence:
            rows = psql(lab, node, _LOOK)
            return Evidence(not rows, f"{node}: slot {SLOT} {'is still there' if rows else 'is gone'}")

        return first_true(look, 10, lambda: time.sleep(0.5))

    def _ignore(self, lab: Lab, node: str, slots: list[dict[str, Any]] | None) -> None:
        _patroni.call(lab, node, "PATCH", "/config", {"ignore_slots": slots})


FAULT = AbandonedSlot()
