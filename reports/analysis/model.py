"""What the analysis of a run record yields: everything that judgement, charts and the report need.

``reports.analysis.analyse(record) -> Analysis``. All values are frozen, and ``model_dump(mode="json")``
gives what goes into ``report.json``. Times called ``*_s`` on ``Analysis``, ``Trial``, ``Span`` and series
are **seconds since run-start** on the observer's clock; durations say what they count from. Unknown is None,
never 0 and never NaN.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lab.record.schema import Manifest
from reports.findings import Finding, Value

OutageState = Literal["recovered", "no outage", "not recovered", "no data"]
PARTS = ("detect", "elect", "promote", "route", "reconnect")
"""Parts of an RTO in order of time; ``unattributed`` follows."""


class Outage(Value):
    """What one kind of client saw after the fault of one trial (``rto.py``).

    ``no outage``: no operation failed or was slow in the window. ``not recovered``: something failed
    or was slow and no lasting recovery was seen; the outage is ``at_least`` that long.
    """

    state: OutageState
    seconds: float | None = None
    """RTO: effect → completion of the first good operation after which none is bad. Recovered only."""
    at_least: float | None = None
    """Lower bound in seconds, where it did not recover in the window."""
    hold_s: float | None = None
    """Seconds from the recovery to the end of the window: how long it was seen to last."""
    operations: int = 0
    """Operations that were looked at."""
    failed: int = 0
    unknown: int = 0
    slow: int = 0
    """Acknowledged, but later than T after the intended moment."""
    locally: int = 0
    lost: int = 0
    """Acknowledged, and absent in the audit."""
    first_bad_s: float | None = None
    """Seconds after the effect at which the first bad operation was intended (negative: in flight)."""
    last_bad_s: float | None = None
    why: str = ""


class OpenSessions(Value):
    """Sessions that had been opened before the effect (``rto.open_sessions``).

    A session is *settled* when it works again for good, or when the client has been told that it is
    broken (its last write came back with an error). ``seconds`` is the last settling after the effect.
    """

    state: OutageState
    seconds: float | None = None
    at_least: float | None = None
    sessions: int = 0
    survived: int = 0
    """Had a bad write and worked again."""
    untouched: int = 0
    """Had no bad write."""
    broken: int = 0
    """Ended with an error that told the client."""
    stuck: int = 0
    """Neither: its last write was not answered in the window, or it went on acknowledging what was lost."""
    longest_write_s: float | None = None
    """The longest that one write on such a session took to come back."""
    why: str = ""


class Part(Value):
    name: str
    seconds: float | None
    """None: the milestone that ends it is missing, and its time is in *unattributed*."""


class Breakdown(Value):
    """The RTO of writes by layer. Known parts and ``unattributed`` add up to ``total``."""

    parts: tuple[Part, ...]
    unattributed: float
    total: float
    milestones: dict[str, float | None] = Field(default_factory=dict)
    """expired, elected, promoted, routed, pooler, recovered → seconds after the effect, as seen."""
    why: str = ""


class NodeAudit(Value):
    """One node's part in the final audit."""

    node: str
    caught_up: bool
    rows: int | None
    missing: int | None
    """Acknowledged writes that this node lacks."""
    lsn: int | None = None


class Ledger(Value):
    """The account of every write (``ledger.py``); ``complete`` False: it must not be judged (``why``)."""

    writes: int = 0
    acknowledged: int = 0
    acknowledged_locally: int = 0
    failed: int = 0
    unknown: int = 0
    lost: int = 0
    lost_locally: int = 0
    """Acknowledged locally and absent: visible for a while, never promised."""
    phantom: int = 0
    duplicate: int = 0
    unknown_present: int = 0
    dirty: int = 0
    divergent: int = 0
    """Present on the final primary and absent from another node that had caught up."""
    rpo_seconds: float | None = None
    """None where nothing was lost or the ledger is incomplete."""
    rpo_age_seconds: float | None = None
    """Age of the oldest lost write at the fault (None: nothing was lost before the fault)."""
    rpo_wal_bytes: int | None = None
    """WAL of the old primary beyond the new one's position when it promoted; a bound from samples."""
    lost_numbers: tuple[int, ...] = ()
    """The first 20."""
    phantom_numbers: tuple[int, ...] = ()
    duplicate_numbers: tuple[int, ...] = ()
    nodes: tuple[NodeAudit, ...] = ()
    final_primary: str | None = None
    complete: bool = False
    why: str = ""


