"""Whether a run may be judged: reasons that make findings *invalid*.

Bounds, and why they are what they are:

- LAG_S: p99 of the load's schedule lag in the steady state. Beyond it latency measures the generator.
- PROBE_LAG_S: p99 of (sent − intended) of the writer probe's lasting sessions in the last CALM_S seconds
  before the fault, no earlier than the steady state or the trial's own start (earlier the load was starting,
  or the trial before was healing). A write is
  slow after T = 1 s; a probe that is itself late by a quarter of that makes slow writes of its own. (After
  the fault a write may wait for a session, which is the service's doing and not the probe's.)
- GAP_S: the longest pause in the probe's schedule within a trial's window. A probe that pauses sees nothing.
- CLOCK_S: uncertainty of the effect and of the clocks, or CLOCK_SHARE of the predicted worst case where
  that is more. An RTO is not told better than that.
- the window must be at least the predicted worst case + WINDOW_MARGIN_S, or a late recovery is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.record.schema import NS, Manifest
from reports.analysis.columns import Writes
from reports.analysis.model import Latency, Little, Reason

LAG_S = 0.05
PROBE_LAG_S = 0.25
CALM_S = 10
GAP_S = 1.0
CLOCK_S = 0.5
CLOCK_SHARE = 0.05
WINDOW_MARGIN_S = 5.0
CEILING_SHARE = 0.8
"""Of the generator's own ceiling: beyond it, a result may be the generator's."""
STORY_METRICS = ("rto", "failover", "availability", "assertions")
"""What a story that was cut short leaves open. A loss that was seen stays a loss."""
LOAD_METRICS = ("latency", "query", "pool.efficiency", "pool.utilisation", "db.cpu", "alarm")


def trial_reasons(
    events: Sequence[dict[str, Any]],
    writes: Writes,
    start: int,
    effect: int | None,
    window_end: int | None,
    calm_since: int,
    uncertainty_s: float | None,
    predicted_worst: float | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Why one trial must not be judged at all, and why only its outages must not be.

    ``events`` and ``writes`` are the trial's own; ``calm_since`` is when the steady state before its fault
    began; times in ns.
    """
    kinds = {event["kind"]: event for event in events}
    void: list[str] = []
    if effect is None:
        return ("the fault did not take effect (no fault-effect was recorded)",), ()
    if "fault-absent" in kinds:
        how = kinds["fault-absent"]["detail"].get("how", "")
        void.append(f"an independent look did not find the fault in effect{f' ({how})' if how else ''}")
    elif "fault-verified" not in kinds:
        void.append("that the fault took effect was not verified")
    before = (writes.intended >= start) & (writes.intended < effect)
    if not (before & writes.outcome.equals("acknowledged")).any():
        void.append("no write was acknowledged in the trial before the fault, while it should have been")

    blurred = _window(effect, window_end, predicted_worst) + _probe(writes, effect, window_end, calm_since)
    bound = max(CLOCK_S, CLOCK_SHARE * (predicted_worst or 0.0))
    if uncertainty_s is not None and uncertainty_s > bound:
        blurred.append(
            f"the moment of the effect is uncertain by ± {uncertainty_s:.3f} s (bound {bound:.2g} s)"
        )
    elected = [int(e["t"]) for e in events if e["kind"] == "leader-elected" and e["t"] >= effect]
    # The first election may come late, as the fault's own consequence; another one after the window may not.
    if window_end is not None and elected and elected[0] <= window_end < elected[-1]:
        blurred.append("the leader changed again after the window, which nobody asked for")
    return tuple(void), tuple(blurred)


def _window(effect: int, window_end: int | None, predicted_worst: float | None) -> list[str]:
    if window_end is None:
        return ["the observation window did not end: the trial was cut short"]
    if predicted_worst is None:
        return []
    window, needed = (window_end - effect) / NS, predicted_worst + WINDOW_MARGIN_S
    if window >= needed - 0.5:
        return []
    return [
        f"the window of {window:.1f} s is shorter than the predicted worst case + "
        f"{WINDOW_MARGIN_S:g} s = {needed:.1f} s"
    ]


def _probe(writes: Writes, effect: int, window_end: int | None, calm_since: int) -> list[str]:
    why = []
    since = max(calm_since, effect - CALM_S * NS)
    calm = (writes.sent >= 0) & ~writes.fresh & (writes.intended < effect)
    calm &= writes.intended >= since
    lag = (writes.sent - writes.intended)[calm] / NS
    if len(lag) >= 100 and float(np.quantile(lag, 0.99)) > PROBE_LAG_S:
        why.append(
            f"the writer probe lagged: p99 of sent − intended is {float(np.quantile(lag, 0.99)):.3f} s "
            f"in the {(effect - since) / NS:.1f} s before the fault (bound {PROBE_LAG_S:g} s)"
        )
    if window_end is not None:
        seen = writes.intended[(writes.intended >= effect) & (writes.intended < window_end)]
        edges = np.r_[effect, seen, window_end]
        gap = float(np.diff(edges).max()) / NS
        if gap > GAP_S:
            why.append(f"the writer probe paused for {gap:.1f} s in the window (bound {GAP_S:g} s)")
    return why


