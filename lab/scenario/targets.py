"""Which nodes a target means at a moment: roles are looked up when a fault is injected, and never before.

primary                 the leader
standby, sync-replica   the node that is synchronous now; ``standby`` else one that may be promoted
any-replica             a node that serves reads and does not lead
etcd-leader, -follower  etcd's own leader, as its members say; any other member
etcd-majority, -all     the smallest majority, with etcd's leader in it; every member
pooler:<mode>           every pooler of that mode
router                  every router
redis-primary, -replica as Redis itself says
sentinel-minority       the greatest number of Sentinels that is not a majority
az:<zone>               every node of an availability zone but clients, observer and proxy;
                        ``az:primary``: of the zone in which the leader is
az-data:<zone>          of these, database and etcd nodes
node:<name>             that node
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lab.deploy.endpoints import ETCD_CLIENT_PORT
from lab.driver import Lab
from lab.errors import LabError, UsageError
from lab.faults._base import node_of, sort_of
from lab.scenario.cluster import Cluster, resolve
from lab.topology.models import Member, Topology

ASK_S = 15.0
SPARED = ("client", "proxy", None)
"""What no zone takes with it: the load comes from outside, the proxy is the lab's own, so is the observer."""

PYTHON = "/opt/venv/bin/python"

# Run in the observer; urls in argv, one JSON object out: url → {"me", "leader"} or null.
_ETCD = r"""
import json, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
def ask(url):
    try:
        with urllib.request.urlopen(url + "/v3/maintenance/status", data=b"{}", timeout=2) as answer:
            said = json.load(answer)
        return {"me": said["header"]["member_id"], "leader": said.get("leader")}
    except (OSError, ValueError, KeyError):
        return None
with ThreadPoolExecutor(len(sys.argv)) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(ask, sys.argv[1:])))))
"""

_REDIS_ROLE = (
    r"redis-cli --no-auth-warning --tls --cacert /run/secrets/ca.crt ROLE 2>/dev/null"
    " || redis-cli --no-auth-warning ROLE"
)


class Missing(UsageError):
    """The topology has no node that a role could mean."""


def find(target: str, lab: Lab, cluster: Cluster) -> tuple[str, ...]:
    """The nodes that a target means now, in the topology's order.

    LabError where there is none at this moment; Missing where the topology can never have one.
    """
    topology = lab.topology
    if target in ("primary", "standby", "any-replica"):
        return (resolve(target, cluster, topology),)
    if target == "sync-replica":
        if cluster.synchronous is None:
            raise LabError("no standby is synchronous now")
        return (cluster.synchronous,)
    if target in ("etcd-leader", "etcd-follower", "etcd-majority"):
        return _etcd(target, lab)
    if target in ("redis-primary", "redis-replica"):
        return _redis(target, lab)
    zone = zone_of(topology, cluster.leader) if target.endswith(":primary") and cluster.leader else None
    if target.endswith(":primary") and zone is None:
        raise LabError("there is no leader, so its zone is not known")
    return fixed(target if zone is None else target.replace("primary", zone), topology)