class SplitBrain(Value):
    """Two nodes that accepted writes at one time (``split_brain.py``), in seconds."""

    certain_s: float = 0.0
    """At least so long."""
    possible_s: float = 0.0
    """At most so long, as far as the samples tell."""
    moments: int = 0
    """Accepting samples of one node between two consecutive accepting samples of another."""
    pairs: tuple[tuple[str, str], ...] = ()
    samples: int = 0
    """Samples of nodes that were looked at; 0: it was not watched."""


class Injected(Value):
    """One fault of a trial (``faults.py``)."""

    fault: str
    kind: str
    """kill, partition, pause, …"""
    target: str | None
    """The role that was asked for."""
    nodes: tuple[str, ...]
    """What it was resolved to."""
    begin_s: float
    effect_s: float | None


class Exposure(Value):
    """Whether a trial can prove that nothing is lost: what a partition put at risk (``faults.py``)."""

    kinds: tuple[str, ...] = ()
    """Kinds of the trial's faults."""
    primary_cut: bool = False
    """A partition cut off the primary."""
    took_over: bool = False
    """Another node became primary in the window."""
    attempted: int = 0
    """Writes sent from the partition's effect until another node accepted writes."""
    acknowledged: int = 0
    """Those of them that were acknowledged in that time."""
    reached: int = 0
    """New connections through the router that the old primary answered in that time."""
    unreplicated: int | None = None
    """Bytes of WAL that the old primary had beyond what its successor had replayed; None: not known."""
    seconds: float | None = None
    """How long that was."""

    @property
    def proof(self) -> Literal["proves", "vacuous", "no proof"]:
        """What a trial without a loss says about RPO 0."""
        if not self.primary_cut:
            return "no proof"
        if not self.attempted:
            return "vacuous"
        return "proves" if self.took_over and self.reached and self.unreplicated else "no proof"


class Fork(Value):
    """What only the old primary had when another node took over (``fork.py``)."""

    old: str
    new: str
    parent_timeline: int | None = None
    switch_lsn: int | None = None
    """Bytes; known from evidence only, as ``end_lsn``."""
    end_lsn: int | None = None
    beyond_bytes: int | None = None
    source: str | None = None
    """Where the bytes come from: a file of the record, or ``samples``."""
    losing: int = 0
    """Writes that the old primary acknowledged on the losing timeline."""
    losing_lost: int = 0
    """Those of them that the audit did not find."""
    watched: bool = False
    """It was seen when the new primary first accepted writes."""
    dual: int = 0
    """Writes that the old primary acknowledged and that were sent after that."""
    dual_s: float = 0.0


class Trial(Value):
    """One trial."""

    trial: int
    start_s: float
    effect_s: float | None
    """When the fault took effect; None: it is not known to have."""
    uncertainty_s: float | None
    window_end_s: float | None
    end_s: float
    target: str | None
    new_primary: str | None
    verified: bool
    """An independent look found the fault in effect."""
    phase_ms: float | None = None
    write: Outage
    """All writes: the headline."""
    write_new: Outage
    """Writes on sessions opened after the effect."""
    write_open: OpenSessions
    read: Outage
    read_new: Outage
    read_open: OpenSessions
    breakdown: Breakdown | None
    ledger: Ledger
    split_brain: SplitBrain
    redundant_s: float | None = None
    """Seconds from the effect until every node streamed again."""
    synchronous_s: float | None = None
    """Seconds from the effect until synchronous replication was in effect again."""
    faults: tuple[Injected, ...] = ()
    exposure: Exposure = Exposure()
    fork: Fork | None = None
    """None where no other node took over."""
    invalid: tuple[str, ...] = ()
    """Why the trial must not be judged, as to outages."""
    void: tuple[str, ...] = ()
    """Those of ``invalid`` for which nothing of the trial counts, its ledger and split brain neither."""


