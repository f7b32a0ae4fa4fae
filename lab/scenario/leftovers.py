"""Ends a run whose runner was killed: stops what it left running, fetches what is still there, closes it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from lab.driver import Lab
from lab.errors import LabError
from lab.record.reader import RecordReader
from lab.record.writer import RecordWriter
from lab.scenario.remote import Program, fetch_rest, stop, stop_agents

NOTE = "the runner was killed; what was still in the lab was fetched by a later command"


def close_run(lab: Lab, data: dict[str, Any], why: str | None = None) -> str:
    """Close the run of a journal entry as interrupted; what was done, in words.

    ``why``: as far as the caller knows; None: its runner was killed.

    A node that cannot be asked (or a record that is gone) does not keep the rest from being closed.
    """
    programs = [Program(**item) for item in data.get("remote", [])]
    for program in programs:
        node = lab.nodes.get(program.node)
        if node is not None:
            with contextlib.suppress(LabError):
                stop(node, program.out)
    stop_agents(lab)
    path = Path(str(data.get("record", "")))
    if not (path / "manifest.json").exists():
        return "stopped probes and load"
    manifest = RecordReader(path).manifest
    if manifest.state != "running":
        return f"stopped probes and load of run {manifest.run}"
    writer = RecordWriter(path, manifest)
    for program in programs:
        node = lab.nodes.get(program.node)
        if node is not None:
            with contextlib.suppress(LabError):
                fetch_rest(node, program, writer)
    if why is None:
        writer.event("interrupted", None, detail={"why": "the runner was killed"})
        writer.note(NOTE)
    else:
        writer.note(f"the run ended early: {why}")
    for program in programs:
        node = lab.nodes.get(program.node)
        if node is not None:
            with contextlib.suppress(LabError):
                node.run(["rm", "-rf", program.out.rpartition("/")[0]], check=False)
    writer.close("interrupted")
    return f"stopped probes and load of run {manifest.run} and closed its record as interrupted"
