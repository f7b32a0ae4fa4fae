"""Bench (d): outages of known length against what the lab measures.

The writer probe runs at its usual 10 ms against one endpoint. Its node refuses or swallows what comes for
that port, for a known time: one shell command on the node sets a packet filter, sleeps, and takes it away,
and says between which moments each took effect, so that the known length holds no time of the driver.
What is compared is the RTO of the lab's own analysis (``reports.analysis.rto``), from the same ledger files.
"""

from __future__ import annotations

import math
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pyarrow as pa

import lab as lab_package
from lab.bench.figure import Figure
from lab.deploy.endpoints import endpoints
from lab.deploy.secret_names import PROBE
from lab.driver import Lab, Node
from lab.errors import LabError
from lab.observe import config as observe
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.segments import read_batches
from reports.analysis.columns import read_writes
from reports.analysis.rto import Operations, of_writes, outage

Kind = Literal["refused", "black-holed"]
TARGETS: dict[Kind, str] = {"refused": "REJECT --reject-with tcp-reset", "black-holed": "DROP"}
LENGTHS_S = (0.2, 1.0, 5.0)
INTERVAL_S = 0.010
SLOW_S = 1.0
WINDOW_S = 2.5
"""Observed after an outage, before the next begins: more than T, so that its recovery can hold."""
PYTHON = "/opt/venv/bin/python"

# $1 port, $2 iptables target (split into words), $3 seconds, $4 the node's own address that is connected to.
# Prints the moments around both changes. Where the kernel has the match `recent`, the rule is there and is
# switched by one write to /proc (microseconds); else the rule itself is set and taken away (milliseconds).
SCRIPT = """
port=$1 target=$2 address=$4 table=/proc/net/xt_recent/yardstick
switched="INPUT -p tcp --dport $port -m recent --name yardstick --rdest --rcheck -j $target"
plain="INPUT -p tcp --dport $port -j $target"
undo() { { iptables -w -D $switched; iptables -w -D $plain; } 2>/dev/null; }
trap 'undo; exit 1' TERM INT HUP
if iptables -w -I $switched 2>/dev/null && { echo / >$table; } 2>/dev/null; then
  a=$EPOCHREALTIME
  echo "+$address" >$table || { undo; exit 1; }
  b=$EPOCHREALTIME
  sleep "$3"
  c=$EPOCHREALTIME
  echo "-$address" >$table
  d=$EPOCHREALTIME
else
  undo
  a=$EPOCHREALTIME
  iptables -w -I $plain || exit 1
  b=$EPOCHREALTIME
  sleep "$3"
  c=$EPOCHREALTIME
  iptables -w -D $plain || exit 1
  d=$EPOCHREALTIME
fi
undo
echo "$a $b $c $d"
"""

UNDO = """
for target in "REJECT --reject-with tcp-reset" DROP; do
  iptables -w -D INPUT -p tcp --dport "$1" -m recent --name yardstick --rdest --rcheck -j $target
  iptables -w -D INPUT -p tcp --dport "$1" -j $target
done 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class Known:
    """An outage that was made. Times in ns on the observer's monotonic clock."""

    kind: Kind
    asked_s: float
    begin: int
    end: int
    uncertainty: int
    """± of its length: half of how long both commands took."""

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / NS


@dataclass(frozen=True)
class Measured:
    """The same outage as the lab's analysis saw it; ``seconds`` is None where it saw none."""

    known: Known
    state: str
    seconds: float | None

    @property
    def error_ms(self) -> float | None:
        """Measured less known, ms."""
        return None if self.seconds is None else (self.seconds - self.known.seconds) * 1000


def known_outage(kind: Kind, asked_s: float, printed: str, wall_to_monotonic: int) -> Known:
    """What the script printed, on the observer's clock. ``wall_to_monotonic`` is added to wall ns.

    A filter takes effect while the command runs, so the middle counts. LabError for other text.
    """
    words = printed.split()
    try:
        a, b, c, d = (round(float(word.replace(",", ".")) * 1e6) * 1000 for word in words)
    except ValueError as error:
        raise LabError(f"the packet filter did not say when it took effect: {printed!r}") from error
    half = ((b - a) + (d - c)) // 2
    begin, end = (a + b) // 2 + wall_to_monotonic, (c + d) // 2 + wall_to_monotonic
    return Known(kind, asked_s, begin, end, half)


def measure(operations: Operations, known: Sequence[Known], window_s: float = WINDOW_S) -> list[Measured]:
    """Each known outage as the analysis sees it, in a window that ends ``window_s`` after it."""
    found = []
    for one in known:
        seen = outage(operations, one.begin, one.end + round(window_s * NS), round(SLOW_S * NS))
        found.append(Measured(one, seen.state, seen.seconds))
    return found


