"""Partitions: packet filters per peer address in the node's own network namespace.

What all of them share; one file a fault beside this one says which peers, which way, and how.

- One command on the node applies every rule at once (``iptables-restore --noflush`` commits a whole table),
  in two chains of the fault's own, and reads the clock on both sides of it. Faults that overlap on one node
  have chains of their own, and are healed one by one. No rule keeps connection state.
- Rules name addresses of the application and the data network only: the control network stays.
- A *keeper* in the node, started by the same command before any rule is there, takes them away after the
  plan's ``deadline_s`` should nobody come back (so ``arm`` is not needed); where a fault flaps, it puts them
  there and takes them away. It outlives the command, not the node; nor do the rules, which go with the
  node's network namespace.
- Whether it took effect is looked at from the other end: peers connect to the node (or it to them, where it
  listens to nothing) over the network that was cut, and count what comes back. Where one way only is cut,
  a connection fails either way; which way it was is told by the kernel of the end that the first packet did
  or did not reach (a half-open connection in state SYN-RECV).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from lab.deploy import endpoints
from lab.driver import Lab, Network
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves, On, first_true, node_of
from lab.topology.models import Topology

Way = Literal["both", "inbound", "outbound"]
"""Which packets are hit, as the node sees it."""
Answer = Literal["open", "refused", "silent", "unreachable"]
"""What a TCP connect came to; ``silent``: nothing came back within ``ANSWER_S``."""

DEADLINE_S = 900.0
"""After so long the node takes its rules away by itself, where the plan says nothing."""
ANSWER_S = 1.5
"""How long a connect waits; longer than the first retransmission of a SYN (1 s)."""
FLAP_ANSWER_S = 0.6
"""The same for a cut that comes and goes; shorter than a retransmission."""
LOOKS = 6
CUT: tuple[Network, ...] = ("app", "data")
"""Networks that faults may touch."""

SCRIPT = r"""
mode=$1 chain=$2; shift 2
pidfile=/run/pglab-fault-$chain
ipt=iptables
$ipt -w -S INPUT >/dev/null 2>&1 || ipt=iptables-legacy
cut() { printf '%s\n' "$1" | $ipt-restore -w --noflush; }
mend() {
  for hook in INPUT OUTPUT; do
    while $ipt -w -D $hook -j $chain-$hook; do :; done
    $ipt -w -F $chain-$hook; $ipt -w -X $chain-$hook
  done >/dev/null 2>&1
  ! $ipt -w -S 2>/dev/null | grep -q -- "$chain"
}
release() {
  if read -r pid <"$pidfile" && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "$chain"; then
    kill -KILL -- "-$pid"
  fi 2>/dev/null
  rm -f "$pidfile"
}
case $mode in
cut) # rules, deadline, seconds on, seconds off (0: stays on)
  setsid bash -c "$BASH_EXECUTION_STRING" "$0" keep "$chain" "$@" </dev/null >/dev/null 2>&1 &
  echo $! >"$pidfile"
  disown
  a=$EPOCHREALTIME; cut "$1"; code=$?; b=$EPOCHREALTIME
  if ((code)); then release; mend; exit $code; fi
  echo "${a/,/.} ${b/,/.}"
  ;;
keep)
  if [[ $4 == 0 ]]; then sleep "$2"; else
    end=$((SECONDS + ${2%.*}))
    while sleep "$3"; mend; sleep "$4"; ((SECONDS < end)); do cut "$1"; done
  fi
  mend; rm -f "$pidfile"
  ;;
mend) release; mend || { echo "rules of $chain are still there" >&2; exit 1; } ;;
seen) $ipt -w -S | grep -c -- "$chain"; true ;;
kept) { read -r pid <"$pidfile" && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "$chain"; } 2>/dev/null
  echo $((!$?)) ;;
