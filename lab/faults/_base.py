"""What every fault has in common: the contract between a fault's file and the runner.

A fault is one module that defines ``FAULT``. It must have what ``Fault`` lists. It *may* also have these
attributes; whoever asks does so by ``traits``, which knows the defaults:

    kind: Kind = "resource"     what it does, in one word. Checks rely on it: only a ``partition`` can prove
                                an RPO of 0, since a kill closes sockets and keeps the page cache
    moves_leader: Moves = "maybe"   whether the leader changes where it hits the leader (or etcd). With ``no``
                                a change of leader during the fault is an accident: the run is invalid
    on: tuple[On, ...] = ()     the nodes that it can hit (``database``, ``etcd``, …); empty: any
    chain: Chain | None         how the leader changes, for the prediction: ``lease`` (nobody is told: the
                                leader key has to expire) or ``release`` (Patroni gives it away). None:
                                ``lease`` for a partition and a pause that may move the leader, else unknown
    mute: bool = True           chain ``lease``: whether a question to the old leader's Patroni gets no
                                answer, so that whoever wants to lead waits for its time limit first. False
                                where it answers, or refuses at once
    renews: bool = False        chain ``lease``: whether the leader's next renewal of its key may still reach
                                etcd, and only the answer is lost
    lasts_s: float | None       how long clients are watched where the scenario says nothing and nothing is
                                predicted (``lab/scenario/predict.py``); None: 15 s
    ends_itself: bool = False   True: nothing stays in force after the injection (a kill of one backend, a
                                switchover), so that ``for`` means nothing

and these methods, looked for by name:

    plan_among(lab, node, nodes) -> Instructions
                                instead of ``plan``: for a fault that must know which nodes are hit together
                                (an availability zone is cut off from the rest, not from itself)
    lacks(lab, node) -> str     why this lab or machine cannot perform it, "" where it can; beyond ``needs``
    misfit(topology, node) -> str   the same of the topology alone, before there is a lab

**Deadline.** The runner adds ``deadline_s`` to what ``plan`` returns, before it is journalled and handed to
``inject``: seconds after which the *node itself* must undo the fault, should nobody come back. It lies
beyond the moment at which the runner heals. A fault that leaves something in force (a packet filter, a
stopped process, a quota) calls ``arm`` with the commands that undo it, before it injects, and ``disarm``
when it heals. A fault whose healing takes something outside the node (starting a killed one) cannot.

**Several nodes.** A step may hit several nodes: every node has its own plan, effect and journal entry. All
plans are journalled before the first injection, and the injections run at once, in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from lab.driver import Lab, Node
from lab.errors import LabError
from lab.topology.models import Topology

Kind = Literal["kill", "partition", "pause", "resource", "operator", "none"]
"""``kill``: something ends at once. ``partition``: packets stop, whoever sends them. ``pause``: a process
stops and goes on later. ``resource``: something becomes scarce or slow. ``operator``: what people do on
purpose (switchover, restart, configuration). ``none``: nothing is done."""

Moves = Literal["yes", "no", "maybe"]

Chain = Literal["lease", "release"]

On = Literal["database", "etcd", "pooler", "router", "redis", "sentinel", "proxy", "client"]

Instructions = dict[str, Any]
"""How to undo an injection: JSON-able, enough for a later process that knows nothing else."""


@dataclass(frozen=True)
class Effect:
    """An injection as it happened."""

    node: str | None
    """The node that it hit; None where nothing was done."""
    wall_earliest: float
    """Earliest moment at which it can have taken effect: wall clock of the engine's host, seconds."""
    wall_latest: float
    """Latest such moment."""
    heal: Instructions
    seen: Mapping[str, Any]
    """What was noted at the injection and ``verify`` compares with (a process id, …)."""


@dataclass(frozen=True)
class Evidence:
    """What an independent look found."""

    found: bool
    """Whether the lab is in the state that was looked for."""
    how: str
    """What was looked at, and what was seen."""


class Fault(Protocol):
    """One way to break a lab.

    ``plan`` is written to the journal and synced to disk *before* ``inject`` is called with it, so
    that whoever comes after a killed runner can undo it. ``heal`` may be called twice, and where the
    injection never happened.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]:
        """What the machine must be able to do, and the topology must have; empty: nothing special. Known
        words are the keys of ``lab.scenario.needs.PROBES`` (``iptables``, ``netem``, ``toxiproxy``) and
        ``PARTS`` (``patroni``, ``standby``)."""

    @property
    def colour(self) -> str:
        """``#rrggbb`` of its shade in charts."""

    def plan(self, lab: Lab, node: str) -> Instructions:
        """How an injection into this node would be undone. LabError where it cannot be planned."""

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        """Do it, by the plan (to which ``deadline_s`` was added). LabError where it cannot be done."""

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """Look, by another way than the injection's, whether it is in effect."""

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        """Undo it. Idempotent; also right after the node undid it by itself, or was started anew."""

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """Look whether it was undone."""


@dataclass(frozen=True)
class Traits:
    """What a fault says of itself beyond the protocol, with defaults filled in."""

    kind: Kind = "resource"
    moves_leader: Moves = "maybe"
    on: tuple[On, ...] = ()
    chain: Chain | None = None
    mute: bool = True
    renews: bool = False
    lasts_s: float | None = None
    ends_itself: bool = False