def quiet_ms(operations: Operations, known: Sequence[Known]) -> dict[str, float]:
    """Median and p95 response of lasting writes outside of outages, ms: what the error cannot be below.

    A write is intended every interval, so that the error has half an interval and one response in it.
    """
    looked = operations.answered & ~operations.fresh
    for one in known:
        looked &= (operations.intended < one.begin - NS) | (operations.intended > one.end + NS)
    response = (operations.done - operations.intended)[looked] / 1e6
    if not len(response):
        return {}
    median, p95 = np.percentile(response, [50, 95])
    return {"median": round(float(median), 3), "p95": round(float(p95), 3)}


class _Segments:
    """The part of a record reader that ``read_writes`` asks for, on a folder that holds segments alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        batches = list(read_batches(self._folder, name))
        if not batches:
            raise LabError("the writer probe wrote nothing")
        table = pa.Table.from_batches(batches)
        return table if columns is None else table.select(list(columns))


def read_operations(folder: Path) -> Operations:
    """The ledger files of a folder as operations; the yardstick has no audit, so none is lost."""
    writes = read_writes(cast(RecordReader, _Segments(folder)))
    return of_writes(writes, np.zeros(len(writes), dtype=np.bool_))


def percentile(values: Sequence[float], q: float) -> float:
    """Nearest rank: the smallest value that at least the share q does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def judge(
    measured: Sequence[Measured],
    interval_s: float = INTERVAL_S,
    *,
    quiet: Mapping[str, float] | None = None,
) -> list[Figure]:
    """Median, p95 and bias of the error over all outages, and how many were not seen at all.

    An outage that was not seen (or never ended) makes every aim fail: it has no error to be averaged.
    ``quiet`` is the response outside of outages (``quiet_ms``): where it is high the machine was too busy.
    """
    errors = [one.error_ms for one in measured if one.error_ms is not None]
    missed = len(measured) - len(errors)
    rows = [
        {
            "kind": one.known.kind,
            "asked_s": one.known.asked_s,
            "known_s": round(one.known.seconds, 6),
            "measured_s": None if one.seconds is None else round(one.seconds, 6),
            "error_ms": None if one.error_ms is None else round(one.error_ms, 3),
            "known_uncertainty_ms": round(one.known.uncertainty / 1e6, 3),
            "state": one.state,
        }
        for one in measured
    ]
    if not errors:
        why = "no outage was seen" if measured else "no outage was made"
        return [
            Figure(name=name, value=None, unit="ms", aim="", better="less", holds=False, note=why)
            for name in ("yardstick.median", "yardstick.p95", "yardstick.bias")
        ]
    sizes = [abs(error) for error in errors]
    step = interval_s * 1000
    notes = [f"{missed} of {len(measured)} outages were not seen"] if missed else []
    if quiet and quiet["p95"] > step:
        took = f"{quiet['median']:g} ms, p95 {quiet['p95']:g} ms"
        notes.append(f"the machine was busy: without an outage a write took {took}")
    note = "; ".join(notes)
    groups: dict[str, list[float]] = {}
    for one in measured:
        if one.error_ms is not None:
            groups.setdefault(f"{one.known.kind} {one.known.asked_s:g} s", []).append(one.error_ms)
    by_group = {
        name: {
            "n": len(group),
            "median_abs_ms": round(statistics.median(map(abs, group)), 3),
            "worst_abs_ms": round(max(map(abs, group)), 3),
            "bias_ms": round(statistics.fmean(group), 3),
        }
        for name, group in groups.items()
    }
    median, p95 = statistics.median(sizes), percentile(sizes, 0.95)
    return [
        Figure(
            name="yardstick.median",
            value=round(median, 3),
            unit="ms |measured − known|, median",
            aim=f"≤ {step:g} ms (one probe interval)",
            better="less",
            holds=not missed and median <= step,
            note=note,
            detail={"outages": rows, "by_kind": by_group, "quiet_ms": dict(quiet or {})},
        ),
        Figure(
            name="yardstick.p95",
            value=round(p95, 3),
            unit="ms |measured − known|, 95th percentile",
            aim=f"≤ {3 * step:g} ms (three probe intervals)",
            better="less",
            holds=not missed and p95 <= 3 * step,
            note=note,
        ),
        Figure(
            name="yardstick.bias",
            value=round(statistics.fmean(errors), 3),
            unit="ms measured − known, mean",
            aim="printed",
            better="less",
            holds=None,
            note=note,
        ),
    ]


def plan(repeats: int, seed: int) -> Iterator[tuple[Kind, float, float]]:
    """(kind, length, pause before it) of every outage, in random order and phase."""
    chance = random.Random(seed)
    outages = [(kind, length) for kind in TARGETS for length in LENGTHS_S for _ in range(repeats)]
    chance.shuffle(outages)
    for kind, length in outages:
        yield kind, length, chance.random() * 0.1


