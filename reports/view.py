"""What every form of the report says in the same words: figures as text, the answer, the headlines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import Exit
from reports.findings import Finding, Status, Target, Verdict

if TYPE_CHECKING:
    from reports.analysis.model import Analysis, Trial

MARK: dict[Status, str] = {"met": "✓", "not met": "✗", "inconclusive": "?", "not run": "–", "invalid": "!"}
TONE: dict[Status, str] = {
    "met": "good",
    "not met": "bad",
    "inconclusive": "unsure",
    "not run": "unsure",
    "invalid": "unsure",
}
COMPARISON = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "="}
NONE = "–"
METRICS = {
    "rto.write": "recovery of writes",
    "rto.write.new_sessions": "recovery of writes, new sessions",
    "rto.write.open_sessions": "writes on sessions open before the fault",
    "rto.read": "recovery of reads",
    "rto.read.new_sessions": "recovery of reads, new sessions",
    "rto.read.open_sessions": "reads on sessions open before the fault",
    "rpo.rows": "acknowledged writes lost",
    "rpo.seconds": "age of the oldest lost write",
    "failover.automatic": "failovers without anybody's help",
    "split_brain.seconds": "two nodes accepting writes at once",
    "pool.server_connections.transaction": "most server connections of the transaction pool",
    "pool.server_connections.session": "most server connections of the session pool",
    "pool.server_connections.statement": "most server connections of the statement pool",
    "pool.efficiency": "transactions on a connection already open",
    "pool.utilisation": "share of the pool in use",
    "pool.wait": "wait for a server connection",
    "pool.overhead_reduction": "what the pool saves of the cost of connecting",
    "pool.efficiency_control": "the same of a pool that keeps no connection",
    "pool.idle_timeout": "time until an idle server connection is closed",
    "pool.query_wait": "time until a client in the queue is told",
    "pool.counts": "transactions that clients and poolers count differently",
    "pool.size": "smallest pool that holds the latency",
    "pool.compat.leaks.session": "session features that leak in session pooling",
    "pool.compat.leaks.transaction": "session features that leak in transaction pooling",
    "pool.compat.leaks.statement": "session features that leak in statement pooling",
    "prepared.saved": "time that preparing a statement saves",
    "query.mean": "mean response time",
    "requests.failed": "requests that failed or were dropped",
    "db.cpu": "CPU of the busiest database",
    "tls.poolers": "client connections with TLS",
    "rpo.wal_bytes": "WAL that only the old primary had",
    "availability.write": "writes answered well, whole run",
    "availability.read": "reads answered well, whole run",
    "outage.longest.write": "longest time without any write",
    "outage.longest.read": "longest time without any read",
    "redundant.seconds": "fault to full redundancy",
    "reconnect.peak": "most log-ins at the poolers in one second",
    "reconnect.retries": "log-ins beyond the usual after a fault",
    "pool.queue": "most clients that waited at the poolers at once",
    "ledger.lost": "acknowledged writes that are gone",
    "ledger.phantom": "writes that failed and are there",
    "ledger.duplicate": "writes that are there twice",
    "ledger.dirty": "writes that a reader saw and that are gone",
    "ledger.divergent": "acknowledged writes that a replica lacks",
    "split_brain.acknowledged": "writes that the old primary took beside the new one",
    "fork.acknowledged": "acknowledgements on a timeline that was left",
    "tables.equal": "tables that are the same on every node",
    "bank.total": "wrong totals of the bank",
    "reads.backwards": "reads that went back in time within a session",
    "reads.missing_own": "reads that missed an acknowledged write",
    "reads.staleness": "greatest staleness of a read",
    "wal.retained": "WAL kept back for a replication slot",
    "progress.stuck": "workers, users and sessions stuck after the healing",
    "reads.replica_share": "reads that replicas served",
    "analytics.on_primary": "analytics statements on the primary",
    "replicas.cancelled": "queries on replicas that replay cancelled",
    "replicas.lag": "greatest replay lag",
    "batch.direct": "batch statements straight to the primary",
    "cache.hit_ratio": "look-ups that the cache answered",
    "cache.ttl": "greatest age served from the cache",
    "cache.stampede": "clients that loaded one entry at once",
    "capacity.headroom": "room above today's load",
    "capacity.signal": "strongest scaling signal at the knee, of its threshold",
    "alarm.cpu": "time in alarm: CPU",
    "alarm.connections": "time in alarm: connections",
    "alarm.latency": "time in alarm: latency",
    "alarm.capacity": "time in alarm: capacity",
    "load.little": "deviation from Little's law",
    "load.ceiling": "rate as a share of the generator's ceiling",
    "log.unexpected": "log lines that no fault may cause",
    "trial.seconds": "a whole trial, from its fault to full redundancy",
    "trial.lab_seconds": "the lab's own share of that: injecting, healing, noticing",
    "statements.nodes": "database nodes with pg_stat_statements",
    "topology.databases": "databases",
    "topology.primaries": "primaries",
    "topology.standbys": "standbys that serve no reads",
    "topology.replicas": "databases that serve reads beside the primary",
    "topology.zones": "availability zones of the databases",
    "topology.cache_nodes": "cache nodes",
    "topology.sentinels": "Sentinels",
    "topology.cache_ttl": "time to live in the cache",
    "topology.tls_min_version": "lowest version of TLS",
    "topology.survives_zone": "zones that can be lost",
    "rto.predicted": "worst recovery time that the settings give",
    "failover.successors": "nodes that may take over",
    "synchronous.standbys": "standbys that confirm each write",
    "paper.pool_connections": "server connections that the pools may hold",
    "paper.connections_of_node": "server connections that the pools may hold on one database",
    "backup.rpo_on_paper": "loss that the interval of backups allows",
    "archive.rpo_on_paper": "loss that the interval of archives allows",
    "pitr.rpo_on_paper": "loss that the upload of logs allows",
    "backup.retention_allowed": "days that the service keeps backups",
    "acu.auto_pause_possible": "whether the database can pause",
    "cost.month": "cost of a month at least",
    "redis.rto": "recovery of writes to Redis",
    "redis.rto.new_sessions": "recovery of writes to Redis, new sessions",
    "redis.lost_writes": "writes that Redis acknowledged and that are gone",
}
"""Metric → what it is, in words; a metric that is not here is called by its id."""


SOUND: dict[str, float | None] = {
    "ledger.lost": 0,
    "ledger.phantom": 0,
    "ledger.duplicate": 0,
    "ledger.dirty": 0,
    "ledger.divergent": 0,
    "split_brain.seconds": 0,
    "split_brain.acknowledged": 0,
    "fork.acknowledged": 0,
    "tables.equal": 100,
    "bank.total": 0,
    "progress.stuck": 0,
    "log.unexpected": 0,
    "redis.rto": None,
    "redis.lost_writes": None,
    "analytics.on_primary": 0,
    "reads.replica_share": None,
    "batch.direct": None,
    "reads.backwards": None,
    "reads.missing_own": None,
    "reads.staleness": None,
    "availability.write": None,
    "availability.read": None,
    "outage.longest.write": None,
    "outage.longest.read": None,
    "reconnect.peak": None,
    "reconnect.retries": None,
    "pool.queue": None,
    "trial.seconds": None,
    "trial.lab_seconds": None,
    "replicas.cancelled": None,
    "replicas.lag": None,
    "wal.retained": None,
    "cache.hit_ratio": None,
    "cache.ttl": None,
    "cache.stampede": None,
    "alarm.cpu": None,
    "alarm.connections": None,
    "alarm.latency": None,
    "alarm.capacity": None,
    "load.little": None,
    "load.ceiling": None,
}
"""Checks of the list in the report, in order → the one value that is sound; None: a figure that is only shown
(a promise may be held against it)."""


@dataclass(frozen=True)
class Headline:
    """One figure of the first screen."""

    label: str
    value: str
    detail: str = ""
    tone: str = ""
    """``good``, ``bad``, ``unsure`` or nothing."""
    evidence: tuple[str, ...] = ()


def number(value: float | None, digits: int = 3) -> str:
    """A number with thousands separated and about ``digits`` significant digits; a dash for None."""
    if value is None or not math.isfinite(value):
        return NONE
    value = round(value, 6) if abs(value) >= 1 else value
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, min(9, digits - 1 - size))}f}"


def figure(value: float | None, unit: str) -> str:
    """A value with its unit: ``20.1 s``, ``99.6 %``, ``0 rows``."""
    if value is None or not math.isfinite(value):
        return NONE
    if unit == "s" and abs(value) < 1000:
        said = number(value, 4 if abs(value) >= 10 else 3)
    elif unit == "%":
        said = f"{value:,.2f}".rstrip("0").rstrip(".")
    else:
        said = number(value)
    return said if unit in ("", "1") else f"{said} {unit}"


def limit(verdict: Verdict) -> str:
    """The promise as a bound: ``< 300 s``."""
    target = verdict.target
    return f"{COMPARISON[target.comparison]} {figure(target.limit, target.unit)}"


def trials_of(finding: Finding | None) -> int:
    """How many trials stand behind a finding; 0 where trials do not make the figure."""
    if finding is None:
        return 0
    trials = finding.detail.get("trials")
    return trials if isinstance(trials, int) else len(finding.samples)


def measured(verdict: Verdict) -> str:
    """What was found, as text: the figure, *no outage*, or a dash."""
    finding = verdict.finding
    if finding is None:
        return NONE
    if finding.value is None:
        least = finding.detail.get("at_least")
        if isinstance(least, (int, float)):
            return f"> {figure(float(least), finding.unit)}"
        calm = finding.detail.get("no_outage")
        return "no outage" if isinstance(calm, int) and calm and calm == trials_of(finding) else NONE
    return figure(finding.value, finding.unit)


def quote(target: Target) -> str:
    """The promise without its document's emphasis marks."""
    return target.quote.replace("**", "").replace("`", "").strip().rstrip(":")