def traits(fault: Fault) -> Traits:
    """The optional attributes of a fault."""
    default = Traits()
    found = Traits(
        **{name: getattr(fault, name, getattr(default, name)) for name in Traits.__dataclass_fields__}
    )
    if found.chain is None and found.kind in ("partition", "pause") and found.moves_leader != "no":
        return replace(found, chain="lease")
    return found


def plan_for(fault: Fault, lab: Lab, node: str, nodes: tuple[str, ...]) -> Instructions:
    """The plan of one node of those that a step hits together."""
    among: Callable[[Lab, str, tuple[str, ...]], Instructions] | None = getattr(fault, "plan_among", None)
    return dict(among(lab, node, nodes) if among else fault.plan(lab, node))


def lacks(fault: Fault, lab: Lab, node: str) -> str:
    """The fault's own reason why it cannot be performed here, "" where there is none."""
    own: Callable[[Lab, str], str] | None = getattr(fault, "lacks", None)
    return own(lab, node) if own else ""


def misfit(fault: Fault, topology: Topology, node: str) -> str:
    """The fault's own reason why this topology has no room for it, "" where it has."""
    own: Callable[[Topology, str], str] | None = getattr(fault, "misfit", None)
    return own(topology, node) if own else ""


def sort_of(topology: Topology, node: str) -> On | None:
    """What a node is; None for the observer and for what the topology does not have."""
    cache = topology.cache
    groups: dict[On, tuple[Any, ...]] = {
        "database": topology.postgres.nodes,
        "etcd": topology.etcd,
        "pooler": topology.poolers,
        "router": topology.routers,
        "redis": cache.nodes if cache else (),
        "sentinel": cache.sentinels if cache else (),
        "proxy": (topology.proxy,) if topology.proxy else (),
        "client": topology.clients,
    }
    return next((sort for sort, members in groups.items() if any(m.name == node for m in members)), None)


# Sleeps, then runs the commands that undo the fault. Its name is how it is told from any other process.
_ARM = r"""
key=$1; seconds=$2; undo=$3
echo $$ > "/run/pglab-deadline-$key.pid"
sleep "$seconds"
bash -c "$undo"
rm -f "/run/pglab-deadline-$key.pid"
"""
_ARMED = r"""
f=/run/pglab-deadline-$1.pid
for i in 1 2 3 4 5 6 7 8 9 10; do
  pid=$(cat "$f" 2>/dev/null) && [ -n "$pid" ] && [ -d "/proc/$pid" ] && exit 0
  sleep 0.1
done
exit 1
"""
_DISARM = r"""
f=/run/pglab-deadline-$1.pid
pid=$(cat "$f" 2>/dev/null) || exit 0
case $(tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null) in
  *pglab-deadline*) kids=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null); kill -9 "$pid" $kids;;
esac 2>/dev/null
rm -f "$f"
"""


def arm(lab: Lab, node: str, key: str, undo: str, deadline_s: float | None) -> None:
    """Let the node undo a fault by itself after ``deadline_s`` seconds (None: no deadline, nothing is done).

    ``undo`` are bash commands that may run twice. ``key`` tells deadlines of one node apart (letters,
    digits, ``-``): the fault's name will do. LabError where it could not be armed: then do not inject.
    """
    if deadline_s is None:
        return
    machine = node_of(lab, node)
    disarm(lab, node, key)
    machine.spawn(["bash", "-c", _ARM, "pglab-deadline", key, f"{deadline_s:.1f}", undo])
    machine.run(["bash", "-c", _ARMED, "bash", key])


def disarm(lab: Lab, node: str, key: str) -> None:
    """End the deadline of ``arm``. Idempotent; LabError where the node does not run."""
    node_of(lab, node).run(["bash", "-c", _DISARM, "bash", key])


def node_of(lab: Lab, name: str) -> Node:
    """A node by name; LabError where the lab has none of it."""
    try:
        return lab.nodes[name]
    except KeyError:
        raise LabError(f"lab {lab.name} has no node {name}") from None


def answering_ports(lab: Lab, node: str, ports: tuple[int, ...], timeout_s: float = 1.0) -> list[int]:
    """TCP ports of a node that accept a connection from the observer, over the control network."""
    observer = node_of(lab, lab.topology.observer.name)
    address = node_of(lab, node).address("control")
    script = (
        'a=$1; t=$2; shift 2; for p; do (timeout "$t" bash -c "exec 3<>/dev/tcp/$a/$p" 2>/dev/null '
        "&& echo $p) & done; wait"
    )
    words = ["bash", "-c", script, "bash", address, f"{timeout_s:g}", *map(str, ports)]
    done = observer.run(words, timeout_s=timeout_s + 10)
    return sorted(int(line) for line in done.stdout.split())


def first_true(look: Callable[[], Evidence], attempts: int, pause: Callable[[], None]) -> Evidence:
    """The first look that finds it, else the last one."""
    evidence = look()
    for _ in range(attempts - 1):
        if evidence.found:
            break
        pause()
        evidence = look()
    return evidence