class Observer:
    """The writer probe alone, on a node."""

    def __init__(self, node: Node, settings: observe.Config) -> None:
        self.node, self.settings = node, settings
        self.base = str(Path(settings.out).parent)

    def start(self) -> None:
        package = Path(lab_package.__file__).parent
        self.node.put_tree(package / "observe", "/opt/lab/lab/observe")
        self.node.put("/opt/lab/lab/__init__.py", (package / "__init__.py").read_bytes())
        self.node.put(f"{self.base}/observe.json", self.settings.to_json().encode(), mode=0o600)
        words = [PYTHON, "-m", "lab.observe", "--config", f"{self.base}/observe.json"]
        self.node.spawn(words, env={"PYTHONPATH": "/opt/lab"})
        out = self.settings.out
        check = (
            f"for i in $(seq 100); do [ -s {out}/writes.lasting.jsonl ] && exit 0; sleep 0.1; done; exit 1"
        )
        if self.node.run(["sh", "-c", check], timeout_s=20, check=False).exit_code:
            raise LabError("the writer probe did not start", hint=f"see {out} on {self.node.name}")

    def wall_to_monotonic(self) -> int:
        """What has to be added to the wall clock (ns) to have the monotonic one."""
        script = "import time; print(min((time.monotonic_ns() - time.time_ns() for _ in range(50))))"
        return int(self.node.run([PYTHON, "-c", script]).stdout)

    def stop(self) -> None:
        out = self.settings.out
        script = (
            f'kill "$(cat {out}/pid)"; for i in $(seq 80); do [ -e {out}/done ] && exit 0; sleep 0.1; done'
        )
        self.node.run(["sh", "-c", script], timeout_s=20, check=False)

    def fetch(self, target: Path) -> None:
        for name in ("writes.lasting.jsonl", "writes.fresh.jsonl"):
            if self.node.run(["test", "-e", f"{self.settings.out}/{name}"], check=False).exit_code == 0:
                (target / name).write_bytes(self.node.get(f"{self.settings.out}/{name}"))

    def clean(self) -> None:
        self.node.run(["rm", "-rf", self.base], check=False)


def observe_outages(
    observer: Observer,
    target: Node,
    address: str,
    port: int,
    repeats: int,
    *,
    seed: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Measured], dict[str, float]]:
    """Make every outage on ``target`` and measure each with the probe that ``observer`` runs.

    Returns the outages, and the response outside of them (``quiet_ms``).
    """
    known: list[Known] = []
    observer.start()
    try:
        time.sleep(2.0)
        outages = list(plan(repeats, seed))
        for number, (kind, length, pause) in enumerate(outages, 1):
            say(f"yardstick: outage {number} of {len(outages)}, {kind} for {length:g} s")
            time.sleep(pause)
            words = ["bash", "-c", SCRIPT, "bash", str(port), TARGETS[kind], f"{length:g}", address]
            done = target.run(words, timeout_s=length + 20)
            known.append(known_outage(kind, length, done.stdout, observer.wall_to_monotonic()))
            time.sleep(WINDOW_S)
    finally:
        observer.stop()
        target.run(["bash", "-c", UNDO, "bash", str(port)], check=False)
    with tempfile.TemporaryDirectory() as folder:
        observer.fetch(Path(folder))
        operations = read_operations(Path(folder))
    return measure(operations, known), quiet_ms(operations, known)


def run(lab: Lab, repeats: int = 10, say: Callable[[str], None] = lambda _: None) -> list[Figure]:
    """Outages of the first pooler's port, as the writer probe sees them through its writer endpoint.

    Takes about 5 minutes at 10 repeats. LabError where the lab has no pooler or cannot filter packets.
    """
    if not lab.topology.poolers:
        raise LabError("the yardstick needs a pooler", hint="run it on risk-prod")
    place = endpoints(lab.topology, lab.allocation)[f"{lab.topology.poolers[0].name}.writer"]
    base = f"/run/lab/yardstick-{secrets.token_hex(4)}"
    node = lab.nodes[lab.topology.observer.name]
    node.put(f"{base}/password", lab.secret(f"password_{PROBE}").encode(), mode=0o600)
    writer = observe.Endpoint(
        place.name,
        place.host,
        place.address,
        place.port,
        place.database or lab.topology.postgres.database,
        PROBE,
        f"{base}/password",
        sslmode="verify-full" if lab.topology.tls.enabled else "disable",
    )
    observer = Observer(node, settings(f"{base}/observe", writer, repeats))
    try:
        target = lab.nodes[place.node]
        found, quiet = observe_outages(observer, target, place.address, place.port, repeats, say=say)
        return judge(found, quiet=quiet)
    finally:
        observer.clean()


def settings(out: str, writer: observe.Endpoint, repeats: int) -> observe.Config:
    """The writer probe at 10 ms and the fresh one beside it, and nothing else."""
    seconds = sum(LENGTHS_S) * len(TARGETS) * repeats + len(LENGTHS_S) * len(TARGETS) * repeats * 5 + 60
    probes = replace(observe.Probes(), writer_interval_s=INTERVAL_S, collector_interval_s=0.0)
    return observe.Config(
        run=f"yardstick-{secrets.token_hex(4)}",
        out=out,
        deadline_s=seconds,
        token=secrets.token_hex(8),
        slow_after_s=SLOW_S,
        clock_port=0,
        writer=writer,
        probes=probes,
    )
