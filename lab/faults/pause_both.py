"""PostgreSQL and its Patroni hang together: SIGSTOP of both, while the rest of the machine lives."""

from __future__ import annotations

from dataclasses import dataclass

from lab.deploy.endpoints import PATRONI_PORT, POSTGRES_PORT
from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions
from lab.faults._shell import (
    RESUME_PATRONI,
    RESUME_POSTGRES,
    STOP_POSTGRES,
    NodeFault,
    answers_again,
    greets,
    must_run,
    patroni,
    postmaster,
    stopped,
    timed,
)


@dataclass(frozen=True)
class PauseBoth(NodeFault):
    def before(self, lab: Lab, node: str) -> dict[str, int]:
        database = must_run(postmaster(lab, node), "postmaster", node)[0]
        return {"postmaster": database, "patroni": must_run(patroni(lab, node), "Patroni", node)[0]}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        # Patroni first, so that it cannot act on a PostgreSQL that hangs.
        act = f'kill -STOP "$2" && {STOP_POSTGRES}'
        return timed(lab, node, act, str(seen["postmaster"]), str(seen["patroni"]))

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The kernel says so of both, and neither port is answered."""
        node = str(effect.node)
        frozen = [name for name in ("patroni", "postmaster") if stopped(lab, node, effect.seen[name])]
        answer = [
            str(port)
            for port, protocol in ((PATRONI_PORT, "http"), (POSTGRES_PORT, "postgres"))
            if greets(lab, node, port, protocol)
        ]
        ports = f"ports that answer: {', '.join(answer) or 'none'}"
        how = f"{node}: stopped are {', '.join(frozen) or 'none'}; {ports}"
        return Evidence(len(frozen) == 2 and not answer, how)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])
        first = answers_again(lab, node, PATRONI_PORT, "http")
        second = answers_again(lab, node, POSTGRES_PORT)
        return Evidence(first.found and second.found, f"{first.how}; {second.how}")


FAULT = PauseBoth(
    name="pause-both",
    summary="SIGSTOP of Patroni and of all of PostgreSQL: the database hangs, its machine lives",
    colour="#d56e0c",
    kind="pause",
    needs=("patroni",),
    moves_leader="yes",
    chain="lease",
    lasts_s=40,
    # PostgreSQL first: a Patroni that wakes beside a stopped PostgreSQL takes it for dead.
    undo=f"{RESUME_POSTGRES}; {RESUME_PATRONI}",
)
