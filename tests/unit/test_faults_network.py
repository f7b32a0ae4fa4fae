"""Network faults: the rules that they make, whom they cut off, and that a look can come out either way."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.driver import Completed
from lab.errors import LabError
from lab.faults import _packets, faults, find
from lab.faults._base import plan_for, traits
from lab.faults._packets import SCRIPT, Partition, rules
from tests.fake_lab import FakeLab

PARTITIONS = sorted(name for name, fault in faults().items() if isinstance(fault, Partition))
STEADY = [name for name in PARTITIONS if name != "flapping"]


@dataclass
class Net:
    """A network between fake nodes, that filters packets as the nodes' own rules say."""

    lab: FakeLab
    rules: dict[str, dict[str, str]] = field(default_factory=dict)
    """Node → chain → input of iptables-restore."""
    works: bool = True
    """Whether rules have any effect."""
    half: set[tuple[str, str]] = field(default_factory=set)
    """(from, to) addresses of first packets that arrived."""
    calls: list[str] = field(default_factory=list)
    leaks: bool = False
    """Whether the control network is cut, too."""
    ports: str = ""
    """Ports of whatever node that answer the observer over the control network."""

    def __post_init__(self) -> None:
        for name, node in self.lab.nodes.items():
            node.answers["bash"] = self._bash(name)
            node.answers["ss"] = self._ss

    def owner(self, address: str) -> str:
        return next(n for n, node in self.lab.nodes.items() if address in node.addresses.values())

    def verdict(self, node: str, hook: str, peer: str) -> str:
        """What the node's filters do with a packet from (INPUT) or to (OUTPUT) an address."""
        flag = "-s" if hook == "INPUT" else "-d"
        for text in self.rules.get(node, {}).values() if self.works else ():
            for line in text.splitlines():
                if f"-{hook} {flag} {peer}/32" in line:
                    return "reset" if "tcp-reset" in line else "drop"
        return "pass"

    def connect(self, source: str, address: str) -> str:
        target = self.owner(address)
        network = next(n for n, a in self.lab.nodes[target].addresses.items() if a == address)
        if network == "control":
            return "silent" if self.leaks else "open"
        own = self.lab.nodes[source].addresses[network]
        there = (self.verdict(source, "OUTPUT", address), self.verdict(target, "INPUT", own))
        back = (self.verdict(target, "OUTPUT", own), self.verdict(source, "INPUT", address))
        if there == ("pass", "pass"):
            self.half.add((own, address))
        if {*there, *back} == {"pass"}:
            return "open"
        return "refused" if "reset" in there else "silent"

    def _bash(self, name: str) -> Callable[[Sequence[str]], Completed]:
        def run(argv: Sequence[str]) -> Completed:
            script, words = argv[2], list(argv[4:])
            if script == SCRIPT:
                return self._filter(name, words)
            if script == _packets._CONNECT:
                return Completed(0, self.connect(name, words[0]) + "\n", "")
            if "/dev/tcp/$a/$p" in script:
                return Completed(0, self.ports, "")
            assert "REJECT" in script
            return Completed(0 if self.works else 1, "", "")

        return run

    def _filter(self, node: str, words: list[str]) -> Completed:
        mode, chain, *rest = words
        self.calls.append(f"{node} {mode}")
        mine = self.rules.setdefault(node, {})
        if mode == "cut":
            mine[chain] = rest[0]
            return Completed(0, "100.000000 100.004000\n", "")
        if mode == "mend":
            mine.pop(chain, None)
        if mode == "kept":
            return Completed(0, f"{int(chain in mine)}\n", "")
        return Completed(0, str(mine.get(chain, "").count("\n")), "")

    def _ss(self, argv: Sequence[str]) -> Completed:
        source = argv[-1].rpartition(" ")[2]
        return Completed(0, "x" if any(a == source for a, _ in self.half) else "", "")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    monkeypatch.setattr("lab.faults._packets.time.sleep", lambda _: None)
    return Net(FakeLab(tmp_path))


def peers(lab: FakeLab, name: str, node: str) -> set[str]:
    return set(find(name).plan(lab, node)["peers"])


def test_who_is_cut_off(net: Net) -> None:
    lab = net.lab
    databases, etcd = {"pg2", "pg3", "pg4"}, {"etcd1", "etcd2", "etcd3"}
    before = {"router", "pool-transaction", "pool-session", "pool-statement", "toxiproxy"}
    assert peers(lab, "cut-from-etcd", "pg1") == etcd
    assert peers(lab, "cut-from-replicas", "pg1") == databases
    assert peers(lab, "isolate-from-peers", "pg1") == databases | etcd
    assert peers(lab, "cut-from-clients", "pg1") == before
    assert peers(lab, "isolate", "pg1") == databases | etcd | before | {"observer"}
    with pytest.raises(LabError, match="no such peer"):
        find("cut-from-etcd").plan(lab, "redis1")


