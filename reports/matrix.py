"""A matrix of runs as one table: what each variant costs and saves against the first one.

Trials are paired: trial k of a repeat has one seed on every variant and pool, so the same phase of injection.
Differences are *variant − reference*: the first variant through the same pool, and for the first variant
itself the first pool. Their test and interval are those of ``analysis/two_samples.paired``. The response time
is that of the steady states of all repeats together (``analysis/blocks.py``), from six repeats on paired too.
Further figures that the matrix asks for have one value a run; the median is shown, and runs are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from reports import view
from reports.analysis import blocks
from reports.analysis.model import Outage, RedisTrial, Trial
from reports.analysis.trials import median
from reports.analysis.two_samples import CONFIDENCE, Difference, paired
from reports.checks.common import split
from reports.compare import Run, Word, direction, load, verdict_of
from reports.compare_text import STYLE
from reports.findings import Finding, Value

PAIRS = 6
"""Repeats from which on response times are paired: fewer cannot show a difference at 5 %."""


class Against(Value):
    """One figure of a variant against the first variant's."""

    difference: float | None
    interval: tuple[float, float] | None
    p: float | None = None
    verdict: Word
    method: str


class Extra(Value):
    """A figure that the matrix asks for."""

    metric: str
    unit: str = ""
    value: float | None = None
    """Median of the runs."""
    against: Against | None = None


class Line(Value):
    """One scenario, through one pool, on one variant."""

    scenario: str
    pool: str | None
    variant: str
    reference: bool
    runs: tuple[str, ...] = ()
    trials: int = 0
    """Valid trials."""
    invalid: int = 0
    no_outage: int = 0
    not_recovered: int = 0
    rto_median: float | None = None
    """Seconds, of writes; a trial without an outage counts as 0."""
    rto_worst: float | None = None
    lost: int | None = None
    """Acknowledged writes, all trials together; None: no complete audit."""
    redis_worst: float | None = None
    """Seconds, of writes to Redis, the worst trial; infinite: it did not recover. None: no fault of Redis."""
    redis_lost: int | None = None
    """Writes that Redis acknowledged, all trials together."""
    p50: float | None = None
    """Response time in the steady state, ms."""
    p95: float | None = None
    rto_against: Against | None = None
    lost_against: Against | None = None
    redis_rto_against: Against | None = None
    redis_lost_against: Against | None = None
    p50_against: Against | None = None
    p95_against: Against | None = None
    extras: tuple[Extra, ...] = ()
    why: str = ""
    """Why there is nothing, or not all."""


class Entry(Value):
    """One cell, as it came out."""

    scenario: str
    pool: str | None
    variant: str
    repeat: int
    record: Path | None
    error: str = ""


Key = tuple[int, int]
"""(repeat, trial)"""


