"""Why a service did not come up: its last log lines, and the likely cause in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lab.driver import Lab, Node, NodeState
from lab.errors import LabError, NotReady

LOG_LINES = 8
"""So many lines from the end of a log are shown."""
ERROR_LINES = 5
"""So many earlier lines that speak of an error are shown besides."""
_LOOK_BACK = 400
_SHOWN_CHECKS = 6
_CAUSES: tuple[tuple[str, str], ...] = (
    (r"no space left on device", "the engine's disk is full (`docker system df`)"),
    (r"cannot allocate memory|out of memory|could not resize shared memory",
     "it ran out of memory: stop other labs"),
    (r"address already in use|cannot bind|could not bind", "its port or address is taken by something else"),
    (r"exec format error", "its image was built for another processor architecture"),
    (r"password authentication failed|wrong password|invalid username-password|noauth|wrongpass",
     "it was refused with its password: secrets and volumes may stem from different labs"),
    (r"certificate verify failed|certificate has expired|not yet valid",
     "a certificate was refused: compare the clocks of this host and of the engine"),
    (r"could not access file|could not load library|extension .* is not available",
     "a library or extension that its settings name is not installed"),
    (r"could not translate host name|name or service not known|temporary failure in name resolution",
     "a node's name could not be resolved"),
    (r"permission denied", "it may not read or write a file that it needs"),
    (r"no such file or directory", "a file that it needs is missing"),
    (r"(syntax|configuration|config) error|unknown (option|parameter|keyword)|fatal config",
     "its configuration is wrong: `lab render` shows it"),
)  # fmt: skip
_STAMP = re.compile(r"^\S+T\S+Z ")
_WRONG = re.compile(r"\b(FATAL|PANIC|ERROR|CRITICAL|could not|cannot|failed|refused|denied)\b", re.IGNORECASE)
_FRAME = re.compile(r"^\s*(File \"|\^+$|Traceback |\^)|^ {4,}\S")
"""Lines of a Python traceback other than its last."""
_AGELESS = re.compile(r"\d[\d:.,-]*")
"""What differs between two lines that say the same: times and numbers."""


def likely_cause(state: NodeState, log: str) -> str | None:
    """The likely cause in words, from how the node ended and what it printed; None where nothing tells."""
    if state.oom_killed:
        return "the kernel ended it: it used more memory than its limit"
    for pattern, cause in _CAUSES:
        if re.search(pattern, log, re.IGNORECASE):
            return cause
    if not state.running and state.exit_code == 137:
        return "it was killed (SIGKILL): by hand, or because the machine ran out of memory"
    if not state.running and state.exit_code in (126, 127):
        return "its program is missing in the image: rebuild it"
    return None


def telling_lines(text: str) -> list[str]:
    """The lines of a log that tell most: the latest that speak of an error, then the very last ones.

    Time stamps of the engine are taken off, and what is repeated is shown once.
    """
    lines = [_STAMP.sub("", line).rstrip()[:240] for line in text.splitlines()]
    lines = [line for line in lines if line.strip() and not _FRAME.match(line)]
    last = lines[-LOG_LINES:]
    earlier: list[str] = []
    seen = {_AGELESS.sub("", line) for line in last}
    for line in reversed(lines[:-LOG_LINES]):
        ageless = _AGELESS.sub("", line)
        if _WRONG.search(line) and ageless not in seen:
            seen.add(ageless)
            earlier.append(line)
        if len(earlier) == ERROR_LINES:
            break
    return [*reversed(earlier), *(["…"] if earlier else []), *last]


def _with_log(message: str, node: Node, state: NodeState) -> NotReady:
    try:
        lines = telling_lines(node.log(tail=_LOOK_BACK))
    except LabError:
        lines = []
    cause = likely_cause(state, "\n".join(lines))
    if lines:
        message += f"\nLast lines of {node.name}:\n" + "\n".join(f"  {line}" for line in lines)
    else:
        message += f"\n{node.name} printed nothing."
    return NotReady(message, hint=f"Likely cause: {cause}." if cause else None)


def explain_dead(node: Node) -> NotReady:
    """The error for a node that ended."""
    state = node.state()
    return _with_log(f"{node.name} ended with exit code {state.exit_code}", node, state)


def explain_waiting(lab: Lab, waiting: Sequence[tuple[str, str, str]], waited_s: float) -> NotReady:
    """The error for checks (name, node, what it saw last) that did not come true in time.

    The node that is shown is the first that the topology lists: databases come before what depends on them.
    """
    order = {name: index for index, name in enumerate(m.name for m in lab.topology.members())}
    listed = sorted(waiting, key=lambda item: order.get(item[1], -1))
    text = "".join(f"\n  {name}: {detail}" for name, _, detail in listed[:_SHOWN_CHECKS])
    if len(listed) > _SHOWN_CHECKS:
        text += f"\n  and {len(listed) - _SHOWN_CHECKS} more"
    message = f"not ready after {waited_s:.0f} s:{text or ' no check was made'}"
    named = next((node for _, node, _ in listed if node in lab.nodes), None)
    if named is None:
        named = next(n.name for n in lab.topology.postgres.nodes if n.role == "primary")
    node = lab.nodes[named]
    return _with_log(message, node, node.state())