def fixed(target: str, topology: Topology) -> tuple[str, ...]:
    """The nodes of a target that the topology alone decides; empty for one that takes a look at the lab.

    Missing where the topology has none; UsageError where it has no node of a given name.
    """
    kind, _, name = target.partition(":")
    if kind == "node":
        if sort_of(topology, name) is None:
            raise UsageError(f"target {target}: topology {topology.name} has no node {name}")
        return (name,)
    if kind == "pooler":
        return _some(target, topology, [p for p in topology.poolers if p.mode == name])
    if kind == "router":
        return _some(target, topology, topology.routers)
    if kind == "etcd-all":
        return _some(target, topology, topology.etcd)
    if kind == "sentinel-minority":
        sentinels = topology.cache.sentinels if topology.cache else ()
        return _some(target, topology, sentinels[: (len(sentinels) - 1) // 2])
    if kind in ("az", "az-data") and name != "primary":
        return _zone(target, topology, name, data_only=kind == "az-data")
    # The rest takes a look at the lab; but what can never be there is said at once.
    if kind.startswith("etcd-"):
        _some(target, topology, topology.etcd)
    if kind.startswith("redis-"):
        nodes = topology.cache.nodes if topology.cache else ()
        _some(target, topology, nodes if kind == "redis-primary" else nodes[1:])
    if kind in ("standby", "sync-replica"):
        _some(target, topology, topology.postgres.promotable[1:])
    if kind == "any-replica":
        _some(target, topology, topology.postgres.readable)
    return ()


def candidates(target: str, topology: Topology) -> tuple[str, ...]:
    """Every node that a target may mean in a lab of this topology. Missing where there is none."""
    sure = fixed(target, topology)
    if sure:
        return sure
    kind, _, _ = target.partition(":")
    if kind in ("az", "az-data"):
        zones = {node.zone for node in topology.postgres.promotable}
        found = {n for zone in zones for n in _zone(target, topology, zone, data_only=kind == "az-data")}
        return tuple(member.name for member in topology.members() if member.name in found)
    if kind == "any-replica":
        return tuple(node.name for node in topology.postgres.readable)
    if kind.startswith("etcd"):
        return tuple(member.name for member in topology.etcd)
    if kind.startswith("redis"):
        return tuple(member.name for member in topology.cache.nodes) if topology.cache else ()
    return tuple(node.name for node in topology.postgres.promotable)


def may_hit_leader(target: str, topology: Topology) -> bool:
    """Whether what happens to a target can change the leader: it may be it, or holds its key."""
    if target in ("standby", "sync-replica", "any-replica", "etcd-follower"):
        return False
    promotable = {node.name for node in topology.postgres.promotable}
    keys = {member.name for member in topology.etcd}
    return any(name in promotable | keys for name in candidates(target, topology))


def zone_of(topology: Topology, node: str) -> str | None:
    """The availability zone of a node."""
    return next((member.zone for member in topology.members() if member.name == node), None)


def _some(target: str, topology: Topology, members: Iterable[Any]) -> tuple[str, ...]:
    names = tuple(str(member.name) for member in members)
    if not names:
        raise Missing(f"target {target}: topology {topology.name} has no such node")
    return names


def _zone(target: str, topology: Topology, zone: str, *, data_only: bool) -> tuple[str, ...]:
    found = []
    for member in topology.members():
        sort = sort_of(topology, member.name)
        if member.zone != zone or sort in SPARED or (data_only and sort not in ("database", "etcd")):
            continue
        found.append(member)
    return _some(target, topology, found)


def _etcd(target: str, lab: Lab) -> tuple[str, ...]:
    members: tuple[Member, ...] = lab.topology.etcd
    names = _some(target, lab.topology, members)
    urls = {f"http://{lab.nodes[name].address('control')}:{ETCD_CLIENT_PORT}": name for name in names}
    observer = node_of(lab, lab.topology.observer.name)
    done = observer.run([PYTHON, "-c", _ETCD, *urls], timeout_s=ASK_S)
    try:
        said: dict[str, dict[str, str] | None] = json.loads(done.stdout)
    except ValueError as error:
        raise LabError("the observer could not ask etcd who leads it") from error
    who = {one["me"]: urls[url] for url, one in said.items() if one and url in urls}
    votes = [who[one["leader"]] for one in said.values() if one and one.get("leader") in who]
    if not votes:
        raise LabError("etcd has no leader now, or none of its members answers")
    leader = max(votes, key=votes.count)
    if target == "etcd-leader":
        return (leader,)
    others = [name for name in names if name != leader]
    if target == "etcd-follower":
        if not others:
            raise LabError("etcd has one member only, so it has no follower")
        return (others[0],)
    chosen = {leader, *others[: len(names) // 2]}
    return tuple(name for name in names if name in chosen)


def _redis(target: str, lab: Lab) -> tuple[str, ...]:
    cache = lab.topology.cache
    names = _some(target, lab.topology, cache.nodes if cache else ())
    wanted = "master" if target == "redis-primary" else "slave"
    for name in names:
        try:
            done = lab.nodes[name].run(
                ["bash", "-c", _REDIS_ROLE],
                env={"REDISCLI_AUTH": lab.secret("password_redis")},
                timeout_s=ASK_S,
                check=False,
            )
        except LabError:
            continue
        if done.stdout.split("\n", 1)[0].strip() == wanted:
            return (name,)
    raise LabError(f"no node is {target} now")