class Group:
    """All repeats of one line."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.runs: dict[int, Run] = {e.repeat: load(e.record) for e in entries if e.record is not None}

    def trials(self, *, ledger: bool = False) -> dict[Key, Trial]:
        """Valid trials."""
        return {
            (repeat, trial.trial): trial
            for repeat, run in self.runs.items()
            for trial in split(run.analysis, ledger=ledger)[0]
        }

    def rto(self) -> dict[Key, float]:
        """Seconds a trial; 0: no outage, infinite: it did not recover."""
        return _seconds({key: trial.write for key, trial in self.trials().items()})

    def redis(self, *, ledger: bool = False) -> dict[Key, RedisTrial]:
        """Valid trials in which a fault hit Redis or a Sentinel."""
        return {
            (repeat, trial.trial): trial
            for repeat, run in self.runs.items()
            for trial in (run.analysis.redis.trials if run.analysis.redis else ())
            if trial.hit and not (trial.void if ledger else trial.invalid)
        }

    def redis_rto(self) -> dict[Key, float]:
        return _seconds({key: trial.write for key, trial in self.redis().items()})

    def redis_lost(self) -> dict[Key, float]:
        found = self.redis(ledger=True)
        return {key: float(trial.ledger.lost) for key, trial in found.items() if trial.ledger.complete}

    def lost(self) -> dict[Key, float]:
        return {k: float(t.ledger.lost) for k, t in self.trials(ledger=True).items() if t.ledger.complete}

    def stretches(self) -> list[blocks.Stretch]:
        return [stretch for run in self.runs.values() for stretch in run.stretches]

    def percentile(self, name: Literal["p50", "p95"]) -> dict[Key, float]:
        """Of each run's steady state, ms."""
        found = {}
        for repeat, run in self.runs.items():
            steady = run.analysis.load.steady
            value = steady.response.get(name) if steady else None
            if value is not None:
                found[(repeat, 0)] = value
        return found

    def findings(self, metric: str) -> dict[int, Finding]:
        """Repeat → the run's finding, where it can be used."""
        found = {repeat: run.analysis.finding(metric) for repeat, run in self.runs.items()}
        return {
            repeat: one
            for repeat, one in found.items()
            if one is not None and one.value is not None and one.status not in ("invalid", "not run")
        }

    def values(self, metric: str) -> dict[Key, float]:
        """Of each run."""
        return {(k, 0): f.value for k, f in self.findings(metric).items() if f.value is not None}


def _seconds(outages: dict[Key, Outage]) -> dict[Key, float]:
    return {
        key: 0.0 if one.state == "no outage" else math.inf if one.seconds is None else one.seconds
        for key, one in outages.items()
        if one.state != "no data"
    }


def lines(entries: Iterable[Entry], figures: Sequence[str] = ()) -> list[Line]:
    """One a scenario, pool and variant, in the order in which they first come; the first variant leads.

    Args:
        figures: metrics that are shown beside those that every line has.

    Raises RecordError where a record is damaged.
    """
    by_line: dict[tuple[str, str | None, str], list[Entry]] = {}
    for entry in entries:
        by_line.setdefault((entry.scenario, entry.pool, entry.variant), []).append(entry)
    groups = {key: Group(found) for key, found in by_line.items()}
    made = []
    for (scenario, pool, variant), group in groups.items():
        first = next(g for key, g in groups.items() if key[:2] == (scenario, pool))
        if first is group:
            first = next(g for key, g in groups.items() if key[0] == scenario)
        made.append(_line(scenario, pool, variant, group, None if group is first else first, figures))
    order = {key[:2]: place for place, key in reversed(list(enumerate(groups)))}
    return sorted(made, key=lambda line: order[(line.scenario, line.pool)])


def _line(
    scenario: str,
    pool: str | None,
    variant: str,
    group: Group,
    first: Group | None,
    figures: Sequence[str],
) -> Line:
    rto, lost = group.rto(), group.lost()
    redis_rto, redis_lost = group.redis_rto(), group.redis_lost()
    times = list(rto.values())
    stretches = group.stretches()
    response = blocks.percentiles(stretches, stretches, [0.5, 0.95])
    ran = [run.analysis for run in group.runs.values()]
    whys = [e.error for e in group.entries if e.error]
    whys += [", ".join(trial.invalid) for one in ran for trial in split(one)[1]]
    whys += [reason.why for one in ran for reason in one.reasons if reason.trial == 0]
    return Line(
        scenario=scenario,
        pool=pool,
        variant=variant,
        reference=first is None,
        runs=tuple(one.run for one in ran),
        trials=len(times),
        invalid=sum(len(split(one)[1]) for one in ran),
        no_outage=times.count(0.0),
        not_recovered=times.count(math.inf),
        rto_median=_finite(median(times)),
        rto_worst=_finite(max(times, default=None)),
        lost=round(sum(lost.values())) if lost else None,
        redis_worst=max(redis_rto.values(), default=None),
        redis_lost=round(sum(redis_lost.values())) if redis_lost else None,
        p50=response[0].first,
        p95=response[1].first,
        rto_against=_paired("rto.write", first.rto(), rto) if first else None,
        lost_against=_paired("ledger.lost", first.lost(), lost) if first else None,
        redis_rto_against=_paired("redis.rto", first.redis_rto(), redis_rto) if first else None,
        redis_lost_against=_paired("redis.lost_writes", first.redis_lost(), redis_lost) if first else None,
        p50_against=_response(first, group, "p50") if first else None,
        p95_against=_response(first, group, "p95") if first else None,
        extras=tuple(_extra(metric, group, first) for metric in figures),
        why="; ".join(dict.fromkeys(filter(None, whys))),
    )


