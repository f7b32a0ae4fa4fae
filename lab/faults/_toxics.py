"""Faults of a link, by Toxiproxy: what they share. One file a fault beside this one says which toxics.

- A link is *direct* unless the topology says ``path: proxied``: a fault on a direct link is *not run*, and
  says by which setting it could be. The target is the node at the far end of the link: ``pooler:transaction``
  for clients → pooler, ``router`` for poolers → router, ``primary`` for router → PostgreSQL,
  ``redis-primary`` for clients → Redis.
- A toxic works on every connection by itself (a bandwidth is each connection's own), on open ones too, and on
  data, not on packets: connecting through the proxy succeeds whatever happens behind it.
- Whether it took effect is measured: the same statements from the observer through the proxy, and past it.
- The proxy's own node takes the toxics away at the deadline. A Toxiproxy that is started anew has none.

Toxiproxy dials upstream in its accept loop, without a limit of time: behind a node that swallows packets
every new connection to it waits. So partitions are not its business (``_packets.py``).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lab.deploy.endpoints import Hop, hops, proxied
from lab.deploy.secret_names import PROBE
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import (
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
from lab.faults._toxiproxy import PYTHON, Toxic, Toxiproxy, undo

ROUNDS = 15
BULK_BYTES = 16_000
MEASURE_S = 45.0
LOOKS = 3
LINK_NODES: tuple[On, ...] = ("pooler", "router", "database", "redis")

# Run in the observer. Settings in argv; for each place what small statements and a large answer took, and how
# many bytes a segment of that answer had (the kernel's count: linux/tcp.h, struct tcp_info).
_MEASURE = r"""
import json, os, socket, struct, sys, time
S = json.loads(sys.argv[1])
def secret(name):
    with open("/run/secrets/password_" + name) as file:
        return file.read().strip()
def received(fd):
    with socket.socket(fileno=os.dup(fd)) as peek:
        info = peek.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("=Q", info, 128)[0], struct.unpack_from("=I", info, 152)[0]
def postgres(place):
    import psycopg
    link = psycopg.connect(
        host=place["host"], hostaddr=place["address"], port=place["port"], dbname=S["database"],
        user=S["user"], password=secret(S["user"]), sslmode="verify-full" if S["tls"] else "disable",
        sslrootcert="/run/secrets/ca.crt", connect_timeout=10, application_name="lab-link",
        autocommit=True, prepare_threshold=None)
    return (lambda: link.execute("SELECT 1").fetchone(),
            lambda: link.execute("SELECT repeat('x', %d)" % S["bulk"]).fetchone(), link.fileno())
def redis(place):
    import redis
    more = {"ssl": True, "ssl_ca_certs": "/run/secrets/ca.crt"} if S["tls"] else {}
    link = redis.Redis(host=place["host"], port=place["port"], password=secret("redis"), socket_timeout=20,
                       single_connection_client=True, **more)
    link.ping()
    return link.ping, lambda: link.echo("x" * S["bulk"]), link.connection._sock.fileno()
def took(act):
    begin = time.monotonic()
    act()
    return time.monotonic() - begin
def measure(place):
    said = {}
    try:
        ask, bulk, fd = (redis if place["target"] == "redis" else postgres)(place)
        said["answers"] = [took(ask) for _ in range(S["rounds"])]
        before = received(fd)
        said["bulk"] = took(bulk)
        after = received(fd)
        said["segment"] = (after[0] - before[0]) / max(1, after[1] - before[1])
    except Exception as error:
        said["error"] = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return said
print(json.dumps([measure(place) for place in S["places"]]))
"""


@dataclass(frozen=True)
class Measured:
    """What the observer met on one way. Seconds; None where ``error`` tells why there is no figure."""

    answers: tuple[float, ...] = ()
    """Of each small statement."""
    bulk: float | None = None
    """Of one answer of ``BULK_BYTES`` bytes."""
    segment: float | None = None
    """Mean bytes of a TCP segment of that answer."""
    error: str = ""

    @property
    def typical(self) -> float:
        """Median time of a small statement; NaN without one."""
        return statistics.median(self.answers) if self.answers else float("nan")

    @property
    def spread(self) -> float:
        """Distance between the quartiles of these times; NaN with fewer than 4."""
        if len(self.answers) < 4:
            return float("nan")
        low, _, high = statistics.quantiles(self.answers, n=4)
        return high - low


Shows = Callable[[Measured, Measured], tuple[bool, str]]
"""(through the proxy, past it) → whether the effect shows, and what was seen."""


def hops_into(lab: Lab, node: str) -> tuple[Hop, ...]:
    """The proxied ways into a node. LabError, with the setting that would help, where there is none."""
    why = direct(lab, node)
    if why:
        raise LabError(why)
    return tuple(
        h for h in hops(lab.topology) if h.node == node and proxied(lab.topology, h.source, h.target)
    )


def direct(lab: Lab, node: str) -> str:
    """Why no link into a node can be hurt: they are direct. "" where one is proxied."""
    into = [hop for hop in hops(lab.topology) if hop.node == node]
    if not into:
        return f"no link leads to {node} that could be proxied"
    if any(proxied(lab.topology, hop.source, hop.target) for hop in into):
        return ""
    kinds = dict.fromkeys((hop.source, hop.target) for hop in into)
    links = " and ".join(f"{source} → {target}" for source, target in kinds)
    ways = " or ".join(f"--set links.{source}-{target}.path=proxied" for source, target in kinds)
    return f"the link {links} into {node} is direct: `lab up … {ways}` puts Toxiproxy in it"


def places(lab: Lab, hop: Hop) -> list[dict[str, Any]]:
    """A hop's two ways, through the proxy and past it, as the observer connects."""
    assert lab.topology.proxy is not None
    proxy = node_of(lab, lab.topology.proxy.name)
    node = node_of(lab, hop.node)
    return [
        {"host": on.name, "address": on.address(hop.network), "port": port, "target": hop.target}
        for on, port in ((proxy, hop.listen), (node, hop.port))
    ]