def test_nodes_that_are_hit_together_stay_together(net: Net) -> None:
    fault = find("isolate")
    assert isinstance(fault, Partition)
    plan = fault.plan_among(net.lab, "pg1", ("pg1", "etcd1", "router"))
    assert not {"pg1", "etcd1", "router"} & set(plan["peers"])
    fault.inject(net.lab, "pg1", plan)
    fault.inject(net.lab, "etcd1", fault.plan_among(net.lab, "etcd1", ("pg1", "etcd1", "router")))
    effect = fault.inject(net.lab, "pg1", plan)
    assert fault.verify(net.lab, effect).found
    assert net.connect("etcd1", net.lab.nodes["pg1"].address("data")) == "open"


@pytest.mark.parametrize("name", PARTITIONS)
def test_the_control_network_is_never_touched(net: Net, name: str) -> None:
    fault = find(name)
    fault.inject(net.lab, "pg1", fault.plan(net.lab, "pg1"))
    (text,) = net.rules["pg1"].values()
    control = {node.addresses["control"] for node in net.lab.nodes.values()}
    assert not any(address in text for address in control)
    assert text.startswith("*filter\n")
    assert text.endswith("\nCOMMIT")
    assert "conntrack" not in text


@pytest.mark.parametrize("name", STEADY)
def test_injected_seen_and_healed(net: Net, name: str) -> None:
    fault, lab = find(name), net.lab
    plan = {**fault.plan(lab, "pg1"), "deadline_s": 77.0}
    assert json.loads(json.dumps(plan)) == plan
    # Negative control: nothing was done yet.
    effect = fault.inject(lab, "pg1", plan)
    assert (effect.wall_earliest, effect.wall_latest) == (100.0, 100.004)
    assert lab.nodes["pg1"].calls[-1][-3:] == ["77", "0", "0"]
    evidence = fault.verify(lab, effect)
    assert evidence.found, evidence.how
    assert not fault.verify_healed(lab, plan).found

    # Negative controls: rules without an effect; a control network that is cut as well.
    net.works = False
    assert not fault.verify(lab, effect).found
    net.works, net.leaks = True, True
    assert not fault.verify(lab, effect).found
    net.leaks = False

    fault.heal(lab, plan)
    fault.heal(lab, plan)
    assert fault.verify_healed(lab, plan).found
    assert not fault.verify(lab, effect).found


def test_another_cut_does_not_pass_for_this_one(net: Net) -> None:
    lab = net.lab
    for one, other in (
        ("isolate-from-peers", "isolate"),
        ("cut-from-etcd", "isolate"),
        ("isolate", "cut-from-etcd"),
        ("isolate", "reject"),
        ("reject", "isolate"),
        ("isolate-inbound", "isolate-outbound"),
        ("isolate-outbound", "isolate-inbound"),
        ("isolate-inbound", "isolate"),
    ):
        wanted, done = find(one), find(other)
        plan = done.plan(lab, "pg1")
        effect = wanted.inject(lab, "pg1", wanted.plan(lab, "pg1"))
        net.rules.clear()
        done.inject(lab, "pg1", plan)
        net.half.clear()
        assert not wanted.verify(lab, effect).found, (one, other)
        net.rules.clear()


def test_faults_that_overlap_heal_one_by_one(net: Net) -> None:
    lab, etcd, clients = net.lab, find("cut-from-etcd"), find("cut-from-clients")
    first, second = etcd.plan(lab, "pg1"), clients.plan(lab, "pg1")
    etcd.inject(lab, "pg1", first)
    clients.inject(lab, "pg1", second)
    etcd.heal(lab, first)
    assert etcd.verify_healed(lab, first).found
    assert not clients.verify_healed(lab, second).found
    # A peer that another fault hides does not keep this one from being seen as healed.
    everybody = find("isolate").plan(lab, "pg1")
    clients.heal(lab, second)
    isolate = find("isolate")
    isolate.inject(lab, "etcd1", isolate.plan(lab, "etcd1"))
    assert isolate.verify_healed(lab, everybody).found


def test_a_node_that_does_not_run_filters_nothing(net: Net) -> None:
    fault, lab = find("isolate"), net.lab
    plan = fault.plan(lab, "pg1")
    fault.inject(lab, "pg1", plan)
    lab.nodes["pg1"].running = False
    calls = len(net.calls)
    fault.heal(lab, plan)
    assert len(net.calls) == calls
    assert fault.verify_healed(lab, plan).found