def _extra(metric: str, group: Group, first: Group | None) -> Extra:
    values = group.values(metric)
    return Extra(
        metric=metric,
        unit=next((one.unit for one in group.findings(metric).values()), ""),
        value=median(list(values.values())),
        against=_paired(metric, first.values(metric), values) if first else None,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _paired(metric: str, first: dict[Key, float], second: dict[Key, float]) -> Against | None:
    both = sorted(first.keys() & second.keys())
    if not both:
        return None
    a, b = [first[key] for key in both], [second[key] for key in both]
    told = paired(a, b)
    return Against(
        difference=told.estimate,
        interval=told.interval,
        p=told.p,
        verdict=_word(metric, told, a, b),
        method=told.method
        + (f": with so few the least possible p is {told.least_p:.2g}" if told.too_few else ""),
    )


def _word(metric: str, told: Difference, a: Sequence[float], b: Sequence[float]) -> Word:
    if told.shown and told.estimate is None:
        worse = sum(y > x for x, y in zip(a, b, strict=True))
        better = sum(y < x for x, y in zip(a, b, strict=True))
        return direction(metric, worse - better)
    return verdict_of(metric, told, a, b)


def _response(first: Group, second: Group, name: Literal["p50", "p95"]) -> Against | None:
    metric = f"latency.{name}"
    if len(first.percentile(name).keys() & second.percentile(name).keys()) >= PAIRS:
        return _paired(metric, first.percentile(name), second.percentile(name))
    shift = blocks.percentiles(first.stretches(), second.stretches(), [0.5 if name == "p50" else 0.95])[0]
    if shift.first is None or shift.second is None:
        return None
    difference = shift.second - shift.first
    word: Word = "too few"
    if shift.interval is not None:
        apart = shift.interval[0] > 0 or shift.interval[1] < 0
        word = direction(metric, difference) if apart else "no difference shown"
    return Against(
        difference=difference,
        interval=shift.interval,
        verdict=word,
        method=f"block bootstrap over {shift.seconds[0]} s and {shift.seconds[1]} s; "
        "what varies from run to run is not in it",
    )


# As text

HEADS = (
    "scenario",
    "pool",
    "variant",
    "n",
    "RTO median / worst",
    "lost",
    "Redis RTO worst",
    "Redis lost",
    "p50",
    "p95",
)


def heads(found: Sequence[Line]) -> tuple[str, ...]:
    """Of every column, whether it holds anything or not."""
    return (*HEADS, *(view.METRICS.get(one.metric, one.metric) for one in (found[0].extras if found else ())))


def shown(found: Sequence[Line]) -> tuple[int, ...]:
    """Places of the columns that hold anything: without pools, trials and faults of Redis some do not."""
    redis = any(line.redis_worst is not None or line.redis_lost is not None for line in found)
    trials = redis or any(line.trials or line.invalid or line.lost is not None for line in found)
    left_out = {
        "pool": not any(line.pool for line in found),
        "n": not trials,
        "RTO median / worst": not trials,
        "lost": not trials,
        "Redis RTO worst": not redis,
        "Redis lost": not redis,
    }
    return tuple(place for place, head in enumerate(heads(found)) if not left_out.get(head))


def outage(line: Line) -> str:
    """Median and worst of the trials."""
    if not line.trials:
        return view.NONE
    if line.no_outage == line.trials:
        return "no outage"
    worst = "not recovered" if line.not_recovered else view.figure(line.rto_worst, "s")
    return f"{view.number(line.rto_median)} / {worst}"


def against(one: Against | None, unit: str) -> str:
    """``+1.3 s [0.2, 2.4] worse``."""
    if one is None:
        return ""
    said = ""
    if one.difference is not None:
        said = f"{one.difference:+.3g} {unit}"
    if one.interval is not None:
        said += f" [{one.interval[0]:+.3g}, {one.interval[1]:+.3g}]"
    return f"{said} {one.verdict}".strip()


def row(line: Line) -> tuple[str, ...]:
    """The line's cells, as ``heads`` names them."""
    return (
        line.scenario,
        line.pool or "",
        line.variant + (" (reference)" if line.reference else ""),
        str(line.trials) + (f" (+{line.invalid} invalid)" if line.invalid else ""),
        "\n".join(filter(None, [outage(line), against(line.rto_against, "s")])),
        "\n".join(filter(None, [view.number(line.lost), against(line.lost_against, "rows")])),
        "\n".join(filter(None, [_redis_outage(line), against(line.redis_rto_against, "s")])),
        "\n".join(filter(None, [view.number(line.redis_lost), against(line.redis_lost_against, "writes")])),
        "\n".join(filter(None, [view.figure(line.p50, "ms"), against(line.p50_against, "ms")])),
        "\n".join(filter(None, [view.figure(line.p95, "ms"), against(line.p95_against, "ms")])),
        *(
            "\n".join(filter(None, [view.figure(one.value, one.unit), against(one.against, one.unit)]))
            for one in line.extras
        ),
    )


def _redis_outage(line: Line) -> str:
    if line.redis_worst is not None and math.isinf(line.redis_worst):
        return "not recovered"
    return "no outage" if line.redis_worst == 0 else view.figure(line.redis_worst, "s")


def notes(found: Sequence[Line]) -> list[str]:
    """How it was compared, each way once; and what is missing."""
    every = [
        one for line in found
        for one in (line.rto_against, line.lost_against, line.redis_rto_against, line.redis_lost_against,
                    line.p50_against, line.p95_against, *(extra.against for extra in line.extras)) if one
    ]  # fmt: skip
    said = list(dict.fromkeys(one.method for one in every))
    judged = sum(one.verdict != "too few" for one in every)
    if judged:
        said.append(
            f"{judged} differences were tested at {1 - CONFIDENCE:.0%} each: chance alone would show about "
            f"{judged * (1 - CONFIDENCE):.1f} of them"
        )
    return said + [f"{line.scenario} on {line.variant}: {line.why}" for line in found if line.why]


class MatrixTable:
    """What ``lab matrix`` prints."""

    def __init__(self, found: Sequence[Line]) -> None:
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        places, names = shown(self.found), heads(self.found)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
        for place in places:
            table.add_column(names[place], overflow="fold")
        for line in self.found:
            said = row(line)
            cells = [Text(said[place]) for place in places]
            for text in cells:
                for word, style in STYLE.items():
                    if text.plain.endswith(f" {word}"):
                        text.stylize(style, len(text.plain) - len(word))
            table.add_row(*cells)
        yield table
        for note in notes(self.found):
            yield Text(f"· {note}", style="dim")


def markdown(title: str, found: Sequence[Line]) -> str:
    """The same for a note."""
    places, names = shown(found), heads(found)
    lines_ = [f"### {title}", "", f"| {' | '.join(names[p] for p in places)} |", f"|{'---|' * len(places)}"]
    for line in found:
        said = row(line)
        lines_.append(f"| {' | '.join(said[place].replace(chr(10), '<br>') for place in places)} |")
    return "\n".join([*lines_, "", *(f"- {note}" for note in notes(found)), ""])
