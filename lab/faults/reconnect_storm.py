"""Every client of a pooler loses its connection at once, and all of them come back together.

KILL on PgBouncer's console drops all client and server connections of a database and keeps it closed until
RESUME, which follows at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from lab.deploy.endpoints import POOLER_PORT
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, first_true, node_of
from lab.faults._console import ask, command
from lab.faults._shell import NodeFault, answers_again


def _databases(lab: Lab) -> tuple[str, str]:
    name = lab.topology.postgres.database
    return name, f"{name}_ro"


def _clients(lab: Lab, node: str) -> list[dict[str, str]]:
    """The pooler's clients, without those of its console."""
    return [row for row in ask(lab, node, "SHOW CLIENTS") if row["database"] in _databases(lab)]


@dataclass(frozen=True)
class ReconnectStorm(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        clients = len(_clients(lab, node))
        if not clients:
            raise LabError(f"no client is connected to {node}, so none can lose its connection")
        return {"clients": clients}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        words, env = command(lab, node)
        for database in _databases(lab):
            words += ["-c", f"KILL {database}"]
        for database in _databases(lab):
            words += ["-c", f"RESUME {database}"]
        script = 'a=$EPOCHREALTIME; "$@"; c=$?; b=$EPOCHREALTIME; echo "${a/,/.} ${b/,/.}"; exit $c'
        observer = node_of(lab, lab.topology.observer.name)
        done = observer.run(["bash", "-c", script, "bash", *words], env=env, timeout_s=20)
        earliest, latest = done.stdout.split()[-2:]
        return float(earliest), float(latest)

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """Clients are back, and none of them is older than the fault (their ages have whole seconds)."""
        node = str(effect.node)

        def look() -> Evidence:
            ages = [_seconds(row["connect_time"]) for row in _clients(lab, node)]
            old = sum(1 for age in ages if age < int(effect.wall_earliest))
            how = f"{node}: {effect.seen['clients']} clients were connected, now {len(ages)}, {old} of before"
            return Evidence(not old and bool(ages), how)

        return first_true(look, 30, lambda: time.sleep(0.3))

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        """Databases that were left closed are opened; those that are open refuse that, which is well."""
        super().heal(lab, instructions)
        for database in _databases(lab):
            ask(lab, str(instructions["node"]), f"RESUME {database}", check=False)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])
        answers = answers_again(lab, node, POOLER_PORT)
        closed = [
            row["name"]
            for row in (ask(lab, node, "SHOW DATABASES") if answers.found else [])
            if row["name"] in _databases(lab) and row["paused"] != "0"
        ]
        return Evidence(answers.found and not closed, f"{answers.how}; closed: {', '.join(closed) or 'none'}")


def _seconds(text: str) -> float:
    """PgBouncer's time stamp, ``2026-01-31 12:00:00 UTC``."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC).timestamp()


FAULT = ReconnectStorm(
    name="reconnect-storm",
    summary="every client of the pooler loses its connection at once (KILL), and all come back together",
    colour="#7627bb",
    kind="kill",
    moves_leader="no",
    on=("pooler",),
    ends_itself=True,
)
