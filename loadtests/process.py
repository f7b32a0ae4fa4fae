"""The processes of a load: one alone, or a Locust master with workers.

Files in ``out``: ``pid`` (of the process to signal), ``requests.<worker>.bin``, ``summary.<worker>.json``,
``started.<worker>`` (once its users run), ``clock.json``, ``log.txt``, and last ``done``, a summary.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import gevent.event
from locust.env import Environment

from loadtests.config import LoadConfig
from loadtests.histogram import Histogram
from loadtests.runtime import DRAIN_S, Runtime
from loadtests.statistics import LocustStatistics
from loadtests.workloads import load_workload

GRACE_S = 30.0
"""After the deadline, for an orderly end; then the kernel ends the process."""


def run_alone(config: LoadConfig) -> int:
    """One process: a local runner."""
    environment, runtime = _environment(config, 0)
    runner = environment.create_local_runner()
    statistics = LocustStatistics(environment, runtime.recorder.texts)
    runtime.on_rows = statistics.rows
    environment.events.spawning_complete.add_listener(lambda **_: runtime.expect(runner.user_count))
    web: Any = environment.create_web_ui("0.0.0.0", config.ui_port) if config.ui_port else None
    ended = _announce(config, runtime.stop)
    runner.start(config.users, spawn_rate=config.users)
    runtime.finished.wait()
    summary = runtime.close()
    code = _finish(config, [summary])
    if web is not None and runtime.failure is None:
        # The web interface stays until someone ends it.
        ended.wait()
        web.stop()
    environment.process_exit_code = code
    runner.quit()
    return code


def run_worker(config: LoadConfig, worker: int, master_port: int) -> int:
    """One worker of several; ends by itself when its share of the schedule is done."""
    environment, runtime = _environment(config, worker)
    runner = environment.create_worker_runner("127.0.0.1", master_port)
    statistics = LocustStatistics(environment, runtime.recorder.texts)
    runtime.on_rows = statistics.rows
    environment.events.spawning_complete.add_listener(lambda **_: runtime.expect(runner.user_count))
    environment.events.quit.add_listener(lambda **_: runtime.stop())
    _limits(config, runtime.stop)
    runtime.finished.wait()
    runtime.close()
    environment.process_exit_code = code = 1 if runtime.failure else 0
    with gevent.Timeout(5, False):
        runner.quit()
    return code


def run_master(config: LoadConfig, path: str) -> int:
    """Locust's master, and its workers as processes of this node."""
    port = _free_port()
    environment = Environment(
        user_classes=[load_workload(config.workload).configured(config)], stop_timeout=DRAIN_S
    )
    runner = environment.create_master_runner("127.0.0.1", port)
    web: Any = environment.create_web_ui("0.0.0.0", config.ui_port) if config.ui_port else None
    command = [sys.executable, "-m", "loadtests", "--config", path, "--master-port", str(port)]
    children = [subprocess.Popen([*command, "--worker", str(number)]) for number in range(config.workers)]

    def stop() -> None:
        for child in children:
            if child.poll() is None:
                child.terminate()

    ended = _announce(config, stop)
    deadline = monotonic() + GRACE_S
    while len(runner.clients.ready) < config.workers and monotonic() < deadline:
        if any(child.poll() is not None for child in children):
            break
        gevent.sleep(0.05)
    failure = None
    if len(runner.clients.ready) == config.workers:
        runner.start(config.users, spawn_rate=config.users)
    else:
        failure = f"only {len(runner.clients.ready)} of {config.workers} workers reported to the master"
        stop()
    while any(child.poll() is None for child in children):
        gevent.sleep(0.1)
        if any(child.returncode not in (None, 0) for child in children):
            stop()
    summaries = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(Path(config.out).glob("summary.*.json"))
    ]
    if failure is None and len(summaries) < config.workers:
        failure = f"only {len(summaries)} of {config.workers} workers left a summary"
    code = _finish(config, summaries, failure)
    if web is not None and code == 0:
        # The web interface stays until someone ends it.
        ended.wait()
        web.stop()
    environment.process_exit_code = code
    with gevent.Timeout(5, False):
        runner.quit()
    return code


def _environment(config: LoadConfig, worker: int) -> tuple[Any, Runtime]:
    user_class = load_workload(config.workload).configured(config)
    environment: Any = Environment(user_classes=[user_class], stop_timeout=DRAIN_S)
    environment.runtime = runtime = Runtime(config, worker, user_class)
    return environment, runtime


def _announce(config: LoadConfig, stop: Callable[[], None]) -> Any:
    ended = _limits(config, stop)
    _replace(Path(config.out) / "pid", f"{os.getpid()}\n")
    return ended


def _limits(config: LoadConfig, stop: Callable[[], None]) -> Any:
    """Stop on SIGTERM and SIGINT, at the deadline, and for certain a little after it.

    Returns an event that is set once one of them has come.
    """
    ended = gevent.event.Event()

    def end() -> None:
        ended.set()
        stop()

    gevent.signal_handler(signal.SIGTERM, end)
    gevent.signal_handler(signal.SIGINT, end)
    gevent.spawn_later(config.deadline_s, end)
    signal.setitimer(signal.ITIMER_REAL, config.deadline_s + GRACE_S)
    return ended


def _finish(config: LoadConfig, summaries: list[dict[str, Any]], failure: str | None = None) -> int:
    """Write ``clock.json`` and ``done``; returns the exit code."""
    out = Path(config.out)
    lag = Histogram()
    errors: dict[str, dict[str, Any]] = {}
    for summary in summaries:
        lag.merge(Histogram.from_json(summary["lag"]))
        failure = failure or summary["failure"]
        for outcome, entry in summary["errors"].items():
            known = errors.setdefault(outcome, {"count": 0, "example": entry["example"]})
            known["count"] += entry["count"]
    clocks = {
        f"load:{summary['worker']}": {"start": summary["clocks"][0], "end": summary["clocks"][-1]}
        for summary in summaries
        if summary["clocks"]
    }
    _write(out / "clock.json", clocks)
    requests = sum(summary["requests"] for summary in summaries)
    cpu = sum(summary["cpu_seconds"] for summary in summaries)
    done = {
        "failure": failure,
        "workload": config.workload,
        "requests": requests,
        "served": sum(summary["served"] for summary in summaries),
        "offered": sum(summary["offered"] for summary in summaries),
        "dropped": sum(summary["dropped"] for summary in summaries),
        "errors": errors,
        "lag_ms": {
            "p50": _ms(lag.percentile(50)),
            "p99": _ms(lag.percentile(99)),
            "max": _ms(float(lag.most)) if lag.total else None,
            "samples": lag.total,
        },
        "cpu_seconds": cpu,
        "cpu_us_per_request": cpu / requests * 1e6 if requests else None,
        "seconds": max((summary["seconds"] for summary in summaries), default=0.0),
        "setup_statements": sum(summary["setup"] for summary in summaries),
        "proof": [summary["proof"] for summary in summaries],
        "versions": {
            "locust": version("locust"),
            "psycopg": version("psycopg"),
            "python": ".".join(map(str, sys.version_info[:3])),
        },
    }
    _write(out / "done", done)
    return 1 if failure else 0


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6


def _write(path: Path, value: object) -> None:
    _replace(path, json.dumps(value, indent=1))


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: whoever reads it meanwhile must not find it empty."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
