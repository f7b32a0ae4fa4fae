"""What faults do in a node's own shell, where the moment is read too; and how they look at processes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import (
    Chain,
    Effect,
    Evidence,
    Instructions,
    Kind,
    Moves,
    On,
    arm,
    disarm,
    first_true,
    node_of,
)

# The postmaster is the process named postgres that has not given itself a title ("postgres: …"), as its
# children do, also when they outlive it for a moment; and that is no zombie. A child just forked has no title
# yet, but a parent named postgres.
# Field 22 of stat, the start time, tells two processes with one id apart.
FIND_POSTMASTER = r"""
for d in /proc/[0-9]*; do
  read -r name < "$d/comm" && [ "$name" = postgres ] || continue
  case $(tr '\0' ' ' < "$d/cmdline") in "postgres:"*|"") continue;; esac
  set -- $(awk '{print $4, $22}' "$d/stat")
  read -r parent < "/proc/$1/comm" && [ "$parent" != postgres ] || continue
  echo "${d#/proc/} $2"
  exit 0
done 2>/dev/null
"""
# Of the process in runit's care, which Patroni has replaced by exec.
FIND_PATRONI = r"""
p=$(cat /etc/service/patroni/supervise/pid 2>/dev/null)
[ -n "$p" ] && [ "$(cat "/proc/$p/comm" 2>/dev/null)" = patroni ] &&
  echo "$p $(awk '{print $22}' "/proc/$p/stat")"
exit 0
"""
# $1 is the postmaster; its children are listed twice, for one that it made meanwhile.
STOP_POSTGRES = (
    'kill -STOP "$1" && { kill -STOP $(pgrep -P "$1"); kill -STOP $(pgrep -P "$1"); true; } 2>/dev/null'
)
RESUME_POSTGRES = (
    f'set -- $({FIND_POSTMASTER}\n); [ -z "$1" ] || kill -CONT $(pgrep -P "$1") "$1" 2>/dev/null; true'
)
RESUME_PATRONI = """
p=$(cat /etc/service/patroni/supervise/pid 2>/dev/null); [ -z "$p" ] || kill -CONT "$p" 2>/dev/null; true
"""
DATA = "/var/lib/postgresql/data"

# A TLS request of PostgreSQL's protocol is answered by one byte, a GET of HTTP by a line, anything at all by
# the end of the connection; a process that is stopped leaves both unanswered, though the kernel connects.
_GREET = r"""
exec 3<>"/dev/tcp/$1/$2" || exit 3
if [ "$3" = postgres ]; then printf '\0\0\0\10\4\322\26\57' >&3; else printf 'GET / HTTP/1.0\r\n\r\n' >&3; fi
head -c 1 <&3 >/dev/null
"""

Process = tuple[int, int]
"""Process id, and its start in clock ticks since boot."""


def shell(lab: Lab, node: str, script: str, *words: str, user: str = "root", timeout_s: float = 30.0) -> str:
    """What a bash script printed on a node; ``words`` are its $1, $2, … LabError where it fails."""
    argv = ["bash", "-c", script, "bash", *words]
    return node_of(lab, node).run(argv, user=user, timeout_s=timeout_s).stdout


def timed(
    lab: Lab, node: str, act: str, *words: str, user: str = "root", timeout_s: float = 30.0
) -> tuple[float, float]:
    """Wall clock right before and right after a bash command on a node, read by the shell that runs it.

    LabError where the command fails.
    """
    script = (
        f"a=$EPOCHREALTIME\n{act}\nc=$?; b=$EPOCHREALTIME; "
        '[ $c = 0 ] && echo "${a/,/.} ${b/,/.}"; exit $c'
    )
    lines = shell(lab, node, script, *words, user=user, timeout_s=timeout_s).split()
    try:
        return float(lines[-2]), float(lines[-1])
    except (IndexError, ValueError) as error:
        raise LabError(f"{node} did not tell when the fault took effect") from error


def _process(lab: Lab, node: str, script: str) -> Process | None:
    done = node_of(lab, node).run(["bash", "-c", script], check=False)
    words = done.stdout.split()
    return (int(words[0]), int(words[1])) if len(words) >= 2 else None


def postmaster(lab: Lab, node: str) -> Process | None:
    """A node's postmaster, None where none runs."""
    return _process(lab, node, FIND_POSTMASTER)