def measure(lab: Lab, hop: Hop, rounds: int = ROUNDS) -> tuple[Measured, Measured]:
    """(through the proxy, past it), measured by the observer with the same statements."""
    settings = {
        "places": places(lab, hop),
        "database": lab.topology.postgres.database,
        "user": PROBE,
        "tls": lab.topology.tls.enabled,
        "rounds": rounds,
        "bulk": BULK_BYTES,
    }
    observer = node_of(lab, lab.topology.observer.name)
    done = observer.run([PYTHON, "-c", _MEASURE, json.dumps(settings)], timeout_s=MEASURE_S)
    try:
        through, past = (
            Measured(**{**said, "answers": tuple(said.get("answers", ()))})
            for said in json.loads(done.stdout)
        )
    except (ValueError, TypeError) as error:
        raise LabError(f"the observer could not measure the link to {hop.node}") from error
    return through, past


@dataclass(frozen=True)
class LinkFault:
    """Toxics in every proxied way into a node."""

    name: str
    summary: str
    colour: str
    toxics: tuple[Toxic, ...]
    shows: Shows
    on: tuple[On, ...] = LINK_NODES
    lasts_s: float = 20
    needs: tuple[str, ...] = ("toxiproxy",)
    kind: Kind = "resource"
    moves_leader: Moves = "no"

    def lacks(self, lab: Lab, node: str) -> str:
        """Why this lab cannot perform it, "" where it can."""
        return direct(lab, node)

    def plan(self, lab: Lab, node: str) -> Instructions:
        into = hops_into(lab, node_of(lab, node).name)
        return {"node": node, "proxies": [hop.proxy for hop in into]}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        proxy = Toxiproxy(lab)
        arm(
            lab, proxy.node.name, self._key(plan), undo(proxy.api, self._wanted(plan)), plan.get("deadline_s")
        )
        earliest, latest = proxy.add((name, toxic) for name in plan["proxies"] for toxic in self.toxics)
        return Effect(node, earliest, latest, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The observer measures the link through the proxy and past it."""

        def look() -> Evidence:
            through, past = measure(lab, self._hop(lab, effect.heal))
            if past.error:
                return Evidence(False, f"past the proxy it does not work either: {past.error}")
            shows, how = self.shows(through, past)
            return Evidence(shows, f"{effect.node}: {how}")

        return first_true(look, LOOKS, lambda: time.sleep(0.5))

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        """Take the toxics away. A Toxiproxy that does not run is started: it has none then."""
        proxy = Toxiproxy(lab)
        if not proxy.node.state().running:
            proxy.node.start()
            return
        disarm(lab, proxy.node.name, self._key(instructions))
        proxy.remove(self._wanted(instructions))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        """No toxic of ours is left, and the link is as good as without the proxy."""
        proxies = list(instructions["proxies"])

        def look() -> Evidence:
            try:
                left = [f"{p}: {n}" for p, names in Toxiproxy(lab).names(proxies).items() for n in names
                        if n in {toxic.name for toxic in self.toxics}]  # fmt: skip
            except LabError as error:
                return Evidence(False, str(error))
            if left:
                return Evidence(False, f"toxics left: {', '.join(left)}")
            through, past = measure(lab, self._hop(lab, instructions))
            if past.error:
                # Another fault's doing: the link cannot be told from what is behind it.
                return Evidence(True, f"no toxic is left; what is behind does not answer: {past.error}")
            shows, how = self.shows(through, past)
            return Evidence(not shows and not through.error, f"no toxic is left; {how}")

        return first_true(look, LOOKS, lambda: time.sleep(0.5))

    def _key(self, plan: Mapping[str, Any]) -> str:
        return f"{self.name}-{plan['node']}"

    def _wanted(self, plan: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [(proxy, toxic.name) for proxy in plan["proxies"] for toxic in self.toxics]

    def _hop(self, lab: Lab, plan: Mapping[str, Any]) -> Hop:
        """The first of the ways that were hit: a router's write port, where it is one."""
        return next(hop for hop in hops(lab.topology) if hop.proxy == plan["proxies"][0])


def both_ways(toxic: Toxic) -> tuple[Toxic, Toxic]:
    """The same for what is sent and for what comes back."""
    sent = replace(toxic, name=f"{toxic.name}-upstream", stream="upstream")
    return sent, replace(toxic, name=f"{toxic.name}-downstream", stream="downstream")
