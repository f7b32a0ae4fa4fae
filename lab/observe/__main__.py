"""``python -m lab.observe --config observe.json``: the supervisor of everything that observes a run.

Starts each probe and the collectors as processes of their own, so that none stalls another, answers the
clock (``lab.observe.clock``), and ends all of them on SIGTERM, SIGINT or at the deadline. A process that
ends by itself is not started again: it is an event (``probe-died``). Writes ``<out>/pid`` first and
``<out>/done`` last; exit code 0 unless something died, 3 for a configuration that it cannot use.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from pathlib import Path

from lab.observe import clock, collectors, leader, nodes, reader, redis_writer, routes, writer
from lab.observe.config import Config
from lab.observe.process import Context, die_with_parent, now
from lab.observe.rows import Rows, event
from lab.observe.schedule import NS

WARM_UP_S = 1.5
"""From the start until the schedules begin: the lasting sessions are opened in it."""
END_GRACE_S = 4.0
END_MARGIN_NS = NS // 2

Process = Callable[[Context], None]


def processes(config: Config) -> dict[str, Process]:
    """What has to run for a configuration, by name."""
    probes = config.probes
    wanted: dict[str, tuple[Process, bool]] = {
        "writer": (writer.lasting, config.writer is not None and probes.writer_interval_s > 0),
        "fresh-writer": (writer.fresh, config.writer is not None and probes.fresh_writer_interval_s > 0),
        "reader": (reader.lasting, config.reader is not None and probes.reader_interval_s > 0),
        "fresh-reader": (reader.fresh, config.reader is not None and probes.fresh_reader_interval_s > 0),
        "redis-writer": (
            redis_writer.lasting,
            bool(config.sentinels) and probes.redis_writer_interval_s > 0,
        ),
        "fresh-redis-writer": (
            redis_writer.fresh,
            bool(config.sentinels) and probes.fresh_redis_writer_interval_s > 0,
        ),
        "nodes": (nodes.watch, bool(config.nodes) and probes.node_interval_s > 0),
        "router": (routes.probe, config.router is not None and probes.router_interval_s > 0),
        "leader": (leader.watch, bool(config.etcd) and bool(config.scope)),
        "collectors": (collectors.collect, probes.collector_interval_s > 0),
    }
    return {name: target for name, (target, runs) in wanted.items() if runs}


def _child(name: str, target: Process, context: Context) -> None:
    """Runs in the child: a failure goes to <out>/<name>.err, and the exit code says so."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent()
    try:
        target(context)
    except Exception:
        (Path(context.config.out) / f"{name}.err").write_text(traceback.format_exc())
        sys.exit(1)


def run(config: Config) -> int:
    """Observe until the deadline or a signal. Returns how many processes died before."""
    started = now()
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "done").unlink(missing_ok=True)
    (out / "pid").write_text(f"{os.getpid()}\n")
    trial = RawValue("q", config.trial)
    context = Context(config, started + round(WARM_UP_S * NS), started + round(config.deadline_s * NS), trial)
    events = Rows(out, "events", "observer")
    sock = clock.bind(config.clock_address, config.clock_port)
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ, "clock")
    wake, alarm = os.pipe()
    os.set_blocking(alarm, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(alarm)
    selector.register(wake, selectors.EVENT_READ, "signal")

    fork = multiprocessing.get_context("fork")
    running: dict[str, BaseProcess] = {}
    for name, target in processes(config).items():
        process = fork.Process(target=_child, args=(name, target, context), name=name)
        process.start()
        running[name] = process
        selector.register(process.sentinel, selectors.EVENT_READ, name)

    def set_trial(n: int) -> None:
        trial.value = n

    died = 0
    while (left := context.end - now()) > 0:
        names = {key.data for key, _ in selector.select(left / NS)}
        if "clock" in names:
            clock.serve(sock, config.token, set_trial)
        if "signal" in names:
            break
        for name in names & running.keys():
            child = running.pop(name)
            selector.unregister(child.sentinel)
            child.join()
            if child.exitcode == 0 and context.end - now() < END_MARGIN_NS:
                continue  # it saw the deadline first
            died += 1
            why = f"{name} ended with code {child.exitcode}"
            events.write(event(now(), "probe-died", context.trial, source="observer", uncertainty=0, why=why))
    _end(running)
    events.close()
    sock.close()
    (out / "done").write_text(json.dumps({"died": died}) + "\n")
    return died


def _end(running: dict[str, BaseProcess]) -> None:
    """SIGTERM, then SIGKILL to those that do not end in time."""
    for child in running.values():
        child.terminate()
    until = now() + round(END_GRACE_S * NS)
    for child in running.values():
        child.join(max(0.0, (until - now()) / NS))
        if child.exitcode is None:
            child.kill()
            child.join()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.observe", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="observe.json, made by the runner")
    arguments = parser.parse_args()
    try:
        config = Config.from_json(Path(arguments.config).read_text())
    except (OSError, ValueError) as error:
        print(f"{arguments.config}: {error}", file=sys.stderr)
        return 3
    return 1 if run(config) else 0


if __name__ == "__main__":
    sys.exit(main())