def about(target: Target) -> str:
    """What of the promise is judged, in words: several figures can stand for one sentence of a document."""
    return METRICS.get(target.metric, target.metric)


def reason(verdict: Verdict) -> tuple[str, str]:
    """The verdict's sentence, and apart from it what it says of stand-ins and substitutions."""
    for opening in (" (scaled", " (simulated", " (on paper", " (stand-in: ", " (substituted: "):
        at = verdict.why.rfind(opening)
        if at >= 0 and verdict.why.endswith(")"):
            return verdict.why[:at], verdict.why[at + 2 : -1]
    return verdict.why, verdict.target.stand_in or ""


def shared_asides(verdicts: Sequence[Verdict]) -> list[str]:
    """Stand-ins and substitutions that every verdict names: said once."""
    each = [reason(verdict)[1].split("; ") for verdict in verdicts]
    return (
        [text for text in each[0] if text and all(text in other for other in each)] if len(each) > 1 else []
    )


def ordered(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """What did not hold first, then what is open, then what held."""
    return sorted(verdicts, key=lambda v: {"not met": 0, "met": 2}.get(v.status, 1))


def exit_code(verdicts: Sequence[Verdict]) -> Exit:
    """0 all met; 1 something not met; 2 something undecided, or nothing was judged at all."""
    statuses = {verdict.status for verdict in verdicts}
    if "not met" in statuses:
        return Exit.NOT_MET
    return Exit.MET if statuses == {"met"} else Exit.UNDECIDED


def answer(verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """The overall answer in a few words, and its tone."""
    count = Counter(verdict.status for verdict in verdicts)
    if not verdicts:
        return "Nothing was judged: no promise names this scenario", "unsure"
    if count["met"] == len(verdicts):
        return (
            "The promise is met" if len(verdicts) == 1 else f"All {len(verdicts)} promises are met"
        ), "good"
    said = [
        f"{count[status]} {status}"
        for status in ("not met", "inconclusive", "invalid", "not run")
        if count[status]
    ]
    if count["met"]:
        said.append(f"{count['met']} met")
    return f"Of {len(verdicts)} promise{'s' if len(verdicts) > 1 else ''}: " + ", ".join(said), (
        "bad" if count["not met"] else "unsure"
    )


def how(analysis: Analysis) -> str:
    """How the run was tested, in one line."""
    head = analysis.manifest
    said = [f"scenario {head.scenario} on {head.topology}"]
    if head.fault:
        said.append(f"fault {head.fault}, {head.trials_done} of {head.trials_asked} trials")
    if head.load and head.load.get("rate"):
        said.append(f"load {number(float(head.load['rate']))} requests/s")
    if head.probe_interval_s:
        said.append(f"a probe write every {head.probe_interval_s * 1000:g} ms")
    if head.window_s:
        said.append(f"watched for {head.window_s:g} s after each fault")
    return "; ".join(said)


STEADY = (
    "query.mean",
    "pool.efficiency",
    "pool.utilisation",
    "db.cpu",
    "reads.replica_share",
    "cache.hit_ratio",
    "cache.stampede",
    "replicas.cancelled",
    "replicas.lag",
)
"""Metrics that lead the report of a run without a fault."""


def headlines(analysis: Analysis) -> list[Headline]:
    """The figures of the first screen: how long down, anything lost, what the load saw."""
    found = []
    if analysis.trials:
        found += [_down(analysis, "write", "Writes were down"), _lost(analysis)]
        found += [_down(analysis, "read", "Reads were down"), _split(analysis)]
        found += _back(analysis.trials)
    steady = analysis.load.steady or analysis.load.all
    if steady is not None and steady.ok:
        p99 = steady.response.get("p99")
        p95 = steady.response.get("p95")
        name, tail = ("p99", p99) if p99 is not None else ("p95", p95)
        found.append(
            Headline(
                "Response time, steady state",
                f"{figure(tail, 'ms')} {name}" if tail is not None else NONE,
                f"median {figure(steady.response.get('p50'), 'ms')}; "
                f"{number(steady.rate)} requests/s, "
                f"{steady.errors + steady.dropped:,} of {steady.count:,} failed or dropped",
                evidence=("requests.parquet",),
            )
        )
    return found if analysis.trials else [*found, *_steady(analysis)]


def _steady(analysis: Analysis) -> list[Headline]:
    """What a run without a fault is about: pools, CPU, cache and replicas, as far as it told."""
    found = []
    for metric in STEADY:
        finding = analysis.finding(metric)
        if finding is not None and finding.value is not None:
            label = METRICS[metric]
            tone = "unsure" if finding.status else ""
            value = figure(finding.value, finding.unit)
            found.append(Headline(label[:1].upper() + label[1:], value, finding.why, tone, finding.evidence))
    return found


def checked(analysis: Analysis) -> list[tuple[Finding, str, str]]:
    """(finding, what it is in words, tone) of every check that this run could answer, unsound ones first.

    ``good`` and ``bad`` only where there is one sound value, and the finding may be judged.
    """
    rows = []
    for metric, sound in SOUND.items():
        finding = analysis.finding(metric)
        if finding is None or finding.status == "not run":
            continue
        if finding.value is None or finding.status is not None:
            # A loss that was seen is one, whatever else is open.
            seen = (
                finding.status == "inconclusive" and sound is not None and finding.value not in (None, sound)
            )
            tone = "bad" if seen else "unsure"
        else:
            tone = "" if sound is None else "good" if finding.value == sound else "bad"
        rows.append((finding, METRICS.get(metric, metric), tone))
    return sorted(rows, key=lambda row: ("bad", "unsure", "good", "").index(row[2]))


def lead(analysis: Analysis) -> str:
    """The first screen's figures as one or two sentences."""
    if not analysis.trials:
        steady = analysis.load.steady
        if analysis.manifest.fault or steady is None or not steady.ok:
            return ""
        mean = figure(steady.response.get("mean"), "ms")
        bad = steady.errors + steady.dropped
        failed = "none" if not bad else f"{bad:,} of {steady.count:,}"
        rate = number(steady.rate)
        return f"At {rate} requests/s the mean response time was {mean}; {failed} failed or was dropped."
    writes, lost, reads, *_ = headlines(analysis)
    said = []
    if writes.value == "no outage":
        said.append("Writes saw no outage.")
    elif writes.value != NONE:
        said.append(f"Writes were down for {writes.value.replace('> ', 'more than ')} ({writes.detail}).")
    if lost.value != NONE:
        count = "None" if lost.value == "0" else lost.value
        was = "was" if lost.value in ("0", "1") else "were"
        said.append(f"{count} of {analysis.ledger.acknowledged:,} acknowledged writes {was} lost.")
    else:
        said.append(f"What was lost is not known: {lost.detail}.")
    if reads.value == "no outage":
        said.append("Reads saw no outage.")
    elif reads.value != NONE:
        said.append(f"Reads were down for {reads.value.replace('> ', 'more than ')}.")
    split = max(trial.split_brain.certain_s for trial in analysis.trials)
    if split:
        said.append(f"For {figure(split, 's')} two nodes accepted writes at one time.")
    return " ".join(said)


def _down(analysis: Analysis, field: str, label: str) -> Headline:
    outages = [getattr(trial, field) for trial in analysis.trials]
    evidence = ("writes.parquet" if field == "write" else "reads.parquet", "events.parquet")
    known = sorted(outage.seconds for outage in outages if outage.seconds is not None)
    stuck = [outage for outage in outages if outage.state == "not recovered"]
    none = sum(outage.state == "no outage" for outage in outages)
    of = f"{len(outages)} trial{'s' if len(outages) > 1 else ''}"
    blind = sum(outage.state == "no data" for outage in outages)
    tail = f"; no data in {blind}" if blind else ""
    if stuck:
        least = max((outage.at_least or 0.0) for outage in stuck)
        return Headline(
            label, f"> {figure(least, 's')}", f"not recovered in {len(stuck)} of {of}{tail}", "bad", evidence
        )
    if known:
        middle = len(known) // 2
        median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
        detail = f"worst of {of}; median {figure(median, 's')}" if len(outages) > 1 else "1 trial"
        if none:
            detail += f"; no outage in {none}"
        low, high = analysis.predicted.get("best"), analysis.predicted.get("worst")
        if field == "write" and low is not None and high is not None:
            detail += f"; predicted {low:.1f} to {high:.1f} s"
        return Headline(label, figure(known[-1], "s"), detail + tail, "", evidence)
    if none:
        return Headline(
            label, "no outage", f"no failed or slow operation, {none} of {of}{tail}", "", evidence
        )
    return Headline(label, NONE, f"no data in {of}", "unsure", evidence)


def _lost(analysis: Analysis) -> Headline:
    ledger = analysis.ledger
    evidence = ("writes.parquet", "audit/")
    if not ledger.complete:
        return Headline(
            "Acknowledged writes lost",
            NONE,
            f"not accounted for: {ledger.why or 'no audit'}",
            "unsure",
            evidence,
        )
    detail = f"of {ledger.acknowledged:,} acknowledged"
    if ledger.rpo_seconds is not None:
        detail += f"; the oldest {figure(ledger.rpo_seconds, 's')} back"
    others = [
        f"{count:,} {name}"
        for count, name in (
            (ledger.phantom, "phantom"),
            (ledger.duplicate, "duplicate"),
            (ledger.dirty, "dirty reads"),
            (ledger.lost_locally, "lost after a warning"),
        )
        if count
    ]
    if others:
        detail += "; " + ", ".join(others)
    return Headline(
        "Acknowledged writes lost", f"{ledger.lost:,}", detail, "bad" if ledger.lost else "good", evidence
    )


def _split(analysis: Analysis) -> Headline:
    watched = [trial.split_brain for trial in analysis.trials if trial.split_brain.samples]
    if not watched:
        return Headline("Two nodes accepted writes", NONE, "nobody watched", "unsure", ("nodes.parquet",))
    certain = max(one.certain_s for one in watched)
    possible = max(one.possible_s for one in watched)
    samples = sum(one.samples for one in watched)
    detail = f"{samples:,} looks at the nodes directly"
    if certain:
        pairs = sorted({" and ".join(pair) for one in watched for pair in one.pairs})
        return Headline(
            "Two nodes accepted writes", figure(certain, "s"), ", ".join(pairs), "bad", ("nodes.parquet",)
        )
    if possible:
        return Headline(
            "Two nodes accepted writes",
            "possibly",
            f"up to {figure(possible, 's')} between two looks; {detail}",
            evidence=("nodes.parquet",),
        )
    return Headline("Two nodes accepted writes", "never", detail, "good", ("nodes.parquet",))


def _back(trials: Sequence[Trial]) -> list[Headline]:
    found = []
    for field, label in (
        ("redundant_s", "Every node streamed again"),
        ("synchronous_s", "Synchronous again"),
    ):
        known = [value for trial in trials if (value := getattr(trial, field)) is not None]
        if known:
            detail = f"after the fault, worst of {len(known)} trial{'s' if len(known) > 1 else ''}"
            if len(known) < len(trials):
                detail += f"; not seen in {len(trials) - len(known)}"
            found.append(Headline(label, figure(max(known), "s"), detail, "", ("events.parquet",)))
    return found
