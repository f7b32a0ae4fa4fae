"""Patroni's REST interface, asked from the observer over the control network; the clock is read there too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab.deploy.endpoints import endpoints
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import node_of

PYTHON = "/opt/venv/bin/python"
REFUSAL_S = 0.3
"""Patroni refuses at once what it will not do; it answers the rest when it is done."""

# The moment is that of the request's last byte; the answer may come much later.
_CALL = """
import http.client, json, sys, time
host, port, method, path, body, wait = sys.argv[1:]
link = http.client.HTTPConnection(host, int(port), timeout=float(wait))
link.connect()
before = time.time()
link.request(method, path, body or None, {"Content-Type": "application/json"})
after = time.time()
try:
    answer = link.getresponse()
    status, text = answer.status, answer.read().decode(errors="replace")
except TimeoutError:
    status, text = 0, ""
print(json.dumps([before, after, status, text]))
"""


@dataclass(frozen=True)
class Reply:
    """Patroni's answer."""

    sent_before: float
    """Wall clock right before the request was sent, seconds."""
    sent_after: float
    status: int
    """0: no answer came in time."""
    text: str

    def json(self) -> Any:
        """LabError where the answer is no JSON."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise LabError(f"Patroni gave no JSON: {self.text[:200]}") from error


def call(lab: Lab, node: str, method: str, path: str, body: Any = None, *, timeout_s: float = 10.0) -> Reply:
    """Ask a node's Patroni. LabError where it is silent or refuses."""
    reply = _send(lab, node, method, path, body, timeout_s)
    if reply.status == 0:
        raise LabError(f"Patroni of {node} does not answer {method} {path} within {timeout_s:g} s")
    return reply


def order(lab: Lab, node: str, path: str, body: Any) -> Reply:
    """Ask a node's Patroni for something that takes its time: only a refusal is awaited. LabError for one."""
    return _send(lab, node, "POST", path, body, REFUSAL_S)


def _send(lab: Lab, node: str, method: str, path: str, body: Any, timeout_s: float) -> Reply:
    place = endpoints(lab.topology, lab.allocation)[f"{node}.patroni"]
    observer = node_of(lab, lab.topology.observer.name)
    text = "" if body is None else json.dumps(body)
    words = [PYTHON, "-c", _CALL, place.address, str(place.port), method, path, text, f"{timeout_s:g}"]
    try:
        done = observer.run(words, timeout_s=timeout_s + 10)
        reply = Reply(*json.loads(done.stdout))
    except (LabError, ValueError, TypeError) as error:
        raise LabError(f"Patroni of {node} does not answer {method} {path}: {error}") from error
    if reply.status >= 300:
        raise LabError(f"Patroni of {node} answers {method} {path} with {reply.status}: {reply.text[:200]}")
    return reply


def members(lab: Lab, asked: tuple[str, ...] | None = None) -> dict[str, dict[str, Any]]:
    """Patroni's list of members by name, from the first of the nodes (None: any) that tells it."""
    names = asked or tuple(node.name for node in lab.topology.postgres.nodes)
    problem = "no node was asked"
    for name in names:
        try:
            return {
                str(m["name"]): dict(m)
                for m in call(lab, name, "GET", "/cluster", timeout_s=3).json()["members"]
            }
        except (LabError, KeyError, TypeError) as error:
            problem = str(error)
    raise LabError(f"nobody tells the members of the cluster: {problem}")


def leader(lab: Lab, asked: tuple[str, ...] | None = None) -> str | None:
    """The member that leads and runs, None where there is none."""
    found = [n for n, m in members(lab, asked).items() if m.get("role") in ("leader", "primary", "master")]
    return found[0] if len(found) == 1 else None