def test_flapping_is_seen_only_where_it_comes_and_goes(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, lab = find("flapping"), net.lab
    clock = iter(range(1000))
    monkeypatch.setattr("lab.faults._packets.time.monotonic", lambda: float(next(clock)))
    plan = fault.plan(lab, "pg1")
    effect = fault.inject(lab, "pg1", plan)
    assert lab.nodes["pg1"].calls[-1][-3:] == ["900", "5", "5"]
    evidence = fault.verify(lab, effect)
    assert not evidence.found
    assert "silent" in evidence.how
    connect, turn = net.connect, [0]

    def comes_and_goes(source: str, address: str) -> str:
        turn[0] += 1
        return connect(source, address) if turn[0] < 3 else "open"

    monkeypatch.setattr(net, "connect", comes_and_goes)
    evidence = fault.verify(lab, effect)
    assert evidence.found
    assert "silent, then open" in evidence.how


def test_rules_answer_with_resets_that_arrive() -> None:
    text = rules("PGLAB-1", ["10.0.0.2"], "both", True).splitlines()
    for hook in ("INPUT", "OUTPUT"):
        mine = [line for line in text if line.startswith(f"-A PGLAB-1-{hook}")]
        assert "--tcp-flags RST RST -j RETURN" in mine[0]
        assert "REJECT --reject-with tcp-reset" in mine[1]
        assert mine[2].endswith("-j DROP")
    assert "OUTPUT" not in rules("PGLAB-1", ["10.0.0.2"], "inbound", False)
    assert "INPUT" not in rules("PGLAB-1", ["10.0.0.2"], "outbound", False)


def test_a_machine_without_resets(net: Net) -> None:
    reject, isolate = find("reject"), find("isolate")
    assert isinstance(reject, Partition)
    assert isinstance(isolate, Partition)
    assert reject.lacks(net.lab, "pg1") == ""
    net.works = False
    assert "reset" in reject.lacks(net.lab, "pg1")
    assert isolate.lacks(net.lab, "pg1") == ""


def test_a_filter_that_cannot_be_set(net: Net) -> None:
    net.lab.nodes["pg1"].answers["bash"] = lambda _: Completed(2, "", "a\niptables: no such table\n")
    fault = find("isolate")
    with pytest.raises(LabError, match="packet filter of pg1: iptables: no such table"):
        fault.inject(net.lab, "pg1", fault.plan(net.lab, "pg1"))


def test_disconnect(net: Net) -> None:
    fault, lab = find("disconnect"), net.lab
    plan = fault.plan(lab, "pg1")
    assert plan == {"node": "pg1", "networks": ["data"]}
    assert fault.plan(lab, "pool-session")["networks"] == ["app", "data"]
    effect = fault.inject(lab, "pg1", plan)
    assert lab.nodes["pg1"].attached() == ("control",)
    assert (effect.wall_earliest, effect.wall_latest) == (2000.0, 2000.05)
    # Negative control: peers still get through.
    assert not fault.verify(lab, effect).found
    assert not fault.verify_healed(lab, plan).found
    isolate = find("isolate")
    cut = isolate.plan(lab, "pg1")
    isolate.inject(lab, "pg1", cut)
    assert fault.verify(lab, effect).found
    isolate.heal(lab, cut)
    fault.heal(lab, plan)
    fault.heal(lab, plan)
    assert fault.verify_healed(lab, plan).found


def test_every_network_fault_is_a_partition() -> None:
    for name in (*PARTITIONS, "disconnect", "lose-node"):
        assert traits(find(name)).kind == "partition"
    assert len(PARTITIONS) >= 9


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Stand-ins for iptables that note their words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "log"
    for name in ("iptables", "iptables-restore"):
        tool = folder / name
        tool.write_text(f'#!/bin/bash\necho "{name} $*" >>{log}\n[[ {name} == *restore ]] && cat >>{log}; '
                        'case "$*" in *-D*) exit 1;; esac; exit 0\n')  # fmt: skip
        tool.chmod(0o755)
    return tmp_path


def run_script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.replace("/run/", f"{folder}/")
    return subprocess.run(
        ["bash", "-c", script, "pglab-fault", *words],
        env={"PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_script_undoes_itself_at_its_deadline(tools: Path) -> None:
    done = run_script(tools, "cut", "PGLAB-x", "*filter\nCOMMIT", "0.3", "0", "0")
    assert done.returncode == 0, done.stderr
    earliest, latest = map(float, done.stdout.split())
    assert earliest <= latest
    log = tools / "log"
    wait_for(lambda: "-X PGLAB-x-OUTPUT" in log.read_text())
    wait_for(lambda: not (tools / "pglab-fault-PGLAB-x").exists())
    assert log.read_text().index("*filter") < log.read_text().index("-F PGLAB-x-INPUT")


def test_the_script_heals_before_its_deadline(tools: Path) -> None:
    run_script(tools, "cut", "PGLAB-y", "*filter\nCOMMIT", "600", "0", "0")
    pid = int((tools / "pglab-fault-PGLAB-y").read_text())
    assert Path(f"/proc/{pid}").exists()
    for _ in range(2):
        assert run_script(tools, "mend", "PGLAB-y").returncode == 0
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())
    assert "-X PGLAB-y-INPUT" in (tools / "log").read_text()


def test_the_script_comes_and_goes(tools: Path) -> None:
    run_script(tools, "cut", "PGLAB-z", "*filter\nCOMMIT", "600", "0.05", "0.05")
    log = tools / "log"
    wait_for(lambda: log.read_text().count("*filter") >= 3)
    run_script(tools, "mend", "PGLAB-z")
    count = log.read_text().count("*filter")
    time.sleep(0.4)
    assert log.read_text().count("*filter") == count


def test_lose_node_cuts_off_before_it_kills(net: Net) -> None:
    fault, lab = find("lose-node"), net.lab
    zone = ("pg1", "etcd1")
    plans = {node: plan_for(fault, lab, node, zone) for node in zone}
    assert "etcd1" not in plans["pg1"]["peers"]
    assert json.loads(json.dumps(plans)) == plans
    killed: list[str] = []
    kill = lab.nodes["pg1"].kill

    def note() -> tuple[float, float]:
        killed.append(net.verdict("pg1", "OUTPUT", lab.nodes["pg2"].address("data")))
        return kill()

    lab.nodes["pg1"].kill = note  # type: ignore[method-assign]
    effect = fault.inject(lab, "pg1", plans["pg1"])
    # The moment is that of the cut, and when it died nothing left the node any more.
    assert (effect.wall_earliest, effect.wall_latest) == (100.0, 100.004)
    assert killed == ["drop"]
    assert not lab.nodes["pg1"].running
    net.ports = ""
    assert fault.verify(lab, effect).found
    # Negative controls: it runs; it answers.
    net.ports = "8008\n"
    assert not fault.verify(lab, effect).found
    net.ports = ""
    lab.nodes["pg1"].running = True
    assert not fault.verify(lab, effect).found

    lab.nodes["pg1"].running = False
    net.rules.clear()
    fault.heal(lab, plans["pg1"])
    fault.heal(lab, plans["pg1"])
    assert lab.nodes["pg1"].started == 1
    assert not fault.verify_healed(lab, plans["pg1"]).found
    net.ports = "8008\n"
    assert fault.verify_healed(lab, plans["pg1"]).found


def test_lose_node_kills_nothing_that_is_not_cut_off(net: Net) -> None:
    fault, lab = find("lose-node"), net.lab
    net.works = False
    with pytest.raises(LabError, match="was not cut off before"):
        fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert lab.nodes["pg1"].running
    assert not net.rules["pg1"]
    # A runner that died between the cut and the kill left filters on a node that runs.
    net.works = True
    plan = fault.plan(lab, "pg1")
    find("isolate").inject(lab, "pg1", plan)
    fault.heal(lab, plan)
    assert not net.rules["pg1"]


def test_rules_that_went_with_the_node_are_put_back(net: Net) -> None:
    fault = find("isolate")
    assert isinstance(fault, Partition)
    effect = fault.inject(net.lab, "pg1", fault.plan(net.lab, "pg1"))
    assert not fault.reapply(net.lab, effect)
    net.rules.pop("pg1")  # started anew, in a network namespace without rules
    assert not fault.verify(net.lab, effect).found
    net.lab.nodes["pg1"].running = False
    assert not fault.reapply(net.lab, effect)
    net.lab.nodes["pg1"].running = True
    assert fault.reapply(net.lab, effect)
    assert fault.verify(net.lab, effect).found
    fault.heal(net.lab, effect.heal)
    assert fault.verify_healed(net.lab, effect.heal).found


def test_whether_a_keeper_still_runs(tmp_path: Path) -> None:
    """The script's own word, as the node's shell would say it."""
    script = SCRIPT.replace("/run/pglab-fault-", f"{tmp_path}/fault-").replace("$ipt -w -S INPUT", "true")

    def kept() -> str:
        words = ["bash", "-c", script, "pglab-fault", "kept", "PGLAB-1"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    assert kept() == "0"
    with subprocess.Popen(["bash", "-c", "sleep 30; true", "keep", "PGLAB-1"]) as keeper:
        (tmp_path / "fault-PGLAB-1").write_text(f"{keeper.pid}\n")
        while (Path("/proc") / str(keeper.pid) / "cmdline").read_bytes().count(b"PGLAB-1") == 0:
            time.sleep(0.01)
        assert kept() == "1"
        keeper.kill()
    assert kept() == "0"
