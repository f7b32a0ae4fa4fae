"""A load on its own: started, watched, recorded, summarised."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.text import Text

from lab import terminal
from lab.deploy.endpoints import UI_PORT
from lab.driver import Lab, Node
from lab.errors import LabError, UsageError
from lab.load import PYTHON, LoadHandle, LoadSpec, load_config, start_load
from lab.load_view import LiveView, summarise, summary_table
from lab.record.reader import RecordReader
from lab.record.schema import Anchor, ClockOffset
from lab.record.writer import RecordWriter
from lab.scenario.journal import heal_all, hold
from lab.scenario.plan import load_summary
from lab.scenario.remote import Follower, Program, fetch_rest
from lab.scenario.session import announce_run

POLL_S = 0.25
ENDED_EVERY_S = 1.0


def find_lab(name: str | None, topology: str | None) -> str:
    """The lab meant by ``--name`` or ``--topology``. UsageError where that is none, or several."""
    from lab.deploy import state
    from lab.deploy.docker_driver import DockerLab

    if name is not None or topology is None:
        return state.the_lab(name)
    matching = []
    for known in state.lab_names():
        with contextlib.suppress(LabError):
            if DockerLab.open(known).topology.name == topology:
                matching.append(known)
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(
            f"several labs have topology {topology}", hint=f"Name one: --name {' or '.join(matching)}."
        )
    raise UsageError(f"no lab of topology {topology} is up", hint=f"`lab up {topology}` brings one up.")


def run_load(lab: Lab, spec: LoadSpec, runs: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Run a load to its end (or to Ctrl-C), print its summary unless ``quiet``, and return it.

    Raises:
        UsageError: the spec does not fit the lab.
        LabError: the load could not run, or another run uses the lab.
    """
    load_config(lab, spec, "load", "/run/lab/load")  # a spec that does not fit leaves no record behind
    with hold(lab) as journal:
        for told in heal_all(lab, journal):
            terminal.warn(f"left behind by a killed run, now undone: {told}")
        entries: list[int] = []
        writer = RecordWriter.create(
            runs, "load", topology=lab.topology.name, lab=lab.name, seed=spec.seed, trials_asked=0,
            load={**vars(spec)}, scale=lab.allocation.scale,
            announce=lambda path: entries.append(announce_run(lab, journal, path)),
        )  # fmt: skip
        document = _run(lab, spec, writer, quiet=quiet)
        journal.done(entries[0])
        journal.clear()
    if not quiet:
        _print(document, writer.path)
    return document


def _run(lab: Lab, spec: LoadSpec, writer: RecordWriter, *, quiet: bool) -> dict[str, Any]:
    """The load itself, into its record, which is closed in the end."""
    node = lab.nodes[lab.topology.clients[0].name]
    writer.put("topology.yaml", json.dumps(lab.topology.model_dump(mode="json"), indent=1))
    for path, text in lab.rendered().items():
        writer.put(f"rendered/{path}", text)
    handle: LoadHandle | None = None
    view = LiveView()
    interrupted = False
    try:
        handle = start_load(lab, spec, writer.manifest.run)
        if spec.ui and not quiet:
            _say_where(lab, node)
        writer.update(anchor=_anchor(node), load={**vars(spec), **load_summary(handle.config)})
        program = Program(node.name, handle.out, "client")
        follower = Follower(lab, program, writer, view.feed)
        try:
            with _shown(view, quiet):
                interrupted = _watch(handle, follower, spec)
        finally:
            handle.stop()
            follower.close()
            fetch_rest(node, program, writer)
        result = handle.result()
        _clock(writer, result.detail, node, handle)
    except BaseException:
        if handle is not None:
            handle.stop(5)
        writer.close("interrupted")
        raise
    _events(writer, handle)
    writer.close("interrupted" if interrupted else "closed")
    document = _document(writer, spec, handle, result.detail)
    writer.put("load.json", json.dumps(document, indent=1))
    return document


def _watch(handle: LoadHandle, follower: Follower, spec: LoadSpec) -> bool:
    """Follow the load to its end. True where Ctrl-C ended it."""
    look = 0.0
    try:
        while True:
            if follower.error is not None:
                raise follower.error
            if time.monotonic() >= look:
                follower.look_for_files()
                if handle.ended() and not (spec.ui and spec.duration_s is None):
                    return False
                look = time.monotonic() + ENDED_EVERY_S
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        return True


@contextlib.contextmanager
def _shown(view: LiveView, quiet: bool) -> Iterator[None]:
    console = terminal.err()
    if quiet or not console.is_terminal:
        yield
        return
    with Live(
        get_renderable=lambda: Text(view.line()), console=console, refresh_per_second=4, transient=True
    ):
        yield


