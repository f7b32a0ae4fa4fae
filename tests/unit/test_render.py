"""Rendering: pure, complete, and what the topology asks for."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from lab.deploy.endpoints import endpoints, networks_of, proxy_ports, published_ports
from lab.deploy.parameters import max_connections, split_limit
from lab.deploy.render import render
from lab.deploy.secret_names import certificate_names, document_roles, secret_names, variable
from lab.errors import UsageError
from lab.topology.loader import load_topology
from lab.topology.models import Topology
from tests.fix_topology import allocate


def rendered(*overrides: str, **kwargs: Any) -> dict[str, str]:
    topology = load_topology("risk-prod", overrides)
    return render(topology, allocate(topology, **kwargs))


def project(files: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load(files["compose.yaml"])
    return result


def ini(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(comment_prefixes=(";;",), interpolation=None)
    parser.read_string(text)
    return parser


def test_same_input_same_bytes_and_sorted() -> None:
    files = rendered()
    assert list(files) == sorted(files)
    assert files == rendered()
    assert files != rendered("postgres.patroni.ttl=21")


def test_compose_holds_the_files_that_people_read() -> None:
    files = rendered()
    texts = {item["content"].replace("$$", "$") for item in project(files)["configs"].values()}
    for key, text in files.items():
        if key != "compose.yaml":
            assert text in texts, key


@pytest.mark.parametrize("instance", ["12345e12", "1e234567", "12345678", "00012345", "0e000000"])
def test_a_random_id_that_looks_like_a_number_stays_a_text(instance: str) -> None:
    # Compose's parser reads 12345e12 as 1.2345e+16, and the lab would not find its own nodes.
    allocation = allocate(load_topology("risk-prod")).model_copy(update={"instance_id": instance})
    text = render(load_topology("risk-prod"), allocation)["compose.yaml"]
    told = re.findall(r"pglab\.instance: (.*)", text)
    assert len(told) > 10
    assert set(told) == {f'"{instance}"'}


def test_no_dollar_is_left_for_compose_but_references_to_secrets() -> None:
    for name, item in project(rendered())["configs"].items():
        for match in re.finditer(r"\$+(\{[^}]*\}?)?", item["content"]):
            if name.startswith("secrets-"):
                assert match[0].startswith("${LAB_SECRET_"), (name, match[0])
            else:
                dollars = len(match[0]) - len(match[0].lstrip("$"))
                assert dollars % 2 == 0, (name, match[0])


def test_every_secret_that_is_referred_to_is_made_and_the_other_way_round() -> None:
    topology = load_topology("risk-prod")
    referred = set(re.findall(r"\$\{(LAB_SECRET_[A-Z0-9_]+):\?", rendered()["compose.yaml"]))
    made = {variable(name) for name in secret_names(topology).all()}
    assert referred <= made
    # The console's password is for people; Patroni sets the passwords of these two itself.
    assert made - referred == {
        "LAB_SECRET_PASSWORD_LAB_ADMIN",
        "LAB_SECRET_VERIFIER_POSTGRES",
        "LAB_SECRET_VERIFIER_REPLICATOR",
    }
    assert len(made) == len(secret_names(topology).all())  # no two names share a variable


def test_roles_of_the_document() -> None:
    assert document_roles(load_topology("risk-prod")) == (
        "app_admin",
        "app_backup",
        "app_readonly",
        "app_readwrite",
        "rds_superuser",
    )
    with pytest.raises(UsageError, match="schema set 'none'"):
        document_roles(load_topology("risk-prod", ["postgres.schema_set=none"]))


def test_only_nodes_that_need_a_secret_get_it() -> None:
    configs = project(rendered())["configs"]
    assert "LAB_SECRET_PASSWORD_POSTGRES" in configs["secrets-pg1"]["content"]
    for node in ("client", "observer", "pool-session", "redis1"):
        assert "PASSWORD_POSTGRES" not in configs[f"secrets-{node}"]["content"], node
    assert "PASSWORD_LAB_PROBE" in configs["secrets-observer"]["content"]
    assert "PASSWORD_LAB_PROBE" not in configs["secrets-client"]["content"]
    assert "PG2_KEY" not in configs["secrets-pg1"]["content"]
    assert not {"secrets-etcd1", "secrets-router", "secrets-toxiproxy"} & set(configs)


def test_limits_ports_addresses_and_labels() -> None:
    compose = project(rendered())
    services = compose["services"]
    assert (services["pg1"]["cpu_period"], services["pg1"]["cpu_quota"]) == (10_000, 10_000)
    assert (services["pg3"]["cpu_period"], services["pg3"]["cpu_quota"]) == (10_000, 5_000)
    assert services["pg1"]["mem_limit"] == 8 * 1024**3
    for free in ("etcd1", "router", "pool-session", "observer", "client", "toxiproxy"):
        assert not {"cpu_quota", "cpus", "mem_limit"} & set(services[free]), free
    for name, service in services.items():
        assert service["restart"] == "no", name
        assert "NET_ADMIN" in service["cap_add"], name
        assert service["labels"]["pglab.lab"] == "test", name
        assert not {"volumes", "healthcheck", "privileged", "container_name"} & set(service), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    assert any(port.endswith(":9999/udp") for port in services["observer"]["ports"])
    for network in compose["networks"].values():
        assert network["labels"]["pglab.instance"] == "0123456789ab"


def test_a_disk_of_their_own_is_the_databases_alone() -> None:
    topology = load_topology("risk-prod", ["postgres.disk_gib=2"])
    text = render(topology, allocate(topology))["compose.yaml"]
    disks = {name: s["tmpfs"] for name, s in yaml.safe_load(text)["services"].items() if "tmpfs" in s}
    assert set(disks) == {"pg1", "pg2", "pg3", "pg4"}
    assert disks["pg1"] == ["/var/lib/postgresql:size=2147483648"]


def test_hosts_name_the_network_that_two_nodes_share() -> None:
    services = project(rendered())["services"]
    addresses = allocate(load_topology("risk-prod")).addresses
    assert f"router:{addresses['router']['data']}" in services["pool-session"]["extra_hosts"]
    assert f"pool-session:{addresses['pool-session']['app']}" in services["observer"]["extra_hosts"]
    assert f"pg1.control:{addresses['pg1']['control']}" in services["observer"]["extra_hosts"]
    assert f"pg2:{addresses['pg2']['data']}" in services["pg1"]["extra_hosts"]
    assert not any(line.startswith("pg1:") for line in services["pg1"]["extra_hosts"])


def test_networks() -> None:
    networks = networks_of(load_topology("risk-prod"))
    assert networks["pg1"] == ("data", "control")
    assert networks["client"] == ("app", "control")
    assert networks["observer"] == ("app", "data", "control")
    assert all("control" in item for item in networks.values())


@pytest.mark.parametrize(
    ("mode", "flags"), [("off", (False, False)), ("on", (True, False)), ("strict", (True, True))]
)
def test_patroni(mode: str, flags: tuple[bool, bool]) -> None:
    files = rendered(f"postgres.synchronous={mode}")
    config = yaml.safe_load(files["postgres/pg1/patroni.yml"])
    dcs = config["bootstrap"]["dcs"]
    assert (dcs["ttl"], dcs["loop_wait"], dcs["retry_timeout"], dcs["primary_start_timeout"]) == (20, 1, 3, 0)
    assert (dcs["synchronous_mode"], dcs["synchronous_mode_strict"]) == flags
    parameters = dcs["postgresql"]["parameters"]
    assert parameters["password_encryption"] == "scram-sha-256"
    assert parameters["ssl_min_protocol_version"] == "TLSv1.2"
    assert parameters["hot_standby"] == "on"
    assert "data-checksums" in config["bootstrap"]["initdb"]
    assert {"checkpoint": "fast"} in config["postgresql"]["basebackup"]
    remote = [line for line in config["postgresql"]["pg_hba"] if not line.startswith("local ")]
    assert remote
    assert all(line.startswith("hostssl ") for line in remote)
    assert config["postgresql"]["authentication"]["replication"]["sslmode"] == "verify-full"
    # No database gets to another over the control network, past a cut of the data network.
    allocation = allocate(load_topology("risk-prod"))
    for what in ("replication replicator", "all postgres"):
        for network, answer in (("data", "scram-sha-256"), ("control", "reject")):
            address = f"{allocation.addresses['pg2'][network]}/32"
            place = remote.index(f"hostssl {what} {address} {answer}")
            assert not any(
                line.startswith(("hostssl all all", "hostssl replication all")) for line in remote[:place]
            )


def test_tags_by_role() -> None:
    files = rendered()
    tags = {
        n: yaml.safe_load(files[f"postgres/{n}/patroni.yml"])["tags"] for n in ("pg1", "pg2", "pg3", "pg4")
    }
    assert tags["pg1"] == tags["pg2"] == {"noloadbalance": True}
    assert tags["pg3"] == tags["pg4"] == {"nofailover": True, "nosync": True}


def test_max_connections_is_that_of_the_primarys_class() -> None:
    topology = load_topology("risk-prod")
    assert max_connections(topology) == 32 * 1024**3 // 9_531_392
    patroni = yaml.safe_load(rendered()["postgres/pg1/patroni.yml"])
    assert patroni["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"] == str(
        max_connections(topology)
    )
    mine = rendered("postgres.parameters.max_connections=33")
    assert '"33"' in mine["postgres/pg1/patroni.yml"]


def test_only_the_primary_initialises() -> None:
    files = rendered()
    compose = project(files)
    targets = {
        node: {item["target"] for item in compose["services"][node]["configs"]} for node in ("pg1", "pg2")
    }
    assert "/etc/lab/bootstrap.sh" in targets["pg1"]
    assert "/etc/lab/bootstrap.sh" not in targets["pg2"]
    assert "enough=1\n" in files["postgres/pg1/patroni.run"]
    assert "enough=1\n" not in files["postgres/pg2/patroni.run"]


@pytest.mark.parametrize(
    "script",
    ["postgres/pg1/patroni.run", "postgres/pg2/patroni.run", "postgres/pg_rewind", "postgres/bootstrap.sh"],
)
def test_scripts_are_valid_shell(script: str) -> None:
    subprocess.run(["bash", "-n"], input=rendered()[script], text=True, check=True)


def test_pools_keep_the_limits_of_the_document() -> None:
    files = rendered()
    for pooler in load_topology("risk-prod").poolers:
        parser = ini(files[f"pgbouncer/{pooler.name}/pgbouncer.ini"])
        limits = {
            name: int(re.search(r"max_db_connections=(\d+)", value)[1])  # type: ignore[index]
            for name, value in parser["databases"].items()
        }
        assert set(limits) == {"risk", "risk_ro"}
        assert sum(limits.values()) == pooler.max_server_connections
        settings = parser["pgbouncer"]
        assert settings["pool_mode"] == pooler.mode
        assert settings["server_idle_timeout"] == "300"
        assert settings["server_login_retry"] == "0.2"
        assert settings["client_tls_sslmode"] == "require"
        assert settings["server_tls_sslmode"] == "verify-full"
        assert settings["auth_type"] == "scram-sha-256"
        assert settings["stats_users"] == "lab_monitor"


def test_split_limit() -> None:
    assert split_limit(100, 0.6) == (60, 40)
    assert split_limit(2, 0.99) == (1, 1)
    assert all(sum(split_limit(n, 0.6)) == n and min(split_limit(n, 0.6)) >= 1 for n in range(2, 300))


def section(text: str, name: str) -> str:
    return text.split(f"listen {name}\n")[1].split("\nlisten ")[0].split("\nfrontend ")[0]


def test_router_reads_from_replicas_and_never_from_the_hidden_standby() -> None:
    text = rendered()["haproxy/router/haproxy.cfg"]
    write, read = section(text, "write"), section(text, "read")
    assert re.findall(r" server (\w+) ", write) == ["pg1", "pg2"]
    assert re.findall(r" server (\w+) ", read) == ["pg3", "pg4"]
    assert "uri /primary" in write
    assert "uri /replica" in read
    assert "timeout connect 250ms" in text
    assert "inter 250ms fastinter 100ms" in write
    assert "on-marked-down shutdown-sessions" in write
    assert "option redispatch" in text


def test_direct_links_leave_the_proxy_out() -> None:
    files = rendered()
    assert json.loads(files["toxiproxy/toxiproxy/toxiproxy.json"]) == []
    assert "toxiproxy" not in files["pgbouncer/pool-session/pgbouncer.ini"]


def test_proxied_links_go_through_the_proxy() -> None:
    overrides = ["links.*.path=proxied"]
    files = rendered(*overrides)
    topology = load_topology("risk-prod", overrides)
    allocation = allocate(topology)
    proxies = {
        item["listen"]: item["upstream"] for item in json.loads(files["toxiproxy/toxiproxy/toxiproxy.json"])
    }
    ports = proxy_ports(topology)
    assert len(proxies) == len(ports) == 3 + 2 + 4 + 2
    write = ports["router", 5000]
    assert proxies[f"0.0.0.0:{write}"] == f"{allocation.addresses['router']['data']}:5000"
    assert f"host=toxiproxy port={write} " in files["pgbouncer/pool-session/pgbouncer.ini"]
    proxy = allocation.addresses["toxiproxy"]["data"]
    assert (
        f"server pg1 {proxy}:{ports['pg1', 5432]} check addr {allocation.addresses['pg1']['data']}"
        in (files["haproxy/router/haproxy.cfg"])
    )
    found = endpoints(topology, allocation)["pool-session.writer"]
    assert (found.node, found.host, found.port) == ("pool-session", "toxiproxy", ports["pool-session", 6432])
    # One link proxied leaves the ports of the others as they are.
    one = load_topology("risk-prod", ["links.client-redis.path=proxied"])
    assert proxy_ports(one) == ports
    assert (
        len(json.loads(rendered("links.client-redis.path=proxied")["toxiproxy/toxiproxy/toxiproxy.json"]))
        == 2
    )


def test_without_toxiproxy() -> None:
    assert "toxiproxy" not in project(rendered(toxiproxy=False))["services"]
    with pytest.raises(UsageError, match="Toxiproxy could not be had"):
        rendered("links.pooler-router.path=proxied", toxiproxy=False)


def test_endpoints() -> None:
    topology = load_topology("risk-prod")
    allocation = allocate(topology)
    found = endpoints(topology, allocation)
    writer, reader = found["pool-transaction.writer"], found["pool-transaction.reader"]
    assert (writer.database, reader.database) == ("risk", "risk_ro")
    assert writer.address == allocation.addresses["pool-transaction"]["app"]
    assert writer.published_port == reader.published_port == allocation.published["pool-transaction.writer"]
    assert found["router.write"].address == allocation.addresses["router"]["data"]
    assert found["pg1.direct"].host == "pg1.control"
    assert found["pg1.direct"].published_port is None
    assert found["redis1.redis"].port == 6379
    assert found["sentinel3.sentinel"].port == 26379
    assert set(allocation.published) == set(published_ports(topology)) <= set(found)


def test_certificates_name_router_and_proxy() -> None:
    topology = load_topology("risk-prod")
    allocation = allocate(topology)
    names = certificate_names(topology, allocation)
    assert {"pg1", "pg1.control", "localhost", "router", "toxiproxy"} <= set(names["pg1"].dns)
    assert allocation.addresses["pg1"]["control"] in names["pg1"].addresses
    assert {"pool-session", "localhost", "toxiproxy"} <= set(names["pool-session"].dns)
    assert "router" not in names["pool-session"].dns
    assert {"redis1", "sentinel1"} <= set(names)
    assert "etcd1" not in names


def test_tls_off_is_off_everywhere() -> None:
    files = rendered("tls.enabled=false")
    assert "client_tls_sslmode = disable" in files["pgbouncer/pool-session/pgbouncer.ini"]
    assert "tls-port" not in files["redis/redis1/redis.conf"]
    config = yaml.safe_load(files["postgres/pg1/patroni.yml"])
    assert "ssl" not in config["bootstrap"]["dcs"]["postgresql"]["parameters"]
    assert not any(line.startswith("hostssl") for line in config["postgresql"]["pg_hba"])


def test_tls_1_3_only() -> None:
    files = rendered("tls.min_version='1.3'")
    assert "client_tls_protocols = tlsv1.3\n" in files["pgbouncer/pool-session/pgbouncer.ini"]
    assert 'ssl_min_protocol_version: "TLSv1.3"' in files["postgres/pg1/patroni.yml"]


def test_redis_starts_with_the_first_node() -> None:
    files = rendered()
    first = allocate(load_topology("risk-prod")).addresses["redis1"]["app"]
    assert "replicaof" not in files["redis/redis1/redis.conf"]
    assert f"replicaof {first} 6379\n" in files["redis/redis2/redis.conf"]
    for number in (1, 2, 3):
        assert f"sentinel monitor cache {first} 6379 2\n" in files[f"redis/sentinel{number}/sentinel.conf"]


def test_redis_refuses_writes_without_replicas_only_where_it_is_asked_to() -> None:
    assert "min-replicas" not in "".join(rendered().values())
    files = rendered("cache.min_replicas=1", "cache.min_replicas_max_lag=2")
    for node in ("redis1", "redis2"):
        lines = files[f"redis/{node}/redis.conf"].splitlines()
        assert {"min-replicas-to-write 1", "min-replicas-max-lag 2", "tcp-keepalive 10"} <= set(lines)
    with pytest.raises(UsageError, match="min_replicas is 2, but there are 1 replicas"):
        rendered("cache.min_replicas=2")


def test_smaller_topologies_render() -> None:
    topology = load_topology("risk-prod")
    nodes = topology.postgres.nodes[:1]
    small = Topology.model_validate(
        topology.model_dump()
        | {
            "postgres": topology.postgres.model_dump() | {"nodes": [nodes[0].model_dump()]},
            "etcd": [{"name": "etcd1"}],
            "cache": None,
            "proxy": None,
            "routers": [],
            "links": [],
        }
    )
    files = render(small, allocate(small))
    assert "host=pg1 port=5432" in files["pgbouncer/pool-session/pgbouncer.ini"]
    assert not any(key.startswith(("redis/", "haproxy/", "toxiproxy/")) for key in files)


def test_a_router_in_front_of_a_database_alone_looks_at_its_port() -> None:
    topology = load_topology("risk-prod")
    single = topology.postgres.model_copy(
        update={"high_availability": "none", "nodes": topology.postgres.nodes[:1]}
    )
    files = render(topology.model_copy(update={"postgres": single, "etcd": ()}), allocate(topology))
    assert "httpchk" not in files["haproxy/router/haproxy.cfg"]
    assert "server pg1" in files["haproxy/router/haproxy.cfg"]
    assert not any("patroni" in path for path in files)