def run_reasons(
    manifest: Manifest,
    events: Sequence[dict[str, Any]],
    trials: Sequence[tuple[int, int]],
    steady: Latency | None,
    clock_s: float | None,
) -> tuple[Reason, ...]:
    """Why findings of the whole run must not be judged.

    ``trials``: from when to when (ns) a trial's faults explain a change of leader.
    """
    found = []
    if steady is not None:
        # With too few samples for a p99 a lower percentile, or the greatest, must do.
        which = next((name for name in ("p99", "p95", "max") if steady.lag.get(name) is not None), "p99")
        lag = steady.lag.get(which)
        if lag is not None and lag / 1000 > LAG_S:
            bound = f"bound {LAG_S * 1000:.0f} ms"
            why = f"the load generator lagged: {which} of its schedule lag is {lag:.0f} ms ({bound})"
            found.append(Reason(metrics=LOAD_METRICS, why=why))
        if steady.count and not steady.ok:
            why = "no request of the load was answered well in the steady state"
            found.append(Reason(metrics=LOAD_METRICS, why=why))
    changes = uninjected(events, trials)
    if changes:
        found.append(Reason(metrics=("*",), why=f"the leader changed without an injected fault: {changes}"))
    if clock_s is not None and clock_s > CLOCK_S:
        why = f"clocks are uncertain by ± {clock_s:.3f} s (bound {CLOCK_S:g} s)"
        found.append(Reason(metrics=("rto", "rpo.seconds"), why=why))
    if manifest.state == "running":
        found.append(Reason(metrics=("*",), why="the record is still being written"))
    return tuple(found)


def load_reasons(law: Little | None, generator: Any, steady: Latency | None) -> tuple[Reason, ...]:
    """What the load generator's own account says against its findings.

    ``generator``: the record's ``generator.json`` (``per_s``: what the generator could send at most).
    """
    found = []
    if law is not None and not law.holds:
        why = (
            f"Little's law does not hold: {law.in_flight:.3g} requests under way, but {law.rate:.1f}/s × "
            f"{1000 * law.service_s:.1f} ms = {law.rate * law.service_s:.3g} ({law.off:.1%} off, bound 5 %)"
        )
        found.append(Reason(metrics=LOAD_METRICS, why=why))
    ceiling = generator.get("per_s") if isinstance(generator, dict) else None
    if ceiling and steady is not None and steady.rate is not None and steady.rate > CEILING_SHARE * ceiling:
        why = (
            f"limited by the generator: {steady.rate:.0f} requests/s are within 20 % of its ceiling, "
            f"{ceiling:.0f}/s"
        )
        found.append(Reason(metrics=LOAD_METRICS, why=why, status="inconclusive"))
    return tuple(found)


def story_reasons(manifest: Manifest, events: Sequence[dict[str, Any]]) -> tuple[Reason, ...]:
    """A scenario that could not be performed is *not run*; a story that did not come to its end is open."""
    if manifest.not_run:
        return (Reason(metrics=("*",), why=manifest.not_run, status="not run"),)
    failed = [event for event in events if event["kind"] == "step-failed"]
    why = "; ".join(
        f"trial {e['trial']}: step {e['detail'].get('step')} did not come about: {e['detail'].get('why')}"
        for e in failed
    )
    return (Reason(metrics=STORY_METRICS, why=why, status="inconclusive"),) if failed else ()


def uninjected(events: Sequence[dict[str, Any]], trials: Sequence[tuple[int, int]]) -> str:
    """Changes of leader outside the trials' faults, as a text; empty where there are none.

    The first election that is recorded may only tell who leads: a change needs an expiry, or another
    leader than before.
    """
    leader: str | None = None
    found = []
    for event in events:
        if event["kind"] not in ("leader-expired", "leader-elected"):
            continue
        inside = any(begin <= event["t"] <= end for begin, end in trials)
        now = event["detail"].get("leader") or event["node"]
        if event["kind"] == "leader-expired":
            if not inside:
                found.append("the leader key expired")
        else:
            if not inside and leader is not None and now != leader:
                found.append(f"{leader} → {now}")
            leader = now
    return ", ".join(found)
