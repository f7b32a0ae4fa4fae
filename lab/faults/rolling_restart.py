"""An operator restarts the whole cluster: followers one by one, then a switchover, then the old leader.

As for a change of a setting that needs a restart, or of the version. Each node is awaited (it streams) before
the next one. The moment is that of the first request; it takes some 20 s.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from lab.deploy.endpoints import endpoints
from lab.driver import Lab
from lab.errors import LabError
from lab.faults import _patroni
from lab.faults._base import Effect, Evidence, Instructions, Kind, Moves, On, first_true, node_of
from lab.faults._jobs import job_status, start_job, stop_job, wait_job
from lab.faults._shell import postmaster

KEY = "rolling-restart"
LONGEST_S = 180.0

_PROGRAM = """
import http.client
def call(name, method, path, body=None):
    host, port = S["nodes"][name]
    link = http.client.HTTPConnection(host, port, timeout=60)
    text = json.dumps(body) if body is not None else None
    link.request(method, path, text, {"Content-Type": "application/json"})
    answer = link.getresponse()
    return answer.status, answer.read().decode()
def leads():
    for name in S["nodes"]:
        try:
            if call(name, "GET", "/primary")[0] == 200:
                return name
        except OSError:
            pass
def streams():
    for name in S["nodes"]:
        try:
            members = json.loads(call(name, "GET", "/cluster")[1])["members"]
        except (OSError, ValueError, KeyError):
            continue
        lead = [m for m in members if m["role"] == "leader" and m["state"] == "running"]
        sync = not S["synchronous"] or any("sync" in m["role"] for m in members)
        rest = [m for m in members if m["role"] != "leader"]
        return bool(lead) and sync and all(m["state"] == "streaming" for m in rest)
    return False
def settle():
    time.sleep(2.5)
    while not streams():
        time.sleep(0.3)
old, done = leads(), []
order = [n for n in S["nodes"] if n != old] + [old]
begun = None
try:
    for name in order:
        settle() if done else None
        if name == old:
            said = call(old, "POST", "/switchover", {"leader": old})
            if said[0] != 200:
                raise ValueError("switchover: " + said[1])
            settle()
        before = time.time()
        begun = begun or [before, time.time()]
        tell(begun=begun, done=done)
        said = call(name, "POST", "/restart", {})
        if said[0] != 200:
            raise ValueError("restart of " + name + ": " + said[1])
        done.append(name)
    settle()
    tell(begun=begun, done=done, end=True)
except (OSError, ValueError) as error:
    tell(begun=begun, done=done, end=True, problem=str(error))
while True:
    time.sleep(1)
"""


@dataclass(frozen=True)
class RollingRestart:
    name: str = KEY
    summary: str = "every node is restarted through Patroni, one after the other, with a switchover between"
    needs: tuple[str, ...] = ("patroni", "standby")
    colour: str = "#174ea6"
    kind: Kind = "operator"
    moves_leader: Moves = "yes"
    on: tuple[On, ...] = ("database",)
    lasts_s: float = 60
    ends_itself: bool = True

    def plan(self, lab: Lab, node: str) -> Instructions:
        return {"node": node_of(lab, node).name}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        observer, before = lab.topology.observer.name, _postmasters(lab)
        longest = min(plan.get("deadline_s") or LONGEST_S, LONGEST_S)
        start_job(lab, observer, KEY, _PROGRAM, _settings(lab), longest)
        begun = wait_job(lab, observer, KEY, "begun", 30)["begun"]
        if begun is None:
            raise LabError("the rolling restart did not begin")
        return Effect(node, begun[0], begun[1], plan, {"postmasters": before})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """It tells its end, and every node runs another postmaster than before."""
        said: dict[str, Any] = wait_job(lab, lab.topology.observer.name, KEY, "end", LONGEST_S)
        now = _postmasters(lab)
        same = [name for name, pid in effect.seen["postmasters"].items() if now[name] in (pid, None)]
        how = f"restarted: {', '.join(said['done'])}; not restarted: {', '.join(same) or 'none'}"
        return Evidence(not same and "problem" not in said, f"{how} {said.get('problem', '')}".strip())

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        """No further node is restarted; one that is being restarted comes back by itself."""
        stop_job(lab, lab.topology.observer.name, KEY)
        node = node_of(lab, str(instructions["node"]))
        if not node.state().running:
            node.start()

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:  # noqa: ARG002
        def look() -> Evidence:
            running = job_status(lab, lab.topology.observer.name, KEY) is not None
            members = _patroni.members(lab)
            absent = [n for n, m in members.items() if m.get("state") not in ("running", "streaming")]
            ended = "goes on" if running else "has ended"
            return Evidence(not running and not absent, f"it {ended}; not up: {', '.join(absent) or 'none'}")

        return first_true(look, 100, lambda: time.sleep(0.3))


def _postmasters(lab: Lab) -> dict[str, list[int] | None]:
    found = {node.name: postmaster(lab, node.name) for node in lab.topology.postgres.nodes}
    return {name: list(process) if process else None for name, process in found.items()}


def _settings(lab: Lab) -> dict[str, Any]:
    places = endpoints(lab.topology, lab.allocation)
    nodes = {n.name: places[f"{n.name}.patroni"] for n in lab.topology.postgres.nodes}
    return {
        "nodes": {name: [place.address, place.port] for name, place in nodes.items()},
        "synchronous": lab.topology.postgres.synchronous != "off" and len(nodes) > 1,
    }


FAULT = RollingRestart()
