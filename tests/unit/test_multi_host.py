"""Clients that connect to the database nodes themselves, and when anybody gives up a silent peer."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import yaml

from lab.deploy.endpoints import endpoints, networks_of, shared_network
from lab.deploy.parameters import client_timeouts
from lab.deploy.render import render
from lab.errors import UsageError
from lab.load import LoadSpec, load_config, resolve_pool
from lab.matrix import cells, load_matrix
from lab.observe import wire as module
from lab.observe.config import Endpoint
from lab.observe.outcomes import Trouble
from lab.observe.wire import Wire, conninfos
from lab.scenario.loader import load_scenario
from lab.scenario.plan import make_plan, observer_config
from lab.topology.loader import load_topology
from loadtests.config import LoadConfig, LoadTarget
from loadtests.session import connect_parameters
from tests.fake_lab import FakeLab
from tests.fix_topology import allocate

OFF = [f"tcp.{side}.{field}" for side in ("client", "pooler", "server")
       for field in ("keepalives=false", "user_timeout=0")]  # fmt: skip
DIRECT = "direct_access=true"


# Timeouts


def pgbouncer(*overrides: str) -> dict[str, str]:
    topology = load_topology("risk-prod", list(overrides))
    parser = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes=(";", "#"))
    parser.read_string(render(topology, allocate(topology))["pgbouncer/pool-session/pgbouncer.ini"])
    return dict(parser["pgbouncer"])


def postgres(*overrides: str) -> dict[str, str]:
    topology = load_topology("risk-prod", list(overrides))
    config = yaml.safe_load(render(topology, allocate(topology))["postgres/pg1/patroni.yml"])
    return dict(config["bootstrap"]["dcs"]["postgresql"]["parameters"])


def test_timeouts_of_pooler_and_server() -> None:
    found = pgbouncer()
    assert {key: found[key] for key in found if key.startswith("tcp_")} == {
        "tcp_keepalive": "1", "tcp_keepidle": "5", "tcp_keepintvl": "1", "tcp_keepcnt": "3",
        "tcp_user_timeout": "5000",
    }  # fmt: skip
    found = pgbouncer(*OFF)
    assert {key: found[key] for key in found if key.startswith("tcp_")} == {
        "tcp_keepalive": "0", "tcp_user_timeout": "0",
    }  # fmt: skip
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    assert [postgres()[name] for name in names] == ["10", "2", "3", "10s"]
    assert [postgres(*OFF)[name] for name in names] == ["0", "0", "0", "0s"]
    assert postgres("tcp.server.user_timeout=2.5")["tcp_user_timeout"] == "2.5s"
    # The topology's own PostgreSQL settings win.
    assert postgres("postgres.parameters.tcp_user_timeout=7s")["tcp_user_timeout"] == "7s"


def test_timeouts_of_clients() -> None:
    assert client_timeouts(load_topology("risk-prod").tcp.client) == {
        "keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }  # fmt: skip
    assert client_timeouts(load_topology("risk-prod", OFF).tcp.client) == {
        "keepalives": 0, "tcp_user_timeout": 0,
    }  # fmt: skip
    with pytest.raises(UsageError, match="user_timeout"):
        load_topology("risk-prod", ["tcp.client.user_timeout=-1"])


def test_load_and_probes_have_the_timeouts_of_clients(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    lab._topology = load_topology("risk-prod", ["tcp.client.user_timeout=4"])
    config = load_config(lab, LoadSpec(), "r", "/run/lab/r")
    parameters = connect_parameters(config, config.writer, "p")
    assert (parameters["tcp_user_timeout"], parameters["keepalives_idle"]) == (4000, 5)
    observed = observe(lab, load_scenario("steady").load.pool)
    assert observed.writer is not None
    assert observed.writer.tcp["tcp_user_timeout"] == 4000
    (info,) = conninfos(no_password(observed.writer), "x")
    assert b"tcp_user_timeout=4000" in info
    # The lab's own instruments do without.
    assert not observed.router.tcp  # type: ignore[union-attr]


def observe(lab: FakeLab, pool: str | None):  # type: ignore[no-untyped-def]
    story = load_scenario("steady", [f"load.pool={pool}"] if pool else [])
    plan = make_plan(story, lab.topology, lab.allocation, 1)
    passwords = dict.fromkeys(("lab_probe", "lab_monitor", "redis"), "/x")
    return observer_config(
        plan, lab.allocation, run="r", out="/o", token="t", passwords=passwords, scope="s", namespace="n"
    )


def no_password(endpoint: Endpoint) -> Endpoint:
    return Endpoint(**{**vars(endpoint), "password_file": ""})


def test_collectors_reach_poolers_and_redis_past_every_link(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    lab._topology = load_topology("risk-prod", ["links.*.path=proxied"])
    found = observe(lab, None)
    control = {name: addresses["control"] for name, addresses in lab.allocation.addresses.items()}
    assert {(p.address, p.port) for p in found.poolers} == {
        (control[p.name], 6432) for p in lab.topology.poolers
    }
    assert {(r.host, r.address, r.port) for r in found.redis} == {
        (f"{name}.control", control[name], 6379) for name in ("redis1", "redis2")
    }
    # What clients do goes through the link.
    assert found.writer is not None
    assert found.writer.host == "toxiproxy"


# Direct access


def test_without_direct_access_clients_do_not_see_the_database() -> None:
    topology = load_topology("risk-prod")
    known = endpoints(topology, allocate(topology))
    assert not [name for name in known if name.startswith("multi-host")]
    with pytest.raises(UsageError, match="cannot reach the database nodes"):
        resolve_pool(topology, known, "multi-host")
    assert "app" not in networks_of(topology)["pg1"]


def test_with_it_they_do_and_the_cluster_keeps_to_its_own_network() -> None:
    topology = load_topology("risk-prod", [DIRECT])
    allocation = allocate(topology)
    known = endpoints(topology, allocation)
    assert resolve_pool(topology, known, "multi-host") == ("multi-host.write", "multi-host.read")
    write, read = known["multi-host.write"], known["multi-host.read"]
    # The nodes that the router would choose from.
    assert (write.host, write.target_session_attrs) == ("pg1,pg2", "read-write")
    assert (read.host, read.target_session_attrs) == ("pg3,pg4", "any")
    assert write.address == ",".join(allocation.addresses[node]["app"] for node in ("pg1", "pg2"))
    assert known["router.write"].address == allocation.addresses["router"]["app"]
    assert known["pg1.direct"].address == allocation.addresses["pg1"]["control"]
    for one, other in (("pg1", "pg2"), ("pg1", "router"), ("pool-session", "router"), ("pg1", "etcd1")):
        assert shared_network(topology, one, other) == "data", (one, other)
    assert shared_network(topology, "client", "pg1") == "app"
    hba = yaml.safe_load(render(topology, allocation)["postgres/pg1/patroni.yml"])["postgresql"]["pg_hba"]
    app = allocation.networks["app"]
    assert hba.index(f"hostssl all postgres {app} reject") < hba.index(f"hostssl all all {app} scram-sha-256")
    closed = load_topology("risk-prod")
    assert app not in render(closed, allocate(closed))["postgres/pg1/patroni.yml"]


def test_load_and_probes_over_several_hosts(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    lab._topology = load_topology("risk-prod", [DIRECT])
    lab._allocation = allocate(lab.topology)
    config = load_config(lab, LoadSpec(pool="multi-host"), "r", "/run/lab/r")
    app = [lab.allocation.addresses[node]["app"] for node in ("pg1", "pg2", "pg3", "pg4")]
    parameters = connect_parameters(config, config.writer, "p")
    assert (parameters["host"], parameters["hostaddr"]) == ("pg1,pg2", ",".join(app[:2]))
    assert parameters["target_session_attrs"] == "read-write"
    assert "load_balance_hosts" not in parameters
    assert config.reader is not None
    assert connect_parameters(config, config.reader, "p")["load_balance_hosts"] == "random"
    # Not over the control network, by which faults never come.
    control = {addresses["control"] for addresses in lab.allocation.addresses.values()}
    assert not control & set(f"{config.writer.address},{config.reader.address}".split(","))
    # The router's own endpoint too is one of the application network now.
    through = load_config(lab, LoadSpec(pool="router"), "r", "/run/lab/r")
    assert through.writer.address == lab.allocation.addresses["router"]["app"]

    observed = observe(lab, "multi-host")
    infos = [info.decode() for info in conninfos(no_password(observed.writer), "x")]
    assert len(infos) == 2
    for info, node, address in zip(infos, ("pg1", "pg2"), app, strict=False):
        assert f"host={node} " in info
        assert f"hostaddr={address} " in info
        assert "target_session_attrs=read-write" in info


def test_the_matrices_are_whole() -> None:
    found = cells(load_matrix("multi-host"))
    assert {cell.pool for cell in found} == {"router", "multi-host"}
    found = cells(load_matrix("tcp-timeouts"))
    on, off = ({c.topology.tcp.client.user_timeout for c in found if c.variant == v}
               for v in ("timeouts-on", "timeouts-off"))  # fmt: skip
    assert (on, off) == ({10.0}, {0.0})
    with pytest.raises(UsageError, match="cannot reach the database nodes"):
        cells(load_matrix("pools", ["pools=[multi-host]"]))


# The probes' connections: which host serves


class Server:
    """Just enough of PostgreSQL's protocol for a log-in."""

    def __init__(self, kind: str, address: str = "127.0.0.1", port: int = 0) -> None:
        self.kind = kind
        self.connections = 0
        self.socket = socket.create_server((address, port))
        self.links: list[socket.socket] = []
        self.port = self.socket.getsockname()[1]
        if kind == "refusing":
            self.socket.close()
        else:
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.socket.accept()
                self.connections += 1
                self.links.append(link)
                if self.kind != "silent":
                    self._log_in(link)

    def _log_in(self, link: socket.socket) -> None:
        link.recv(4096)
        said = b"R" + struct.pack("!ii", 8, 0)
        standby = "on" if self.kind == "standby" else "off"
        for name, value in (
            ("server_version", "15.0"),
            ("in_hot_standby", standby),
            ("default_transaction_read_only", "off"),
        ):
            body = name.encode() + b"\0" + value.encode() + b"\0"
            said += b"S" + struct.pack("!i", 4 + len(body)) + body
        link.sendall(said + b"Z" + struct.pack("!i", 5) + b"I")

    def close(self) -> None:
        for link in (self.socket, *self.links):
            link.close()