class RedisTrial(Value):
    """What clients of Redis saw in one trial (``redis_writes.py``)."""

    trial: int
    hit: tuple[str, ...]
    """Redis servers and Sentinels that a fault hit."""
    old_primary: str | None
    """The primary before Sentinel named another one; None where none was named."""
    new_primary: str | None
    announced_s: float | None
    """Effect → a Sentinel names another primary."""
    write: Outage
    write_new: Outage
    write_open: OpenSessions
    ledger: Ledger
    exposed: int
    """Writes that the old primary acknowledged and that were sent after another one was named."""
    said: tuple[str, ...] = ()
    """Lines of the Sentinels' logs: file, line, seconds after the effect."""
    invalid: tuple[str, ...] = ()
    void: tuple[str, ...] = ()


class RedisWrites(Value):
    """The Redis writer's account of the run."""

    trials: tuple[RedisTrial, ...]
    ledger: Ledger
    lost_by_second: dict[int, int] = Field(default_factory=dict)
    """Second of the run → writes intended in it that are lost."""


class Span(Value):
    """A stretch of time to shade: ``steady``, ``outage`` (effect → recovery), ``window``, ``heal``."""

    kind: Literal["steady", "outage", "window", "heal"]
    start_s: float
    end_s: float
    trial: int = 0


class Mark(Value):
    """An event, for the timeline."""

    t_s: float
    kind: str
    trial: int = 0
    node: str | None = None
    source: str | None = None
    uncertainty_s: float | None = None
    detail: dict[str, Any] = Field(default_factory=dict)


class Seconds(Value):
    """The load second by second; all tuples have the length of ``t``.

    An operation counts in the second in which it was intended. Percentiles are of response time in ms
    of operations that ended well, None where fewer than 10 samples lie beyond them.
    """

    t: tuple[float, ...] = ()
    ok: tuple[int, ...] = ()
    errors: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    p50: tuple[float | None, ...] = ()
    p95: tuple[float | None, ...] = ()
    p99: tuple[float | None, ...] = ()
    longest: tuple[float | None, ...] = ()


class Latency(Value):
    """One kind of request over a stretch of time; times in ms, from raw values."""

    name: str
    endpoint: str | None
    count: int
    """All that were intended: ok + errors + dropped."""
    ok: int
    errors: int
    dropped: int
    rate: float | None
    """ok per second."""
    response: dict[str, float | None] = Field(default_factory=dict)
    """p50, p95, p99, p99.9, max, mean of response time (from the intended start)."""
    service: dict[str, float | None] = Field(default_factory=dict)
    """The same of service time (from the actual start)."""
    lag: dict[str, float | None] = Field(default_factory=dict)
    """The same of schedule lag: actual − intended start."""


class Load(Value):
    """The load's account."""

    seconds: Seconds = Seconds()
    all: Latency | None = None
    """Everything, whole run."""
    steady: Latency | None = None
    """Everything, steady state only: what is judged."""
    by_name: tuple[Latency, ...] = ()
    """By name, whole run."""
    steady_by_name: tuple[Latency, ...] = ()
    errors: dict[str, int] = Field(default_factory=dict)
    """SQLSTATE or error class → number."""


class Pool(Value):
    """One pooler over the steady state (``pooling.py``)."""

    pooler: str
    mode: str | None
    limit: int | None
    """The limit of the topology, over databases and users."""
    max_server_connections: int | None = None
    """Greatest sum over databases and users, whole run."""
    new_connections: int | None = None
    """New server connections in the steady state, from the pooler's log."""
    assignments: int | None = None
    efficiency: float | None = None
    """Percent: 1 − new server connections ÷ server assignments."""
    utilisation: float | None = None
    """Percent of the pool's limit that was active, time-weighted."""
    wait_ms: float | None = None
    """Mean wait for a server connection per assignment."""
    max_wait_s: float | None = None
    sql_share: float | None = None
    """Percent: time in SQL ÷ time assigned."""
    multiplexing: float | None = None
    """Clients ÷ open server connections."""
    why: str = ""


class Service(Value):
    """Writes or reads of the probe over the whole run (``availability.py``)."""

    operations: int
    good: int
    seconds: int
    """Seconds of the run with an operation."""
    bad_seconds: int
    """Those with a bad one."""
    longest_s: float
    """Longest stretch in which no operation was good; 0 where none was bad."""
    longest_at_s: float | None
    longest_ended: bool
    """False: it lasted to the end, and is at least so long."""


