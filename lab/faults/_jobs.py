"""Programs of a fault that run on a node by themselves, with a deadline of their own.

A program is one text, run by the lab's Python on the client or the observer. Its settings (and passwords
among them) reach it by its environment. It tells where it is by ``/run/pglab-job-<key>.json``, whose ``pid``
is its own, and removes that file when it ends.
"""

from __future__ import annotations

import json
import time
from typing import Any

from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import node_of

PYTHON = "/opt/venv/bin/python"

PRELUDE = """
import json, os, signal, sys, threading, time
STATUS = "/run/pglab-job-%s.json" % sys.argv[2]
S = json.loads(os.environ.pop("LAB_JOB"))
def tell(**said):
    with open(STATUS + ".new", "w") as file:
        json.dump({"pid": os.getpid(), **said}, file)
    os.replace(STATUS + ".new", STATUS)
def leave(*_):
    try:
        os.unlink(STATUS)
    except OSError:
        pass
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
threading.Timer(S["seconds"], leave).start()
tell()
"""

_STOP = r"""
f=/run/pglab-job-$1.json
pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$f" 2>/dev/null)
[ -n "$pid" ] && case $(tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null) in
  *" pglab-job $1"*) kill "$pid"; for i in 1 2 3 4 5 6 7 8 9 10; do [ -e "$f" ] || break; sleep 0.1; done;
                      kill -9 "$pid" 2>/dev/null;;
esac
rm -f "$f"
"""


def start_job(lab: Lab, node: str, key: str, program: str, settings: dict[str, Any], seconds: float) -> None:
    """Start a program (after any other of that key has been ended); it ends itself after ``seconds``."""
    stop_job(lab, node, key)
    words = [PYTHON, "-c", PRELUDE + program, "pglab-job", key]
    node_of(lab, node).spawn(words, env={"LAB_JOB": json.dumps({**settings, "seconds": seconds})})


def job_status(lab: Lab, node: str, key: str) -> dict[str, Any] | None:
    """What the program tells of itself, None where it does not run."""
    try:
        said = json.loads(node_of(lab, node).get(f"/run/pglab-job-{key}.json"))
    except (LabError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def wait_job(lab: Lab, node: str, key: str, field: str, within_s: float) -> dict[str, Any]:
    """The program's status once it has ``field``. LabError where that does not come."""
    deadline = time.monotonic() + within_s
    said: dict[str, Any] | None = None
    while time.monotonic() < deadline:
        said = job_status(lab, node, key)
        if said and field in said:
            return said
        time.sleep(0.2)
    raise LabError(f"{key} on {node} did not get there within {within_s:g} s; it says {said}")


def stop_job(lab: Lab, node: str, key: str) -> None:
    """End the program. Idempotent."""
    node_of(lab, node).run(["bash", "-c", _STOP, "bash", key])