@pytest.fixture
def servers() -> Iterator[dict[str, Server]]:
    made = {kind: Server(kind) for kind in ("refusing", "silent", "standby", "primary")}
    yield made
    for server in made.values():
        server.close()


def test_the_load_finds_the_node_that_takes_writes_and_spreads_its_reads() -> None:
    standby = Server("standby", "127.0.0.2")
    primary = Server("primary", "127.0.0.3", standby.port)
    target = LoadTarget("multi-host.write", "pg1,pg2", standby.port, "d", "127.0.0.2,127.0.0.3", "read-write")
    config = LoadConfig(
        run="r", out="/o", workload="risk-api", writer=target, user="u", password_file="/x", sslmode="disable"
    )

    def reached(attributes: str) -> str:
        parameters = connect_parameters(config, replace(target, target_session_attrs=attributes), "p")
        connection = psycopg.Connection.connect(**parameters)
        try:
            return connection.info.hostaddr
        finally:
            connection.pgconn.finish()

    try:
        assert {reached("read-write") for _ in range(5)} == {"127.0.0.3"}
        assert {reached("any") for _ in range(40)} == {"127.0.0.2", "127.0.0.3"}
    finally:
        standby.close()
        primary.close()


def outcome(servers: dict[str, Server], *kinds: str) -> str:
    """``opened`` (how often the caller was told) and ``ready``, or the trouble."""

    async def run() -> str:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()
        opened = []
        infos = [
            f"host=127.0.0.1 port={servers[kind].port} user=u dbname=d sslmode=disable gssencmode=disable "
            "target_session_attrs=read-write".encode()
            for kind in kinds
        ]
        wire = Wire(loop, *infos)

        def troubled(trouble: Trouble) -> None:
            done.set_result(f"trouble: {trouble.message}")

        def ready() -> None:
            done.set_result(f"ready, opened {len(opened)}")

        def on_open() -> None:
            opened.append(1)
            wire.log_in(ready)

        wire.connect(on_open, troubled)
        try:
            async with asyncio.timeout(5):
                return await done
        except TimeoutError:
            return "nothing"
        finally:
            wire.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("primary",), "ready, opened 1"),
        (("refusing", "primary"), "ready, opened 1"),
        (("silent", "primary"), "ready, opened 1"),
        (("standby", "primary"), "ready, opened 1"),
        (("refusing", "silent", "standby", "primary"), "ready, opened 1"),
        (("primary", "silent"), "ready, opened 1"),
        (("silent", "refusing"), "trouble"),
        (("standby",), "trouble"),
        # The last (or only) host is waited for as long as the caller likes.
        (("refusing", "silent"), "nothing"),
    ],
)
def test_hosts_are_tried_one_after_another(
    kinds: tuple[str, ...], expected: str, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOST_S", 0.3)
    assert outcome(servers, *kinds).startswith(expected)
    if kinds[0] == "primary":
        assert servers["silent"].connections == 0
