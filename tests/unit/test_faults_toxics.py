"""Faults of a link: what Toxiproxy is asked for, when their effect counts as seen, and how they heal."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.driver import Completed
from lab.errors import LabError
from lab.faults import _toxics, _toxiproxy, commit_cut, find
from lab.faults._base import lacks, traits
from lab.faults._toxics import LinkFault, Measured, hops_into
from lab.faults._toxiproxy import PYTHON, Toxic, Toxiproxy, undo
from lab.scenario.needs import unmet
from lab.topology.loader import load_topology
from tests.fake_lab import FakeLab

NAMES = ["bandwidth", "commit-cut", "jitter", "latency", "reset", "slicing"]
MEASURED = [name for name in NAMES if name != "commit-cut"]


class FakeToxiproxy:
    """What the observer's programs would say: Toxiproxy's API on a table, and measurements as set."""

    def __init__(self, lab: FakeLab, proxies: Sequence[str]) -> None:
        self.proxies: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in proxies}
        self.through: dict[str, Any] = dict(GOOD)
        self.past: dict[str, Any] = dict(GOOD)
        self.found = "1"
        self.cleaned = 0
        self.spoil: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: body
        self.measured: dict[str, Any] = {}
        lab.nodes["observer"].answers[PYTHON] = self

    def __call__(self, argv: Sequence[str]) -> Completed:
        program = argv[2]
        if program == _toxiproxy._PROGRAM:
            answers = [self._api(*request) for request in json.loads(argv[5])]
            return Completed(0, json.dumps({"begin": 10.0, "end": 10.25, "answers": answers}), "")
        if program == _toxics._MEASURE:
            self.measured = json.loads(argv[3])
            return Completed(0, json.dumps([self.through, self.past]), "")
        if program == commit_cut._COUNT:
            return Completed(0, f"{self.found}\n", "")
        assert program == commit_cut._CLEAN
        self.cleaned += 1
        return Completed(0, "", "")

    def _api(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
        _, _, proxy, _, *rest = path.split("/")
        if proxy not in self.proxies:
            return 404, '{"error": "proxy not found"}'
        toxics = self.proxies[proxy]
        if method == "POST":
            assert body is not None
            if body["name"] in toxics:
                return 409, '{"error": "toxic already exists"}'
            toxics[body["name"]] = self.spoil(body)
            return 200, json.dumps(toxics[body["name"]])
        if method == "DELETE":
            return (204, "") if toxics.pop(rest[0], None) else (404, '{"error": "toxic not found"}')
        return 200, json.dumps(list(toxics.values()))


GOOD = {"answers": [0.001] * 15, "bulk": 0.002, "segment": 1400.0}
HURT: dict[str, dict[str, Any]] = {
    "latency": {**GOOD, "answers": [0.1013] * 15},
    "jitter": {**GOOD, "answers": [0.001 + 0.01 * i for i in range(15)]},
    "bandwidth": {**GOOD, "bulk": 1.98},
    "slicing": {**GOOD, "segment": 126.0},
    "reset": {"error": "connection reset by peer"},
}


@pytest.fixture
def lab(tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def proxied(lab: FakeLab) -> FakeLab:
    """Every link through Toxiproxy."""
    lab._topology = load_topology("risk-prod", ["links.*.path=proxied"])
    lab.nodes["toxiproxy"].answers["bash"] = lambda _: Completed(0, "", "")
    return lab


@pytest.fixture
def api(proxied: FakeLab) -> FakeToxiproxy:
    return FakeToxiproxy(proxied, ["pool-transaction-6432", "router-5000", "router-5001", "pg1-5432"])


@pytest.mark.parametrize("name", NAMES)
def test_what_every_one_says_of_itself(name: str, lab: FakeLab) -> None:
    fault = find(name)
    assert isinstance(fault, LinkFault)
    assert traits(fault).moves_leader == "no"
    assert len({toxic.name for toxic in fault.toxics}) == len(fault.toxics)
    # The link is direct: not run, with the setting that gives it.
    why = unmet(lab, fault, ["pool-transaction"])
    assert "client → pooler" in why
    assert "--set links.client-pooler.path=proxied" in why
    with pytest.raises(LabError, match="is direct"):
        fault.plan(lab, "pool-transaction")
    # A client is the near end of links only.
    assert "no link leads to client" in lacks(fault, lab, "client")


def test_without_toxiproxy_it_is_not_run(lab: FakeLab) -> None:
    lab._allocation = lab.allocation.model_copy(update={"toxiproxy": False})
    assert "could not be had" in unmet(lab, find("latency"), ["pool-transaction"])
    with pytest.raises(LabError, match="has no Toxiproxy"):
        Toxiproxy(lab)
    lab._topology = lab.topology.model_copy(update={"proxy": None})
    assert "has no Toxiproxy" in unmet(lab, find("latency"), ["pool-transaction"])


def test_every_way_into_a_node_is_hit(proxied: FakeLab) -> None:
    assert [hop.proxy for hop in hops_into(proxied, "router")] == ["router-5000", "router-5001"]
    assert [hop.proxy for hop in hops_into(proxied, "redis2")] == ["redis2-6379"]
    assert lacks(find("latency"), proxied, "pg1") == ""
    one = load_topology("risk-prod", ["links.router-postgres.path=proxied"])
    proxied._topology = one
    assert lacks(find("latency"), proxied, "pg1") == ""
    assert "--set links.pooler-router.path=proxied" in lacks(find("latency"), proxied, "router")


@pytest.mark.parametrize("name", MEASURED)
def test_injected_seen_and_healed(name: str, proxied: FakeLab, api: FakeToxiproxy) -> None:
    fault, proxy = find(name), proxied.nodes["toxiproxy"]
    assert isinstance(fault, LinkFault)
    plan = {**fault.plan(proxied, "router"), "deadline_s": 60.0}
    # Healing is harmless where nothing was injected.
    fault.heal(proxied, plan)
    effect = fault.inject(proxied, "router", plan)
    assert (effect.wall_earliest, effect.wall_latest) == (10.0, 10.25)
    assert (
        set(api.proxies["router-5000"]) == set(api.proxies["router-5001"]) == {t.name for t in fault.toxics}
    )
    assert not api.proxies["pg1-5432"]
    armed = [call for call in proxy.calls if "pglab-deadline" in call]
    assert armed
    assert "60.0" in armed[-1]
    assert "DELETE /proxies/router-5001/toxics/" in armed[-1][-1]

    api.through = HURT[name]
    evidence = fault.verify(proxied, effect)
    assert evidence.found, evidence.how
    ways = api.measured["places"]
    assert [way["port"] for way in ways] == [hops_into(proxied, "router")[0].listen, 5000]
    assert [way["host"] for way in ways] == ["toxiproxy", "router"]
    # It is not healed as long as it is there, nor while the link still shows it.
    assert "toxics left" in fault.verify_healed(proxied, plan).how
    fault.heal(proxied, plan)
    fault.heal(proxied, plan)
    assert not api.proxies["router-5000"]
    assert not api.proxies["router-5001"]
    assert not fault.verify_healed(proxied, plan).found
    api.through = dict(GOOD)
    assert fault.verify_healed(proxied, plan).found


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("what", ["nothing changed", "the machine is slow", "nothing works"])
def test_what_is_no_effect(
    name: str, what: str, proxied: FakeLab, api: FakeToxiproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_toxics.time, "sleep", lambda _: None)
    fault = find(name)
    effect = fault.inject(proxied, "router", fault.plan(proxied, "router"))
    if what == "the machine is slow":
        api.through = api.past = {**HURT[name], "answers": HURT[name].get("answers", [0.1])}
    elif what == "nothing works":
        api.through = api.past = {"error": "server closed the connection unexpectedly"}
    assert not fault.verify(proxied, effect).found


def test_a_link_behind_which_nothing_answers_is_healed_once_no_toxic_is_left(
    proxied: FakeLab, api: FakeToxiproxy
) -> None:
    """Another fault may hide the link."""
    fault = find("latency")
    plan = fault.plan(proxied, "router")
    api.through = api.past = {"error": "server closed the connection unexpectedly"}
    evidence = fault.verify_healed(proxied, plan)
    assert evidence.found
    assert "does not answer" in evidence.how
    fault.inject(proxied, "router", plan)
    assert not fault.verify_healed(proxied, plan).found


def test_a_proxy_that_does_not_run_is_started(proxied: FakeLab, api: FakeToxiproxy) -> None:
    assert api
    fault, node = find("latency"), proxied.nodes["toxiproxy"]
    node.running = False
    fault.heal(proxied, fault.plan(proxied, "router"))
    assert node.started == 1


def test_what_toxiproxy_did_not_take_is_an_error(proxied: FakeLab, api: FakeToxiproxy) -> None:
    fault = find("latency")
    plan = fault.plan(proxied, "router")
    api.spoil = lambda body: {**body, "attributes": {"latency": 0, "jitter": 0}}
    with pytest.raises(LabError, match="did not add latency to router-5000"):
        fault.inject(proxied, "router", plan)
    api.spoil = lambda body: body
    fault.heal(proxied, plan)
    fault.inject(proxied, "router", plan)
    with pytest.raises(LabError, match="already exists"):
        fault.inject(proxied, "router", plan)
    with pytest.raises(LabError, match="did not list the toxics of pg9-5432: 404"):
        Toxiproxy(proxied).names(["pg9-5432"])
    proxied.nodes["observer"].answers[PYTHON] = lambda _: Completed(0, "", "no")
    with pytest.raises(LabError, match="could not ask Toxiproxy"):
        Toxiproxy(proxied).names(["pg1-5432"])


def test_commit_cut(proxied: FakeLab, api: FakeToxiproxy, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = find("commit-cut")
    stages = {"open": {"open": 3}, "lost": {"n": 17, "lost": "server closed the connection unexpectedly"}}
    started: list[tuple[Any, ...]] = []
    stopped: list[str] = []
    monkeypatch.setattr(commit_cut, "start_job", lambda *words: started.append(words))
    monkeypatch.setattr(commit_cut, "wait_job", lambda _lab, _node, _key, stage, _s: stages[stage])
    monkeypatch.setattr(commit_cut, "stop_job", lambda _lab, _node, key: stopped.append(key))
    plan = fault.plan(proxied, "pool-transaction")
    effect = fault.inject(proxied, "pool-transaction", plan)
    ((lab, node, key, program, settings, _),) = started
    assert (lab, node, key) == (proxied, "observer", "commit-cut-pool-transaction")
    assert settings["run"] == plan["run"]
    assert "secret" not in json.dumps(settings)
    compile(program, "write", "exec")
    assert stopped == [key]
    assert effect.seen == {"n": 17, "lost": "server closed the connection unexpectedly"}
    assert set(api.proxies["pool-transaction-6432"]) == {"pglab-commit-cut"}
    assert fault.verify(proxied, effect).found
    # Negative controls: the write is not there; it is there twice.
    for found in ("0", "2"):
        api.found = found
        assert not fault.verify(proxied, effect).found
    fault.heal(proxied, plan)
    assert fault.verify_healed(proxied, plan).found
    assert api.cleaned == 1
    # A standby commits nothing, so there is nothing to cut; the program ends all the same.
    stages["open"] = {"lost": "it leads to a standby", "open": 0}
    with pytest.raises(LabError, match="it leads to a standby"):
        fault.inject(proxied, "pg1", fault.plan(proxied, "pg1"))
    assert stopped[-1] == "commit-cut-pg1"
    assert not api.proxies["pg1-5432"]


def test_figures_of_a_way() -> None:
    assert Measured(answers=(1.0, 2.0, 9.0)).typical == 2.0
    assert Measured(answers=(1.0, 2.0, 3.0)).spread != Measured(answers=(1.0, 2.0, 3.0)).spread  # NaN
    assert Measured(answers=(0.0, 1.0, 2.0, 3.0, 4.0)).spread == pytest.approx(3.0)


@pytest.fixture
def http_server() -> Any:
    """Answers every connection with 204 and keeps the request lines."""
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                with link, link.makefile("rb") as request:
                    head = [line.decode().strip() for line in iter(request.readline, b"\r\n")]
                    request.read(sum(int(line[15:]) for line in head if line.startswith("Content-Length:")))
                    lines.append(head[0])
                    link.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], lines
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_what_the_proxys_own_node_does_at_the_deadline(http_server: Any) -> None:
    port, lines = http_server
    script = undo(("127.0.0.1", port), [("router-5000", "a"), ("router-5001", "b")])
    subprocess.run(["bash", "-c", script], check=True, timeout=20)
    assert lines == [
        "DELETE /proxies/router-5000/toxics/a HTTP/1.1",
        "DELETE /proxies/router-5001/toxics/b HTTP/1.1",
    ]


def test_the_observers_program_against_a_real_server(http_server: Any) -> None:
    port, lines = http_server
    asked = [["DELETE", "/proxies/x/toxics/y", None], ["POST", "/proxies/x/toxics", {"name": "y"}]]
    words = ["python3", "-c", _toxiproxy._PROGRAM, f"http://127.0.0.1:{port}", "5", json.dumps(asked)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    said = json.loads(done.stdout)
    assert [status for status, _ in said["answers"]] == [204, 204]
    assert said["begin"] <= said["end"]
    assert lines[1] == "POST /proxies/x/toxics HTTP/1.1"
    # Nobody listens: told, not raised.
    words[3] = "http://127.0.0.1:1"
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    assert [status for status, _ in json.loads(done.stdout)["answers"]] == [0, 0]


def test_a_toxic_is_asked_for_as_the_api_wants_it() -> None:
    assert vars(Toxic("a", "latency", {"latency": 1})) == {
        "name": "a", "type": "latency", "attributes": {"latency": 1}, "stream": "downstream",
    }  # fmt: skip
