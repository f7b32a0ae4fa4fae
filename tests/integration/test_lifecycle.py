"""The life of a lab on a real engine: up, found up, driven, connected to, down; and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from lab.deploy import connect, state
from lab.deploy.docker_driver import LABEL_LAB, DockerLab
from lab.deploy.down import down
from lab.deploy.engine import api
from lab.deploy.readiness import wait_ready
from lab.deploy.secrets import load_secrets
from lab.deploy.status import status
from lab.deploy.up import up
from lab.errors import EngineError, LabError, NotReady, UsageError
from lab.topology.loader import load_topology
from lab.topology.models import Topology
from tests.integration.conftest import Silent


def owned(name: str) -> dict[str, int]:
    """How much of a lab there is on the engine and on disk."""
    label = {"label": [f"{LABEL_LAB}={name}"]}
    project = {"label": [f"com.docker.compose.project=pglab-{name}"]}
    return {
        "containers": len(api().containers(all=True, filters=label)),
        "project": len(api().containers(all=True, filters=project)),
        "networks": len(api().networks(filters=label)) + len(api().networks(filters=project)),
        "volumes": len(api().volumes(filters=label)["Volumes"] or []),
        "folder": int(state.lab_dir(name).exists()),
    }


NOTHING = {"containers": 0, "project": 0, "networks": 0, "volumes": 0, "folder": 0}


@pytest.fixture
def name(request: pytest.FixtureRequest, state_dir: Path) -> Iterator[str]:
    """A name for a lab of one test; whatever is left of it goes at the end."""
    assert state_dir
    chosen = f"it-{os.getpid()}-{abs(hash(request.node.name)) % 9999}"
    yield chosen
    down(chosen)


# --- a lab that is up


def test_it_is_what_the_topology_says(lab_risk_prod: DockerLab) -> None:
    wait_ready(lab_risk_prod)
    # PostgreSQL writes WAL of its own accord (checkpoints, for one), and replaying it takes a moment.
    deadline = time.monotonic() + 30
    while True:
        seen = status(lab_risk_prod.name)
        lags = {node.lag_bytes for node in seen.nodes if (node.kind, node.role) == ("database", "replica")}
        if lags == {0}:
            break
        assert time.monotonic() < deadline, f"replicas behind by {lags}"
        time.sleep(0.5)
    assert seen.health == "up", seen.warnings
    roles = {node.name: node.role for node in seen.nodes}
    # Which of the two leads depends on the failovers that other tests made.
    assert {roles["pg1"], roles["pg2"]} == {"primary", "synchronous standby"}
    assert roles["pg3"] == roles["pg4"] == "replica"
    assert len({node.timeline for node in seen.nodes if node.kind == "database"}) == 1
    for node in seen.nodes:
        if node.kind == "database":
            assert node.cpus
            assert node.memory_bytes
    json.dumps(seen.document())


def test_up_again_changes_nothing(lab_risk_prod: DockerLab) -> None:
    before = {name: node.container for name, node in lab_risk_prod.nodes.items()}
    again = up(lab_risk_prod.name, load_topology("risk-prod"), Silent())
    assert not again.created
    assert {name: node.container for name, node in again.lab.nodes.items()} == before


def test_another_topology_under_its_name_is_refused(lab_risk_prod: DockerLab) -> None:
    with pytest.raises(UsageError) as caught:
        up(lab_risk_prod.name, load_topology("risk-prod", ["postgres.patroni.ttl=30"]), Silent())
    assert "--name" in str(caught.value.hint)


def test_ports_are_published_on_the_loopback_only(lab_risk_prod: DockerLab) -> None:
    published = 0
    for node in lab_risk_prod.nodes.values():
        for ports in (api().inspect_container(node.container)["NetworkSettings"]["Ports"] or {}).values():
            for port in ports or ():
                assert port["HostIp"] == "127.0.0.1", node.name
                published += 1
    assert published


def test_no_secret_shows_where_others_can_look(lab_risk_prod: DockerLab) -> None:
    secrets = load_secrets(lab_risk_prod.state_dir)
    # Certificates are no secrets; of a key, its longest line is looked for.
    words = {
        name: max(value.splitlines(), key=len) for name, value in secrets.items() if not name.endswith(".crt")
    }
    assert len(words) > 10
    places = dict(lab_risk_prod.rendered())
    for node in lab_risk_prod.nodes.values():
        places[f"inspect {node.name}"] = json.dumps(api().inspect_container(node.container))
        places[f"log {node.name}"] = node.log()
        places[f"processes of {node.name}"] = json.dumps(api().top(node.container, "axww"))
    for place, text in places.items():
        for secret, word in words.items():
            assert word not in text, f"{secret} in {place}"


def test_a_client_on_this_host_connects_as_lab_env_says(lab_risk_prod: DockerLab) -> None:
    target = connect.choose(lab_risk_prod, None, None, False, "lab_probe")
    found = connect.host_environment(lab_risk_prod, target)
    passfile = Path(found["PGPASSFILE"])
    assert passfile.stat().st_mode & 0o777 == 0o600
    options: dict[str, Any] = {
        "host": found["PGHOST"],
        "port": found["PGPORT"],
        "dbname": found["PGDATABASE"],
        "user": found["PGUSER"],
        "passfile": found["PGPASSFILE"],
        "sslrootcert": found["PGSSLROOTCERT"],
    }
    with psycopg.connect(**options, sslmode=found["PGSSLMODE"], prepare_threshold=None) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("lab_probe",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(**options, sslmode="disable")


def test_psql_reaches_pools_and_nodes(lab_risk_prod: DockerLab) -> None:
    for pool, direct, reader, expected in (
        ("transaction", None, False, "f"),
        ("session", None, True, "t"),
        ("statement", None, False, "f"),
        (None, "pg3", False, "t"),
    ):
        target = connect.choose(lab_risk_prod, pool, direct, reader, None)
        argv = connect.psql_command(
            lab_risk_prod, target, ["-Atc", "select pg_is_in_recovery()"], terminal=False
        )
        password = lab_risk_prod.secret(f"password_{target.role}")
        assert password not in " ".join(argv)
        done = subprocess.run(
            argv, env={**os.environ, "PGPASSWORD": password}, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == expected, done.stderr


# --- the driver


def test_commands_files_and_streams(lab_risk_prod: DockerLab) -> None:
    node = lab_risk_prod.nodes["client"]
    done = node.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"x" * 200_000, check=False)
    assert (done.exit_code, len(done.stdout), done.stderr) == (3, 200_000, "err\n")
    with pytest.raises(LabError, match="exit code 3"):
        node.run(["sh", "-c", "exit 3"])
    started = time.monotonic()
    with pytest.raises(LabError, match="longer than 1 s"):
        node.run(["sleep", "60"], timeout_s=1)
    assert time.monotonic() - started < 10
    node.put("/run/lab/deep/down/file", b"\0data", mode=0o640, uid=7, gid=8)
    assert node.get("/run/lab/deep/down/file") == b"\0data"
    assert node.run(["stat", "-c", "%a %u %g", "/run/lab/deep/down/file"]).stdout == "640 7 8\n"
    with pytest.raises(LabError, match="no file"):
        node.get("/run/lab/nope")
    stream = node.stream(["sh", "-c", "while :; do echo tick; sleep 0.05; done #marker-of-the-stream"])
    threading.Timer(0.5, stream.close).start()
    assert b"".join(stream).count(b"tick") >= 2
    deadline = time.monotonic() + 10
    count = "grep -l marker-of-the-strea[m] /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    while node.run(["sh", "-c", count]).stdout.strip() != "0":
        assert time.monotonic() < deadline, "closing the stream did not end its command"
        time.sleep(0.1)


def test_many_threads_use_one_lab(lab_risk_prod: DockerLab) -> None:
    found: list[str] = []

    def ask(node: str) -> None:
        found.append(lab_risk_prod.nodes[node].run(["echo", node]).stdout.strip())

    threads = [threading.Thread(target=ask, args=(node,)) for node in list(lab_risk_prod.nodes)[:8]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(list(lab_risk_prod.nodes)[:8])


def test_killing_and_starting_a_replica(lab_risk_prod: DockerLab) -> None:
    node = lab_risk_prod.nodes["pg4"]
    before = time.time()
    earliest, latest = node.kill()
    assert before - 1 <= earliest <= latest <= time.time() + 1
    try:
        now = node.state()
        assert (now.running, now.exit_code) == (False, 137)
        assert status(lab_risk_prod.name).health == "degraded"
        with pytest.raises(EngineError, match="not running"):
            node.run(["true"])
        with pytest.raises(NotReady, match="pg4 ended"):
            wait_ready(lab_risk_prod)
    finally:
        node.start()
    wait_ready(lab_risk_prod, timeout_s=120)
    assert node.address("data") == lab_risk_prod.allocation.addresses["pg4"]["data"]


def test_an_unplugged_node_knows_the_others_by_the_same_addresses(lab_risk_prod: DockerLab) -> None:
    """Names that led to the control network would let it replicate past a cut of the data network."""
    node = lab_risk_prod.nodes["pg4"]
    data = lab_risk_prod.allocation.addresses["pg1"]["data"]

    def pg1() -> str:
        return node.run(["getent", "ahostsv4", "pg1"]).stdout.split()[0]

    assert pg1() == data
    try:
        node.detach("data")
        assert "data" not in node.attached()
        assert pg1() == data
    finally:
        node.attach("data")
    assert pg1() == data
    before = node.run(["cat", "/etc/hosts"]).stdout
    node.attach("data")
    assert node.run(["cat", "/etc/hosts"]).stdout == before
    wait_ready(lab_risk_prod, timeout_s=120)


def test_a_paused_node_says_so(lab_risk_prod: DockerLab) -> None:
    node = lab_risk_prod.nodes["redis2"]
    node.pause()
    try:
        assert node.state().paused
        with pytest.raises(EngineError, match="paused"):
            node.run(["true"])
    finally:
        node.unpause()
        node.unpause()
    assert not node.state().paused


# --- up and down


def test_a_second_lab_side_by_side_and_down_again(
    lab_risk_prod: DockerLab, small: Topology, name: str
) -> None:
    other = up(name, small, Silent()).lab
    one, two = lab_risk_prod.allocation, other.allocation
    assert not set(one.published.values()) & set(two.published.values())
    assert not set(one.networks.values()) & set(two.networks.values())
    assert set(other.nodes) == {member.name for member in small.members()}
    assert down(name)
    assert owned(name) == NOTHING
    assert not down(name)
    assert status(lab_risk_prod.name).health == "up"


def test_a_service_that_does_not_come_up_is_named_and_nothing_is_left(small: Topology, name: str) -> None:
    paper = small.model_dump(mode="json")
    paper["postgres"]["parameters"] = {"shared_preload_libraries": "no_such_library"}
    with pytest.raises(NotReady, match="pg1") as caught:
        up(name, Topology.model_validate(paper), Silent(), timeout_s=25)
    assert "no_such_library" in str(caught.value)
    assert "not installed" in str(caught.value.hint)
    assert owned(name) == NOTHING


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing(
    small: Topology, name: str, tmp_path: Path, number: signal.Signals
) -> None:
    process = _up_process(small, name, tmp_path)
    _until_it_has_containers(name)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 130
    assert owned(name) == NOTHING


def test_down_removes_what_a_killed_up_left(small: Topology, name: str, tmp_path: Path) -> None:
    process = _up_process(small, name, tmp_path)
    _until_it_has_containers(name)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert down(name)
    assert owned(name) == NOTHING


def test_down_works_without_the_labs_files(small: Topology, name: str) -> None:
    up(name, small, Silent())
    state.remove(name)
    with pytest.raises(UsageError):
        DockerLab.open(name)
    assert down(name).containers
    assert owned(name) == NOTHING


def _up_process(topology: Topology, name: str, folder: Path) -> subprocess.Popen[bytes]:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(topology.model_dump(mode="json")))
    return subprocess.Popen(
        [sys.executable, "-m", "lab.cli", "up", str(path), "--name", name],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _until_it_has_containers(name: str) -> None:
    deadline = time.monotonic() + 60
    while not owned(name)["containers"]:
        assert time.monotonic() < deadline, "nothing came up"
        time.sleep(0.05)
