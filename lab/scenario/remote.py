"""Files that programs inside the lab write, brought into the run record.

A program's ``out`` folder holds ``<table>[-<part>].jsonl`` or ``.bin`` files that only grow, ``pid`` and,
last of all, ``done``. While the run lasts every file is followed; at the end (or when a killed run is
closed by a later command) what is missing is fetched. Bytes are appended in order and never twice: a
segment of the record is at all times a prefix of its file on the node.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lab as lab_package
from lab.driver import Lab, Node, Stream
from lab.errors import LabError
from lab.record.schema import TABLES
from lab.record.writer import RecordWriter

_FILE = re.compile(r"^(?P<table>[a-z_]+)(?:[-.](?P<part>[A-Za-z0-9_.-]+?))?\.(?P<kind>jsonl|bin)$")

AGENT_SOURCE = Path(lab_package.__file__).parent / "observe" / "agent.sh"

OnData = Callable[[str, bytes], None]
"""Called with a segment's name and the bytes that were appended to it."""


@dataclass(frozen=True)
class Program:
    """A program inside the lab and the folder that it writes to."""

    node: str
    out: str
    part: str
    """Distinguishes its files in the record: ``observer``, ``client``."""


def segment_of(program: Program, file: str) -> str | None:
    """The record's segment for a file of the program, None for a file that is no table's."""
    match = _FILE.match(file)
    if match is None or match["table"] not in TABLES:
        return None
    part = f"{program.part}-{match['part']}" if match["part"] else program.part
    return f"{match['table']}.{part}.{match['kind']}"


def sizes(node: Node, out: str) -> dict[str, int]:
    """Size of every file of a folder on a node, by name; empty where there is no such folder."""
    script = 'cd "$1" 2>/dev/null || exit 0; for f in *; do [ -f "$f" ] && echo "$(stat -c %s "$f") $f"; done'
    done = node.run(["sh", "-c", script, "sh", out], check=False)
    found: dict[str, int] = {}
    for line in done.stdout.splitlines():
        size, _, name = line.partition(" ")
        if size.isdigit():
            found[name] = int(size)
    return found


def fetch_rest(node: Node, program: Program, writer: RecordWriter) -> int:
    """Append to the record what it lacks of a program's files. Returns the bytes fetched."""
    fetched = 0
    for name, size in sizes(node, program.out).items():
        segment = segment_of(program, name)
        if segment is None:
            continue
        have = writer.size(segment)
        if have >= size:
            continue
        stream = node.stream(["tail", "-c", f"+{have + 1}", f"{program.out}/{name}"])
        try:
            for chunk in stream:
                writer.append(segment, chunk)
                fetched += len(chunk)
        finally:
            stream.close()
    return fetched


def stop(node: Node, out: str, *, wait_s: float = 10.0) -> bool:
    """End a program by the pid in its folder, gently, then not. True where it wrote ``done``.

    Its pid may be another process's by now: only one that has the folder's parent in its command
    line is touched.
    """
    script = """
    out=$1; ticks=$2; parent=$(dirname "$out")
    pid=$(cat "$out/pid" 2>/dev/null)
    alive() { [ -n "$pid" ] && tr '\\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$parent"; }
    alive && kill -TERM "$pid" 2>/dev/null
    while alive && [ "$ticks" -gt 0 ]; do sleep 0.1; ticks=$((ticks - 1)); done
    alive && kill -KILL "$pid" 2>/dev/null
    [ -e "$out/done" ] && echo done
    exit 0
    """
    done = node.run(
        ["bash", "-c", script, "bash", out, str(round(wait_s * 10))], timeout_s=wait_s + 15, check=False
    )
    return "done" in done.stdout


AGENT = "/opt/lab/agent.sh"

_STOP_AGENT = """
for file in /run/pglab-agent.pid /tmp/pglab-agent.pid; do
  [ -r "$file" ] && read -r pid < "$file" || continue
  mapfile -d '' -t words < "/proc/$pid/cmdline" && case "${words[*]}" in *agent.sh*) kill "$pid";; esac
done 2>/dev/null
exit 0
"""


def start_agents(
    lab: Lab, names: Iterable[str], *, address: str, port: int, token: str, seconds: float
) -> list[str]:
    """Start the agent that reports a node's control group, on each of the nodes.

    Returns the names of the nodes on which it could not be started.
    """
    program = AGENT_SOURCE.read_bytes()

    def one(name: str) -> str | None:
        words = ["bash", AGENT, address, str(port), name, token, str(round(seconds))]
        try:
            lab.nodes[name].put(AGENT, program, mode=0o755)
            lab.nodes[name].spawn(words)
        except LabError:
            return name
        return None

    with ThreadPoolExecutor(6) as pool:
        return [name for name in pool.map(one, names) if name]


def stop_agents(lab: Lab) -> None:
    """End the agents of every node that answers; one that does not ends at its own deadline."""

    def one(node: Node) -> None:
        with contextlib.suppress(LabError):
            node.run(["bash", "-c", _STOP_AGENT], check=False, timeout_s=5)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, lab.nodes.values()))


class Follower:
    """Follows every file of a program, each by a thread of its own, until closed."""

    def __init__(self, lab: Lab, program: Program, writer: RecordWriter, on_data: OnData) -> None:
        self.node = lab.nodes[program.node]
        self.program = program
        self.writer = writer
        self.on_data = on_data
        self.error: LabError | None = None
        """A failure of the record itself (a full disk): the run cannot go on."""
        self._streams: dict[str, Stream] = {}
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()

    @property
    def following(self) -> int:
        """How many files are followed."""
        return len(self._streams)

    def look_for_files(self) -> None:
        """Begin to follow files that are new."""
        for name in sizes(self.node, self.program.out):
            if segment_of(self.program, name) is not None and name not in self._streams:
                self._follow(name)

    def _follow(self, name: str) -> None:
        segment = segment_of(self.program, name)
        assert segment is not None
        start = self.writer.size(segment) + 1
        words = ["tail", "-c", f"+{start}", "-s", "0.1", "-f", f"{self.program.out}/{name}"]
        stream = self.node.stream(words)
        self._streams[name] = stream
        thread = threading.Thread(target=self._read, args=(segment, stream), name=segment, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, segment: str, stream: Stream) -> None:
        try:
            for chunk in stream:
                if self._closed.is_set():
                    # What comes from here on is fetched by fetch_rest, in order.
                    return
                try:
                    self.writer.append(segment, chunk)
                except LabError as error:
                    self.error = error
                    return
                self.on_data(segment, chunk)
        except (LabError, OSError):
            # The stream broke; what is missing is fetched at the end.
            return

    def close(self) -> None:
        """Stop following. Idempotent."""
        self._closed.set()
        for stream in self._streams.values():
            stream.close()
        deadline = time.monotonic() + 5
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