def patroni(lab: Lab, node: str) -> Process | None:
    """A node's Patroni, None where none runs."""
    return _process(lab, node, FIND_PATRONI)


def must_run(found: Process | None, what: str, node: str) -> Process:
    """The process; LabError where there is none."""
    if found is None:
        raise LabError(f"no {what} runs on {node}, so it cannot be hit")
    return found


def stopped(lab: Lab, node: str, pid: int) -> bool:
    """Whether the kernel says that a process is stopped."""
    seen = node_of(lab, node).run(["cat", f"/proc/{pid}/stat"], check=False).stdout
    return seen.rpartition(")")[2].split()[:1] == ["T"]


def greets(lab: Lab, node: str, port: int, protocol: str = "postgres", timeout_s: float = 1.5) -> bool:
    """Whether a service answers the observer, over the control network: not the kernel but its process."""
    observer = node_of(lab, lab.topology.observer.name)
    address = node_of(lab, node).address("control")
    words = ["timeout", f"{timeout_s:g}", "bash", "-c", _GREET, "bash", address, str(port), protocol]
    return observer.run(words, check=False, timeout_s=timeout_s + 10).exit_code == 0


def psql(
    lab: Lab, node: str, sql: str, *, database: str | None = None, timeout_s: float = 30.0, check: bool = True
) -> list[list[str]]:
    """Rows of a statement, run by the superuser on the node itself. LabError where it fails."""
    words = ["psql", "-X", "-A", "-t", "-q", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", "/run/postgresql"]
    words += ["-d", database or lab.topology.postgres.database, "-c", sql]
    done = node_of(lab, node).run(words, user="postgres", timeout_s=timeout_s, check=check)
    return [line.split("\t") for line in done.stdout.splitlines() if line]


@dataclass(frozen=True)
class NodeFault:
    """What faults share that bash commands on the node itself undo, if anything has to be undone.

    A fault inherits from it and says how to strike, and what to look at.
    """

    name: str
    summary: str
    colour: str
    kind: Kind
    moves_leader: Moves = "maybe"
    needs: tuple[str, ...] = ()
    on: tuple[On, ...] = ("database",)
    lasts_s: float | None = None
    ends_itself: bool = False
    chain: Chain | None = None
    mute: bool = True
    undo: str = ""
    """Bash commands, run as root; they may run twice, and where nothing was done. "": nothing to undo."""

    def plan(self, lab: Lab, node: str) -> Instructions:
        """How an injection into this node would be undone."""
        return {"node": node_of(lab, node).name}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        """Arm the node's own deadline, then strike. LabError where it cannot be done."""
        seen = self.before(lab, node)
        if self.undo:
            arm(lab, node, self.name, self.undo, plan.get("deadline_s"))
        earliest, latest = self.strike(lab, node, plan, seen)
        return Effect(node, earliest, latest, plan, seen)

    def before(self, lab: Lab, node: str) -> dict[str, int]:  # noqa: ARG002
        """What is noted before, to compare with. LabError where the fault would hit nothing."""
        return {}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:
        """Do it; the earliest and the latest moment of the effect."""
        raise NotImplementedError

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        """A node that does not run is started, which undoes it too; else the commands are run."""
        name = str(instructions["node"])
        node = node_of(lab, name)
        if not node.state().running:
            node.start()
        elif self.undo:
            disarm(lab, name, self.name)
            shell(lab, name, self.undo)


def answers_again(
    lab: Lab, node: str, port: int, protocol: str = "postgres", wait_s: float = 60.0
) -> Evidence:
    """Whether a service answers the observer, within a time."""

    def look() -> Evidence:
        good = greets(lab, node, port, protocol)
        return Evidence(good, f"{node}: port {port} {'answers' if good else 'is silent'}")

    return first_true(look, max(1, round(wait_s / 0.5)), lambda: time.sleep(0.3))
