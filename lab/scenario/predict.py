"""What the configuration predicts for the RTO, to stand beside what is measured.

The time until the first write succeeds again is a chain of waits. Each has a best and a worst case that
follow from settings; the sums are the predicted range. Sources: Patroni's documentation of its dynamic
configuration (ttl, loop_wait, retry_timeout, primary_start_timeout) and its source (``ha.py`` asks every
member with a timeout of 2 s before it promotes itself); the failure model that Pigsty publishes for the
same chain; HAProxy's manual (inter, fastinter, rise); PgBouncer's manual (server_login_retry).

A fault says which chain is its own (``lab.faults._base.Traits.chain``).

lease: the primary's machine dies, is cut off or hangs. Nobody is told; the leader key has to expire.
    detect     ttl − loop_wait … ttl + 0.5: the primary renews its lease once per loop, so that at its
               death the lease is 0 to loop_wait old; etcd looks for expired leases every 0.5 s. Where only
               the answers of etcd are lost (``renews``), one more may count: loop_wait later at worst.
    elect      2 … loop_wait + 2: standbys are woken by the key's removal, or see it in their next
               loop; each asks the other members first, the old leader among them, and waits for it until
               the timeout of 2 s. From 0 where that one answers or refuses at once (not ``mute``).
    promote    0.1 … 1.5: end of recovery, and Patroni seeing it.
    route      (rise − 1) · fastinter … + inter + connect: the router's health check turns.
    reconnect  0 … server_login_retry + connect: the pooler tries to log in again. Not in it: the queue of
               clients that it kept waiting, which it serves as its pools fill by one log-in after another
               (``reports/checks/pool_queue.py``); how long that takes is no matter of settings.

    An isolated primary that lives gives up by itself when it could not renew its lease for
    retry_timeout, which is before the key expires (Patroni wants loop_wait + 2 · retry_timeout ≤ ttl),
    so the chain is the same. What it acknowledges until then is the ledger's business.

release: PostgreSQL dies, its Patroni lives.
    With primary_start_timeout 0 Patroni releases the leader key as soon as its loop sees it:
    detect     0 … loop_wait.
    elect      0 … loop_wait: every member answers.
    promote, route, reconnect as above.
    With primary_start_timeout > 0 it restarts PostgreSQL where it is (best: nothing but crash
    recovery, in ``promote``), and fails over only after that time (worst).
"""

from __future__ import annotations

from lab.faults import find
from lab.faults._base import Chain, traits
from lab.topology.models import Topology

PARTS = ("detect", "elect", "promote", "route", "reconnect")

ETCD_LEASE_CHECK_S = 0.5
MEMBER_TIMEOUT_S = 2.0
PROMOTE_S = (0.1, 1.5)
ROUTER_RISE = 1
"""Successful checks until the router trusts a server; as in the template of haproxy.cfg."""

WITHOUT_PREDICTION_S = 10.0
"""For a fault that says nothing of itself and moves no leader; with the window's margin that makes 15 s."""

Range = tuple[float, float]


def predict(topology: Topology, fault: str = "kill-node") -> dict[str, float]:
    """Seconds: ``best``, ``worst``, and ``<part>_best``, ``<part>_worst`` for every part.

    For a fault that hits the primary and stays in force. Empty where the configuration predicts nothing:
    no Patroni, or a fault without a chain of its own.
    """
    if topology.postgres.high_availability != "patroni":
        return {}
    known = traits(find(fault))
    return predict_chain(topology, known.chain, mute=known.mute, renews=known.renews) if known.chain else {}


def predict_chain(
    topology: Topology, chain: Chain, *, mute: bool = True, renews: bool = False
) -> dict[str, float]:
    """As ``predict``, by the chain and what the fault says of it."""
    parts = _lease(topology, mute=mute, renews=renews) if chain == "lease" else _release(topology)
    parts |= {"route": _route(topology), "reconnect": _reconnect(topology)}
    predicted = {
        "best": round(sum(best for best, _ in parts.values()), 3),
        "worst": round(sum(worst for _, worst in parts.values()), 3),
    }
    for name in PARTS:
        predicted[f"{name}_best"], predicted[f"{name}_worst"] = (round(part, 3) for part in parts[name])
    return predicted


def watch_s(topology: Topology, fault: str, *, may_hit_leader: bool) -> float:
    """How long clients have to be watched for what a fault does to show, in seconds, without a margin.

    The predicted worst case where it may hit the leader; else as long as the fault's own file says
    (``lasts_s``), else 10 s. One that may move the leader by a way that is not known is given the chain
    that takes longest.
    """
    known = traits(find(fault))
    lasts = known.lasts_s if known.lasts_s is not None else WITHOUT_PREDICTION_S
    if known.moves_leader == "no" or not may_hit_leader:
        return lasts
    worst = predict(topology, fault).get("worst")
    if worst is None and topology.postgres.high_availability == "patroni" and known.lasts_s is None:
        worst = predict_chain(topology, "lease")["worst"]
    return max(lasts, worst or 0.0)


def _lease(topology: Topology, *, mute: bool, renews: bool) -> dict[str, Range]:
    patroni = topology.postgres.patroni
    late = float(patroni.loop_wait) if renews else 0.0
    return {
        "detect": (float(patroni.ttl - patroni.loop_wait), patroni.ttl + ETCD_LEASE_CHECK_S + late),
        "elect": (MEMBER_TIMEOUT_S if mute else 0.0, patroni.loop_wait + MEMBER_TIMEOUT_S),
        "promote": PROMOTE_S,
    }


def _release(topology: Topology) -> dict[str, Range]:
    patroni = topology.postgres.patroni
    loop = float(patroni.loop_wait)
    return {
        "detect": (0.0, loop + patroni.primary_start_timeout),
        "elect": (0.0, loop),
        "promote": PROMOTE_S,
    }


def _route(topology: Topology) -> Range:
    if not topology.routers:
        return (0.0, 0.0)
    slowest = max(topology.routers, key=lambda router: router.check_interval)
    fast = (ROUTER_RISE - 1) * slowest.fast_check_interval
    return (fast, fast + slowest.check_interval + slowest.connect_timeout)


def _reconnect(topology: Topology) -> Range:
    retry = max((pooler.server_login_retry for pooler in topology.poolers), default=0.0)
    connect = max((router.connect_timeout for router in topology.routers), default=0.0)
    return (0.0, retry + connect)
