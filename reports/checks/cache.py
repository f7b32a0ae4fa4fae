"""The cache beside the database: how often it had the answer, and whether entries live as long as promised.

- ``cache.hit_ratio``: hits ÷ look-ups of cached values in the steady state, percent, as the clients counted
  them (sessions are not among them). The server's own counters of hits and misses stand beside it.
- ``cache.ttl``: the greatest age at which an entry was served from the cache, times the load's clock factor,
  in seconds of the document's time: from the answer that it was stored to the question for it, less Redis's
  resolution of 1 ms, neither of which a clock scales. It needs entries that ran out in this run: a run
  shorter than the TTL shows nothing.
- ``cache.stampede``: the greatest number of clients that loaded the same missing entry at one time.
"""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.metrics import Metrics, increase
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

HIT_RATIO, TTL, STAMPEDE = "cache.hit_ratio", "cache.ttl", "cache.stampede"
UNITS = {HIT_RATIO: "%", TTL: "s", STAMPEDE: "1"}
LEAST = 100
"""Look-ups that a ratio needs."""
RESOLUTION_S = 0.001
"""Redis keeps moments of expiry in whole milliseconds, rounded to the entry's advantage."""
EVIDENCE = ("requests.parquet", "metrics.parquet")


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    load = analysis.manifest.load or {}
    if not load.get("cache_ttl_s"):
        why = "the load used no cache"
        return [nothing(metric, unit, "not run", why) for metric, unit in UNITS.items()]
    metrics = Metrics(record)
    return [
        _ratio(analysis, metrics),
        _ttl(metrics, float(load.get("clock") or 1.0), float(load["cache_ttl_s"])),
        _stampede(metrics, bool(load.get("coalesce"))),
    ]


def _ratio(analysis: Analysis, metrics: Metrics) -> Finding:
    counts = {"hit": 0, "miss": 0}
    for row in analysis.load.steady_by_name:
        for kind in counts:
            if row.name in (f"redis GET {kind}", f"redis GET wait {kind}"):
                counts[kind] += row.ok
    asked = sum(counts.values())
    if asked < LEAST:
        return nothing(HIT_RATIO, "%", "inconclusive" if asked else "not run", f"{asked} look-ups")
    return Finding(
        metric=HIT_RATIO,
        unit="%",
        value=100 * counts["hit"] / asked,
        evidence=EVIDENCE,
        why=f"{counts['hit']:,} of {asked:,} look-ups",
        detail={**counts, "server": _server(metrics)},
    )


def _server(metrics: Metrics) -> dict[str, float]:
    """Hits and misses over the whole run as the nodes counted them, those of sessions included."""
    found = {}
    for name in ("redis_hits", "redis_misses"):
        grown = [increase(series) for series in metrics.find(name)]
        found[name] = sum(value for value in grown if value is not None)
    return found


def _ttl(metrics: Metrics, clock: float, ttl_s: float) -> Finding:
    ages = [float(series.value[-1]) for series in metrics.find("cache_oldest_hit_seconds")]
    expired = sum(float(series.value[-1]) for series in metrics.find("cache_expiries"))
    scaled = f", {clock:g} times faster than the document's" if clock != 1 else ""
    detail = {"clock": clock, "ttl_s": ttl_s, "expiries": expired, "oldest_s": max(ages, default=None)}
    if not ages:
        return nothing(TTL, "s", "not run", "nothing was served from the cache", **detail)
    oldest = max(max(ages) - RESOLUTION_S, 0.0) * clock
    # Too old is too old, whether or not entries were seen to run out.
    if not expired and oldest <= ttl_s * clock:
        why = f"no entry ran out in this run (the TTL is {ttl_s:g} s{scaled})"
        return nothing(TTL, "s", "inconclusive", why, **detail)
    return Finding(
        metric=TTL,
        unit="s",
        value=oldest,
        evidence=EVIDENCE,
        why=f"{expired:.0f} entries ran out; the TTL is {ttl_s:g} s{scaled}",
        detail=detail,
    )


def _stampede(metrics: Metrics, coalesce: bool) -> Finding:
    most = [float(series.value.max()) for series in metrics.find("cache_simultaneous_loads")]
    if not most:
        return nothing(STAMPEDE, "1", "not run", "nothing was loaded into the cache")
    how = "one client loads, the others wait" if coalesce else "every client loads what it misses"
    return Finding(
        metric=STAMPEDE, unit="1", value=max(most), evidence=EVIDENCE, why=how, detail={"workers": most}
    )


CHECK = Check("cache", tuple(UNITS), run)
