"""Bench (c): what the lab's own collectors cost.

One closed-loop load runs without a break. Beside it all collectors and agents are switched on and off in
turn, and the throughput of each pair of neighbouring windows is compared. The lower bound of the ratio is
one-sided at 95 %, from the t distribution over the logarithms of the pairs' ratios.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from scipy import stats

from lab.bench.figure import Figure
from lab.deploy.docker_driver import DockerLab
from lab.errors import LabError
from lab.load import LoadSpec, start_load
from lab.observe.config import Config, Probes
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from lab.scenario.facts import PYTHON
from lab.scenario.models import Scenario
from lab.scenario.plan import make_plan
from lab.scenario.session import Session
from loadtests.format import read_requests

PAIRS = 10
WINDOW_S = 5.0
SETTLE_S = 4.0
"""After a switch, before the window: starting and stopping is not what is measured."""
RATIO_AIM = 0.95
CPU_AIM = 0.03


@dataclass(frozen=True)
class Window:
    """A stretch of time on the load's clock, ns, with the collectors on or off."""

    on: bool
    begin: int
    end: int


class CollectorsOnly(Session):
    """The instruments of a run without its probes."""

    def _observer_config(self) -> Config:
        full = super()._observer_config()
        none = Probes(
            writer_interval_s=0,
            fresh_writer_interval_s=0,
            reader_interval_s=0,
            fresh_reader_interval_s=0,
            node_interval_s=0,
            router_interval_s=0,
            collector_interval_s=full.probes.collector_interval_s,
            leader_poll_s=full.probes.leader_poll_s,
        )
        return replace(full, writer=None, reader=None, router=None, probes=none)


def throughput(done: np.ndarray, window: Window) -> float:
    """Requests per second that ended within a window. ``done``: sorted, ns."""
    first, last = np.searchsorted(done, [window.begin, window.end])
    return float(last - first) / ((window.end - window.begin) / NS)


def lower_bound(ratios: Sequence[float], confidence: float = 0.95) -> float:
    """One-sided lower confidence bound of the geometric mean of paired ratios. ValueError below 2 pairs."""
    logs = [math.log(ratio) for ratio in ratios]
    if len(logs) < 2:
        raise ValueError("an interval needs at least 2 pairs")
    spread = statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(statistics.mean(logs) - float(stats.t.ppf(confidence, len(logs) - 1)) * spread)


def figures(ratios: Sequence[float], cores: Sequence[float]) -> list[Figure]:
    """Args: throughput on ÷ off of each pair; share of a core that the collectors took in each on-window."""
    bound = lower_bound(ratios)
    share = statistics.median(cores)
    return [
        Figure(
            name="collectors.throughput",
            value=round(bound, 3),
            unit="throughput on ÷ off, lower 95 % bound",
            aim=f"≥ {RATIO_AIM}",
            better="more",
            holds=bound >= RATIO_AIM,
            note=f"geometric mean {statistics.geometric_mean(ratios):.3f} over {len(ratios)} pairs",
            detail={"ratios": [round(ratio, 4) for ratio in ratios]},
        ),
        Figure(
            name="collectors.cpu",
            value=round(100 * share, 2),
            unit="% of a core, all nodes together",
            aim=f"≤ {100 * CPU_AIM:g} %",
            better="less",
            holds=share <= CPU_AIM,
            note="collector process and the agents of all nodes, median of the windows",
            detail={"cores": [round(core, 4) for core in cores]},
        ),
    ]


def run(lab: DockerLab, pairs: int = PAIRS, say: Callable[[str], None] = lambda _: None) -> list[Figure]:
    """Measure on a running lab; at least 2 pairs."""
    run_name = f"bench-collectors-{int(time.time())}"
    spec = LoadSpec(arrivals="closed", deadline_s=pairs * 2 * (WINDOW_S + 20) + 60)
    scenario = Scenario.model_validate({"name": "bench", "title": "bench", "claim": "bench", "load": {}})
    handle = start_load(lab, spec, run_name)
    windows: list[Window] = []
    cores: list[float] = []
    try:
        for number in range(pairs):
            say(f"collectors: pair {number + 1} of {pairs}")
            # The order alternates, so that a drift of the machine favours neither.
            for on in (True, False) if number % 2 else (False, True):
                if on:
                    window, share = _with_collectors(lab, scenario)
                    cores.append(share)
                else:
                    window = _window(lab, on=False)
                windows.append(window)
    finally:
        handle.stop()
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for segment, path in handle.files().items():
            local = Path(folder) / segment
            local.write_bytes(handle.node.get(path))
            paths.append(local)
        done = np.sort(np.concatenate([_done(path) for path in paths]))
    handle.node.run(["rm", "-rf", f"/run/lab/{run_name}"], check=False)
    measured = [throughput(done, window) for window in windows]
    if min(measured) == 0:
        raise LabError("the bench's load stood still during a window: its figures would mean nothing")
    ratios = []
    for first in range(0, len(windows), 2):
        pair = {windows[i].on: measured[i] for i in (first, first + 1)}
        ratios.append(pair[True] / pair[False])
    return figures(ratios, cores)


def _window(lab: DockerLab, *, on: bool) -> Window:
    time.sleep(SETTLE_S)
    begin = _client_clock(lab)
    time.sleep(WINDOW_S)
    return Window(on, begin, _client_clock(lab))


def _client_clock(lab: DockerLab) -> int:
    """The monotonic clock that the load's record is on: no observer runs when the load starts, so its own."""
    client = lab.nodes[lab.topology.clients[0].name]
    words = [PYTHON, "-c", "import time; print(time.monotonic_ns())"]
    return int(client.run(words).stdout)


def _with_collectors(lab: DockerLab, scenario: Scenario) -> tuple[Window, float]:
    """A window with everything on, and the share of a core that it took."""
    with tempfile.TemporaryDirectory() as folder:
        record = RecordWriter.create(
            Path(folder), "bench", topology=lab.topology.name, lab=lab.name, seed=1, trials_asked=0
        )
        session = CollectorsOnly(lab, make_plan(scenario, lab.topology, lab.allocation, 1), record)
        try:
            session.start_observer()
            window = _window(lab, on=True)
        finally:
            session.stop_observer()
            session.abandon()
            session.clean()
        record.close()
        metrics = RecordReader(record.path).frame("metrics")
    spent = metrics[metrics["metric"] == "collector_cpu_seconds"].sort_values("t")
    if spent["node"].nunique() < 2:
        raise LabError("the collectors told nothing of their own CPU time")
    share = 0.0
    for _, rows in spent.groupby(["node", "label"], observed=True, dropna=False):
        seconds = (rows["t"].iloc[-1] - rows["t"].iloc[0]) / NS
        if seconds > 0:
            share += (rows["value"].iloc[-1] - rows["value"].iloc[0]) / seconds
    return window, share


def _done(path: Path) -> np.ndarray:
    """When each answered request ended, ns."""
    table = read_requests(path)
    answered = table.filter(pc.equal(table["outcome"], "ok"))
    return np.asarray(answered["done"].to_numpy())