class ReadsAt(Value):
    """Reads at one endpoint, or answered by one server (``freshness.py``)."""

    name: str
    reads: int
    backwards: int
    missing: int
    worst_s: float
    """Greatest staleness."""
    p99_s: float | None
    """99th percentile of staleness, from 1,000 reads on."""


class Freshness(Value):
    """What readers were shown over the whole run."""

    all: ReadsAt | None = None
    """None: no read was answered."""
    by_endpoint: tuple[ReadsAt, ...] = ()
    by_server: tuple[ReadsAt, ...] = ()
    sessions: int = 0
    """Lasting sessions that read."""


class Standstill(Value):
    """Who made progress after the healing of one trial (``progress.py``)."""

    trial: int
    seconds: float
    """From the healing to the next trial or the end of the load: how long it was watched."""
    workers: int
    """Workers of the load × endpoints that were looked at."""
    users: int
    """Users of the load that were looked at; 0 also where the record does not tell them apart."""
    sessions: int
    """Sessions of the probes that were looked at."""
    stuck: tuple[str, ...] = ()
    """Those without an operation that ended well."""
    why: str = ""
    """Why nothing can be said; empty where it can."""


class Usage(Value):
    """One node over the steady state (``resources.py``)."""

    node: str
    cpu_cores: float | None = None
    """Mean cores used."""
    limit_cores: float | None = None
    cpu_share: float | None = None
    """Percent of the limit; None without one."""
    throttled_share: float | None = None
    """Percent of the time in which the quota held the node back."""
    memory_max_bytes: float | None = None
    memory_limit_bytes: float | None = None


class Little(Value):
    """Little's law over the load's steady state (``little.py``)."""

    in_flight: float
    """L: mean number of requests under way, as the generator counted them."""
    rate: float
    """X: requests that ended per second."""
    service_s: float
    """R: their mean time under way."""
    off: float
    """|L − X·R| ÷ L."""
    holds: bool


class Firing(Value):
    """One time that an alarm was on."""

    fired_s: float
    over_s: float | None
    """None: it was on to the end."""


class Alarm(Value):
    """One alarm over a run (``alarms.py``)."""

    name: Literal["cpu", "connections", "latency", "capacity"]
    node: str | None
    threshold: float
    unit: str
    period_s: float
    values: tuple[float | None, ...] = ()
    """Average of each period, from run-start on; None: no sample."""
    fired: tuple[Firing, ...] = ()


class Reason(Value):
    """Why findings must not be judged."""

    metrics: tuple[str, ...]
    """Prefixes of metric ids; ``*`` for every finding."""
    why: str
    trial: int = 0
    """0: the whole run."""
    status: Literal["invalid", "inconclusive", "not run"] = "invalid"
    """What it makes of findings; of several, the one that is named last here counts."""


class Analysis(Value):
    """Everything found in one run record."""

    run: str
    manifest: Manifest
    duration_s: float
    trials: tuple[Trial, ...] = ()
    ledger: Ledger = Ledger()
    """Sum over the trials."""
    service_write: Service | None = None
    service_read: Service | None = None
    freshness: Freshness = Freshness()
    standstill: tuple[Standstill, ...] = ()
    """One a trial that was healed."""
    redis: RedisWrites | None = None
    """None where nobody wrote to Redis."""
    load: Load = Load()
    pools: tuple[Pool, ...] = ()
    usage: tuple[Usage, ...] = ()
    little: Little | None = None
    """None: the generator did not count what it had under way, or too few requests."""
    alarms: tuple[Alarm, ...] = ()
    databases: tuple[str, ...] = ()
    """Names of the database nodes."""
    spans: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()
    statements: dict[str, tuple[dict[str, Any], ...]] = Field(default_factory=dict)
    """Node → the run's top statements and all that the load tagged: query, calls, total_ms, mean_ms, rows."""
    predicted: dict[str, float] = Field(default_factory=dict)
    """What the configuration predicts, seconds: best, worst and its parts."""
    clock_uncertainty_s: float | None = None
    reasons: tuple[Reason, ...] = ()
    findings: tuple[Finding, ...] = ()

    def finding(self, metric: str) -> Finding | None:
        """The finding of a metric, None where the run yields none."""
        return next((f for f in self.findings if f.metric == metric), None)