esac
"""
"""What runs on the node; its words: mode, name of the chains, and what the mode needs."""

_CONNECT = r"""
said=$(LC_ALL=C timeout "$3" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1); code=$?
case $code:$said in
0:*) echo open ;;
124:*) echo silent ;;
*refused*) echo refused ;;
*[Tt]imed\ out*) echo silent ;;
*) echo unreachable ;;
esac
"""


# A rule for an address that nobody has.
_CAN_REJECT = """
rule='-s 192.0.2.1 -p tcp -j REJECT --reject-with tcp-reset'
iptables -w -A INPUT $rule && iptables -w -D INPUT $rule
"""


@dataclass(frozen=True)
class Look:
    """One connect, and what it should come to."""

    source: str
    target: str
    network: Network
    port: int
    expected: tuple[Answer, ...]


def listening_port(topology: Topology, node: str) -> int | None:
    """A TCP port on which a node listens in the networks that it serves; None for clients and the proxy.

    Of a database node Patroni's: it answers whatever state PostgreSQL is in.
    """
    ports = {
        "postgres": endpoints.PATRONI_PORT,
        "etcd": endpoints.ETCD_CLIENT_PORT,
        "haproxy": endpoints.STATS_PORT,
        "pgbouncer": endpoints.POOLER_PORT,
    }
    if topology.cache and node in {member.name for member in topology.cache.sentinels}:
        return endpoints.SENTINEL_PORT
    if topology.cache and node in {member.name for member in topology.cache.nodes}:
        return endpoints.REDIS_PORT
    return ports.get(endpoints.images_of(topology)[node])


def shared(topology: Topology, one: str, other: str) -> tuple[Network, ...]:
    """Networks on which two nodes meet and that faults may touch."""
    networks = endpoints.networks_of(topology)
    return tuple(name for name in CUT if name in networks[one] and name in networks[other])


def rules(chain: str, addresses: Iterable[str], way: Way, reject: bool) -> str:
    """Input of ``iptables-restore`` that cuts a node off from these addresses."""
    lines = ["*filter"]
    for hook, flag, hit in (("INPUT", "-s", way != "outbound"), ("OUTPUT", "-d", way != "inbound")):
        if not hit:
            continue
        own = f"{chain}-{hook}"
        lines += [f":{own} - [0:0]", f"-I {hook} 1 -j {own}"]
        if reject:
            # The resets themselves pass both chains, and must arrive.
            lines.append(f"-A {own} -p tcp --tcp-flags RST RST -j RETURN")
        for address in addresses:
            if reject:
                lines.append(f"-A {own} {flag} {address}/32 -p tcp -j REJECT --reject-with tcp-reset")
            lines.append(f"-A {own} {flag} {address}/32 -j DROP")
    return "\n".join([*lines, "COMMIT"])


def filter_script(lab: Lab, node: str, mode: str, *words: str) -> str:
    """Run ``SCRIPT`` on a node; what it printed. LabError where it fails."""
    done = node_of(lab, node).run(["bash", "-c", SCRIPT, "pglab-fault", mode, *words], check=False)
    if done.exit_code:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise LabError(
            f"packet filter of {node}: {said[-1][:300]}", hint="`lab doctor` tries packet filters."
        )
    return done.stdout.strip()


def answer(lab: Lab, source: str, address: str, port: int, within_s: float = ANSWER_S) -> Answer:
    """What a TCP connect from one node to an address comes to."""
    words = ["bash", "-c", _CONNECT, "bash", address, str(port), f"{within_s:g}"]
    said = node_of(lab, source).run(words, timeout_s=within_s + 10).stdout.strip()
    known: dict[str, Answer] = {"open": "open", "refused": "refused", "silent": "silent"}
    return known.get(said, "unreachable")


def half_open(lab: Lab, target: str, port: int, source: str) -> bool:
    """Whether a SYN of ``source`` (an address) reached a listening port, and nothing more came after it."""
    words = ["ss", "-Htn", "state", "syn-recv", f"( sport = :{port} ) and dst {source}"]
    return bool(node_of(lab, target).run(words).stdout.strip())


def look_all(lab: Lab, looks: Iterable[Look], within_s: float = ANSWER_S) -> list[tuple[Look, Answer]]:
    """Make every look at once. A node that cannot be asked hears nothing."""
    wanted = list(looks)

    def one(look: Look) -> Answer:
        address = node_of(lab, look.target).address(look.network)
        try:
            return answer(lab, look.source, address, look.port, within_s)
        except LabError:
            return "unreachable"

    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        return list(zip(wanted, pool.map(one, wanted), strict=True))


def told(answers: Iterable[tuple[Look, Answer]]) -> str:
    """What looks came to, in words."""
    return "; ".join(
        f"{look.source} → {look.target} ({look.network}): {got}"
        + ("" if got in look.expected else f", not {' or '.join(look.expected)}")
        for look, got in answers
    )


def looks_at(lab: Lab, node: str, peers: Iterable[str], expected: tuple[Answer, ...]) -> list[Look]:
    """One connect over each shared network from (or to) the first peer of each kind that runs."""
    topology = lab.topology
    kinds = endpoints.images_of(topology)
    port = listening_port(topology, node)
    found: dict[tuple[str, Network], Look] = {}
    for peer in peers:
        for network in shared(topology, node, peer):
            key = (kinds[peer] if peer != topology.observer.name else peer, network)
            if key in found or not _runs(lab, peer):
                continue
            if port is not None:
                found[key] = Look(peer, node, network, port, expected)
            elif (other := listening_port(topology, peer)) is not None:
                found[key] = Look(node, peer, network, other, expected)
    return list(found.values())


def control_look(topology: Topology, node: str) -> list[Look]:
    """The observer reaches the node over the control network, whatever was cut."""
    port = listening_port(topology, node)
    if port is None or node == topology.observer.name:
        return []
    return [Look(topology.observer.name, node, "control", port, ("open", "refused"))]


@dataclass(frozen=True)
class Partition:
    """A node cut off from some peers."""

    name: str
    summary: str
    colour: str
    peers: Callable[[Topology, str], list[str]]
    """Topology and node → names of the nodes that it is cut off from."""
    way: Way = "both"
    reject: bool = False
    """Answered by a reset at once, rather than by silence."""
    on_s: float = 0.0
    off_s: float = 0.0
    """Flapping: cut for ``on_s``, whole for ``off_s``, and again; 0: it stays cut."""
    moves_leader: Moves = "maybe"
    on: tuple[On, ...] = ()
    lasts_s: float | None = None
    chain: Literal["lease"] | None = None
    """What makes the outage of clients where it hits the primary (``lab.scenario.predict``)."""
    mute: bool = True
    renews: bool = False
    needs: tuple[str, ...] = ("iptables",)
    kind: Kind = "partition"

    def misfit(self, topology: Topology, node: str) -> str:
        """A topology may have nobody from whom to cut a node off."""
        if any(shared(topology, node, peer) for peer in self.peers(topology, node)):
            return ""
        return f"{node} has no such peer on a network that faults may touch"

    def lacks(self, lab: Lab, node: str) -> str:
        """Resets take a target of the kernel's own."""
        if not self.reject:
            return ""
        done = node_of(lab, node).run(["bash", "-c", _CAN_REJECT], check=False)
        return "" if done.exit_code == 0 else f"packets cannot be answered by a reset in {node}"

    def plan(self, lab: Lab, node: str) -> Instructions:
        return self.plan_among(lab, node, (node,))

    def plan_among(self, lab: Lab, node: str, nodes: tuple[str, ...]) -> Instructions:
        """Nodes that are hit together stay together: they are cut off from the rest."""
        name = node_of(lab, node).name
        peers = [p for p in self.peers(lab.topology, name) if p in lab.nodes and p not in (name, *nodes)]
        peers = [p for p in peers if shared(lab.topology, name, p)]
        if not peers:
            raise LabError(f"{self.name}: {name} has no such peer on a network that faults may touch")
        return {"node": name, "chain": f"PGLAB-{secrets.token_hex(4)}", "peers": peers, "with": list(nodes)}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        addresses = [
            node_of(lab, peer).address(network)
            for peer in plan["peers"]
            for network in shared(lab.topology, node, peer)
        ]
        text = rules(plan["chain"], addresses, self.way, self.reject)
        times = (float(plan.get("deadline_s") or DEADLINE_S), self.on_s, self.off_s)
        said = filter_script(lab, node, "cut", plan["chain"], text, *(f"{t:g}" for t in times)).split()
        try:
            earliest, latest = (float(word) for word in said)
        except ValueError:
            raise LabError(f"{self.name}: {node} did not tell when its packets were cut") from None
        return Effect(node, earliest, latest, plan, {"addresses": addresses})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """Peers get silence (or a reset); some other node and the control network, an answer."""
        assert effect.node is not None
        node, peers = effect.node, effect.heal["peers"]
        if self.off_s:
            return self._flaps(lab, node, peers)
        wanted: Answer = "refused" if self.reject else "silent"
        spared = {node, *peers, *effect.heal.get("with", ())}
        others = [name for name in lab.nodes if name not in spared]
        cut = looks_at(lab, node, peers, (wanted,))
        whole = looks_at(lab, node, others, ("open",))
        control = control_look(lab.topology, node)

        def look() -> Evidence:
            answers = look_all(lab, [*cut, *whole, *control])
            good = [got in one.expected for one, got in answers]
            ends = good[: len(cut)], good[len(cut) : len(cut) + len(whole)], good[len(cut) + len(whole) :]
            # Another fault may hide one of those that should get through, so one of them is enough.
            found = bool(cut) and all(ends[0]) and (any(ends[1]) or not whole) and all(ends[2])
            evidence = Evidence(found, told(answers))
            return self._one_way(lab, node, peers, evidence) if self.way != "both" else evidence

        return first_true(look, LOOKS, lambda: time.sleep(0.1))

    def _one_way(self, lab: Lab, node: str, peers: list[str], evidence: Evidence) -> Evidence:
        """Which way is cut: a peer's first packet reaches the node exactly if inbound is open, and so on."""
        port = listening_port(lab.topology, node)
        peer = next((p for p in peers if listening_port(lab.topology, p) and _runs(lab, p)), None)
        if not evidence.found or port is None or peer is None:
            return evidence
        other = listening_port(lab.topology, peer)
        assert other is not None
        network = shared(lab.topology, node, peer)[0]
        here, there = node_of(lab, node).address(network), node_of(lab, peer).address(network)
        answer(lab, peer, here, port)
        comes = half_open(lab, node, port, there)
        answer(lab, node, there, other)
        goes = half_open(lab, peer, other, here)
        seen = f"a first packet of {peer} {'reached' if comes else 'did not reach'} {node}"
        seen += f", one of {node} {'reached' if goes else 'did not reach'} {peer}"
        right = (comes, goes) == ((False, True) if self.way == "inbound" else (True, False))
        return Evidence(right, f"{evidence.how}; {seen}")

    def _flaps(self, lab: Lab, node: str, peers: list[str]) -> Evidence:
        """Silence is seen, and an answer too, within two periods."""
        looks = looks_at(lab, node, peers, ("silent",))[:1]
        end = time.monotonic() + 2 * (self.on_s + self.off_s) + 2 * ANSWER_S
        seen: list[str] = []
        while looks and time.monotonic() < end:
            ((_, got),) = look_all(lab, looks, FLAP_ANSWER_S)
            if not seen or seen[-1] != got:
                seen.append(got)
            if {"silent", "open"} <= set(seen):
                where = f"{looks[0].source} → {looks[0].target} ({looks[0].network})"
                return Evidence(True, f"{where}: {', then '.join(seen)}")
            time.sleep(0.1)
        return Evidence(False, f"{node} does not come and go: {', then '.join(seen) or 'nothing was seen'}")

    def reapply(self, lab: Lab, effect: Effect) -> bool:
        """Put the rules back where the node was started anew meanwhile: they went with its network namespace.

        True where they had gone. A cut that comes and goes has none half of the time: there its keeper tells.
        """
        node, chain = str(effect.node), effect.heal["chain"]
        if not _runs(lab, node) or filter_script(lab, node, "kept", chain) != "0":
            return False
        self.inject(lab, node, effect.heal)
        return True

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        """Take the rules away. A node that does not run has none: they go with its network namespace."""
        if _runs(lab, instructions["node"]):
            filter_script(lab, instructions["node"], "mend", instructions["chain"])

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """No rule is left, and a peer gets through again (others may be hidden by another fault)."""
        name = instructions["node"]
        if not _runs(lab, name):
            return Evidence(True, f"{name} does not run, so it filters nothing")
        # Without a filter a refusal is an answer of the node itself, unless refusals are the fault.
        expected: tuple[Answer, ...] = ("open",) if self.reject else ("open", "refused")
        looks = looks_at(lab, name, instructions["peers"], expected)

        def look() -> Evidence:
            left = filter_script(lab, name, "seen", instructions["chain"])
            answers = look_all(lab, looks)
            found = left == "0" and (any(got in one.expected for one, got in answers) or not looks)
            return Evidence(found, f"rules left on {name}: {left}; {told(answers)}")

        return first_true(look, LOOKS, lambda: time.sleep(0.2))


def _runs(lab: Lab, node: str) -> bool:
    return node_of(lab, node).state().running


def everyone(topology: Topology, node: str) -> list[str]:
    return [member.name for member in topology.members() if member.name != node]


def etcd_members(topology: Topology, node: str) -> list[str]:
    return [member.name for member in topology.etcd if member.name != node]


def databases(topology: Topology, node: str) -> list[str]:
    return [member.name for member in topology.postgres.nodes if member.name != node]


def cluster_peers(topology: Topology, node: str) -> list[str]:
    """What decides whether a node leads: the other databases and etcd; of Redis, its like and Sentinel."""
    cache = topology.cache
    if cache and node in {member.name for member in cache.nodes}:
        return [member.name for member in (*cache.nodes, *cache.sentinels) if member.name != node]
    return databases(topology, node) + etcd_members(topology, node)


def clients(topology: Topology, node: str) -> list[str]:
    """Whatever stands between users and the databases; the observer is none of it."""
    proxy = (topology.proxy,) if topology.proxy else ()
    members = (*topology.routers, *topology.poolers, *proxy, *topology.clients)
    return [member.name for member in members if member.name != node]