def _say_where(lab: Lab, node: Node) -> None:
    port = lab.allocation.published.get(f"{node.name}.ui")
    if port is not None:
        terminal.say(f"Locust's web interface: http://127.0.0.1:{port}", "bold")
    else:
        terminal.say(f"Locust's web interface: http://{node.address('app')}:{UI_PORT}", "bold")
    terminal.say("Ctrl-C ends the load.")


def _anchor(node: Node) -> Anchor:
    """The client node's two clocks, read together."""
    code = "import time; print(time.monotonic_ns(), time.time_ns())"
    monotonic, wall = node.run([PYTHON, "-c", code]).stdout.split()
    return Anchor(monotonic_ns=int(monotonic), wall_ns=int(wall))


def _clock(writer: RecordWriter, detail: dict[str, Any], node: Node, handle: LoadHandle) -> None:
    clocks = json.loads(node.get(f"{handle.out}/clock.json"))
    offsets = [
        ClockOffset(
            clock=clock, when=when, offset_ns=entry["offset_ns"], uncertainty_ns=entry["uncertainty_ns"]
        )
        for clock, both in clocks.items()
        for when, entry in both.items()
    ]
    writer.update(offsets=offsets, versions=detail["versions"])
    if not offsets:
        writer.note("A load without a scenario: times are those of the client node's monotonic clock.")


def _events(writer: RecordWriter, handle: LoadHandle) -> None:
    """When it began and ended, from the rows themselves."""
    import pyarrow.compute as pc

    requests = RecordReader(writer.path).table("requests", ["intended", "done"])
    if not requests.num_rows:
        return
    begin, last = pc.min(requests["intended"]).as_py(), pc.max(requests["intended"]).as_py()
    end = pc.max(requests["done"]).as_py()
    config = handle.config
    detail = {
        "workload": config.workload,
        "rate": config.rate,
        "users": config.users,
        "endpoint": config.writer.name,
    }
    writer.event("run-start", begin, detail={"seed": config.seed})
    writer.event("load-start", begin, detail=detail)
    writer.event("steady-start", begin)
    writer.event("steady-end", last)
    writer.event("load-end", end)
    writer.event("run-end", end)


def _document(
    writer: RecordWriter, spec: LoadSpec, handle: LoadHandle, detail: dict[str, Any]
) -> dict[str, Any]:
    config = handle.config
    return {
        "run": str(writer.path),
        "lab": writer.manifest.lab,
        "workload": config.workload,
        "endpoints": [config.writer.name, *([config.reader.name] if config.reader else [])],
        "arrivals": config.arrivals,
        "offered_per_s": None if config.arrivals == "closed" else config.rate,
        "users": config.users,
        "workers": config.workers,
        "seed": spec.seed,
        "offered": detail["offered"] if config.arrivals != "closed" else None,
        **summarise(RecordReader(writer.path).table("requests")),
        "lag_ms": detail["lag_ms"],
        "cpu_us_per_request": detail["cpu_us_per_request"],
        "errors": detail["errors"],
        "concurrency": detail["proof"],
    }


def _print(document: dict[str, Any], path: Path) -> None:
    console = terminal.out()
    console.print(summary_table(document))
    lag = document["lag_ms"]
    offered, done = document["offered"], document["ok_per_s"]
    kind = f"{document['arrivals']} at {document['offered_per_s']:g}/s" if offered is not None else ""
    rate = "closed loop" if offered is None else f"offered {offered} requests ({kind})"
    console.print()
    console.print(
        f"{rate}, {document['ok']} went well, {done or 0:.1f}/s over {document['seconds'] or 0:.1f} s",
    )
    console.print(
        f"{document['users']} users through {', '.join(document['endpoints'])}", style="dim", markup=False
    )
    for outcome, entry in document["errors"].items():
        console.print(
            Text.assemble((f"{entry['count']} × {outcome}", "red"), f": {entry['example']}"), soft_wrap=True
        )
    if document["dropped"]:
        console.print(Text(f"{document['dropped']} dropped: no user was free in time", style="red"))
    p99 = "–" if lag["p99"] is None else f"{lag['p99']:.2f} ms"
    if offered is not None:
        console.print(f"schedule lag p99 {p99} (how late the generator itself was)")
    if any(e["response_ms"]["p99"] is None for e in document["by_name"].values()):
        console.print("– : fewer than 10 samples beyond that percentile", style="dim")
    console.print(str(path), soft_wrap=True, markup=False)
