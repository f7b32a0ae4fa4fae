"""Toxiproxy's HTTP API, as far as faults need it: toxics added, listed, taken away.

A client of the lab's own, and not the package ``toxiproxy-python``, which cannot serve here:

- it runs where Python runs, and the API listens on the control network only: nothing of it is published on
  the host, and with a remote engine there would be nothing to reach. So the *observer* asks, by one short
  program a call, as it does for etcd and PgBouncer's console;
- its host and port are attributes of a class, one for all labs of a process;
- its HTTP calls have no time limit, so that a proxy that hangs would hang the healing;
- an answer other than 400, 404 and 409 counts as success, and a toxic is not told back.

What comes back is checked: a toxic that Toxiproxy did not take as it was asked for is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lab.deploy.endpoints import PROXY_API_PORT
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import node_of

PYTHON = "/opt/venv/bin/python"
CALL_S = 6.0
"""Limit of one request; Toxiproxy itself waits up to 5 s for a connection to let go of a toxic."""

# Requests in argv, in order; one JSON object out. The clock is read right before and after.
_PROGRAM = r"""
import json, sys, time, urllib.error, urllib.request
base, limit, requests = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
answers, begin = [], time.time()
for method, path, body in requests:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with opener.open(request, timeout=limit) as answer:
            answers.append([answer.status, answer.read().decode()])
    except urllib.error.HTTPError as error:
        answers.append([error.code, error.read().decode()])
    except OSError as error:
        answers.append([0, str(error)])
print(json.dumps({"begin": begin, "end": time.time(), "answers": answers}))
"""

Stream = Literal["upstream", "downstream"]
"""``upstream``: what clients send; ``downstream``: what they get."""


@dataclass(frozen=True)
class Toxic:
    """What is done to the data of a proxy's connections, those that are open among them."""

    name: str
    type: str
    """``latency``, ``bandwidth``, ``slicer``, ``reset_peer``, ``limit_data``."""
    attributes: Mapping[str, int] = field(default_factory=dict)
    """As Toxiproxy's documentation names them: times in ms (``slicer.delay`` in µs), rates in KB/s."""
    stream: Stream = "downstream"


def path_of(proxy: str, toxic: str = "") -> str:
    """Path of a toxic (or of all) in the API."""
    return f"/proxies/{proxy}/toxics" + (f"/{toxic}" if toxic else "")


class Toxiproxy:
    """The Toxiproxy of one lab."""

    def __init__(self, lab: Lab) -> None:
        """LabError where the lab has none."""
        if lab.topology.proxy is None or not lab.allocation.toxiproxy:
            raise LabError(f"lab {lab.name} has no Toxiproxy")
        self.node = node_of(lab, lab.topology.proxy.name)
        self._observer = node_of(lab, lab.topology.observer.name)

    @property
    def api(self) -> tuple[str, int]:
        """Address and port of the API, on the control network."""
        return self.node.address("control"), PROXY_API_PORT

    def add(self, wanted: Iterable[tuple[str, Toxic]]) -> tuple[float, float]:
        """Add toxics, (proxy, toxic) each: they are in force for open connections too.

        Returns the wall clock of the engine's host right before and after, in seconds. LabError where one
        was not taken; those before it are in force then.
        """
        pairs = list(wanted)
        bodies = [{**vars(toxic), "attributes": dict(toxic.attributes), "toxicity": 1} for _, toxic in pairs]
        asked = [("POST", path_of(proxy), body) for (proxy, _), body in zip(pairs, bodies, strict=True)]
        begin, end, answers = self._ask(asked)
        for (proxy, toxic), body, (status, said) in zip(pairs, bodies, answers, strict=True):
            if status != 200 or json.loads(said) != body:
                raise LabError(
                    f"Toxiproxy did not add {toxic.type} to {proxy}: {status} {said.strip()[:200]}"
                )
        return begin, end

    def remove(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Take toxics away, (proxy, toxic's name) each; what is not there is well. LabError else."""
        pairs = list(wanted)
        _, _, answers = self._ask([("DELETE", path_of(*pair), None) for pair in pairs])
        for (proxy, name), (status, said) in zip(pairs, answers, strict=True):
            if status not in (204, 404):
                raise LabError(f"Toxiproxy did not take {name} from {proxy}: {status} {said.strip()[:200]}")

    def names(self, proxies: Sequence[str]) -> dict[str, list[str]]:
        """Proxy → names of the toxics in force. LabError where Toxiproxy has no such proxy, or is silent."""
        _, _, answers = self._ask([("GET", path_of(proxy), None) for proxy in proxies])
        found = {}
        for proxy, (status, said) in zip(proxies, answers, strict=True):
            if status != 200:
                raise LabError(f"Toxiproxy did not list the toxics of {proxy}: {status} {said.strip()[:200]}")
            found[proxy] = [str(toxic["name"]) for toxic in json.loads(said)]
        return found

    def _ask(self, requests: Sequence[tuple[str, str, Any]]) -> tuple[float, float, list[tuple[int, str]]]:
        address, port = self.api
        words = [
            PYTHON,
            "-c",
            _PROGRAM,
            f"http://{address}:{port}",
            f"{CALL_S:g}",
            json.dumps(list(requests)),
        ]
        done = self._observer.run(words, timeout_s=CALL_S * len(requests) + 10)
        try:
            said = json.loads(done.stdout)
            answers = [(int(status), str(text)) for status, text in said["answers"]]
            return float(said["begin"]), float(said["end"]), answers
        except (ValueError, KeyError, TypeError) as error:
            raise LabError("the observer could not ask Toxiproxy") from error


def undo(api: tuple[str, int], wanted: Iterable[tuple[str, str]]) -> str:
    """Bash commands for the proxy's own node that take toxics away, should nobody come back."""
    address, port = api
    lines = []
    for proxy, name in wanted:
        ask = rf"DELETE {path_of(proxy, name)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        lines.append(
            f"exec 3<>/dev/tcp/{address}/{port} && printf '{ask}' >&3 && "
            f"timeout {CALL_S:g} cat <&3 >/dev/null; exec 3>&-"
        )
    return "\n".join(lines)
