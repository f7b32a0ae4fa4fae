"""The fourteen environments as data; what they share; instance classes, and what stands in for what."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import yaml

from lab.deploy.allocation import Allocation
from lab.deploy.differences import notes, stand_ins, substitutions
from lab.deploy.endpoints import application_endpoints, endpoints, networks_of
from lab.deploy.parameters import max_connections
from lab.deploy.render import render
from lab.deploy.secret_names import application_role, document_roles
from lab.errors import UsageError
from lab.topology.instances import INSTANCE_CLASSES, instance_class, serverless
from lab.topology.loader import list_topologies, load_topology
from lab.topology.models import Topology
from lab.topology.sizing import resources_for, scale_for, size_of
from tests.fix_topology import allocate

NAMES = [
    "clinical-dev", "clinical-prod", "dora-dev", "dora-prod", "dora-staging", "experimentation-dev",
    "experimentation-prod", "experimentation-staging", "innovate-dev", "innovate-prod", "innovate-staging",
    "risk-dev", "risk-prod", "risk-uat",
]  # fmt: skip

# What the documents say: version, (role, class) of every instance, Multi-AZ zones, Redis, poolers' roles.
PAPER = {
    "risk-dev": ("14", [("primary", "db.t3.medium")]),
    "risk-uat": ("14", [("primary", "db.t3.large"), ("replica", "db.t3.medium")]),
    "risk-prod": (
        "14",
        [("primary", "db.r5.xlarge"), ("standby", "db.r5.xlarge"), *[("replica", "db.r5.large")] * 2],
    ),
    "dora-dev": ("any", [("primary", "custom")]),
    "dora-staging": ("any", [("primary", "custom"), ("reader", "custom")]),
    "dora-prod": ("any", [("primary", "custom"), *[("reader", "custom")] * 2]),
    "clinical-dev": ("15.4", [("primary", "db.serverless")]),
    "clinical-prod": ("15.4", [("primary", "db.serverless"), *[("reader", "db.serverless")] * 2]),
    "innovate-dev": ("any", [("primary", "db.t3.small")]),
    "innovate-staging": ("any", [("primary", "db.t3.medium")]),
    "innovate-prod": ("any", [("primary", "db.m6i.large"), ("standby", "db.m6i.large")]),
    "experimentation-dev": ("15.3", [("primary", "db.t3.medium")]),
    "experimentation-staging": ("15.3", [("primary", "db.t3.medium"), ("reader", "db.t3.medium")]),
    "experimentation-prod": ("15.3", [("primary", "db.r5.large"), ("reader", "db.r5.large")]),
}


def test_all_fourteen_are_there() -> None:
    assert list_topologies() == sorted(NAMES) == sorted(PAPER)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_document_says(name: str) -> None:
    found, (version, nodes) = load_topology(name), PAPER[name]
    assert f"{found.system}-{found.environment}" == found.name == name
    assert found.postgres.version == version
    assert [(node.role, node.instance_class) for node in found.postgres.nodes] == nodes
    # Multi-AZ: no two of those that may lead share a zone.
    zones = [node.zone for node in found.postgres.promotable]
    assert len(set(zones)) == len(zones)
    # One node alone: no Patroni theatre.
    alone = len(nodes) == 1
    assert (found.postgres.high_availability == "none") == alone
    assert bool(found.etcd) == bool(found.routers) == (not alone)


def test_what_the_documents_say_of_caches_proxies_and_tls() -> None:
    classes = {name: cache.instance_class for name in NAMES if (cache := load_topology(name).cache)}
    assert {k: v for k, v in classes.items() if k.startswith("risk")} == {
        "risk-dev": "cache.t3.micro",
        "risk-uat": "cache.t3.small",
        "risk-prod": "cache.r6g.large",
    }
    assert {name.partition("-")[0] for name in classes} == {"risk", "dora"}
    proxies = {n: [p.role for p in load_topology(n).poolers] for n in NAMES if load_topology(n).poolers}
    assert proxies == {
        **{f"risk-{env}": ["pool"] * 3 for env in ("dev", "uat", "prod")},
        "dora-staging": ["pool"],
        "dora-prod": ["pool"],
        "clinical-prod": ["proxy"],
    }
    strict = {name for name in NAMES if load_topology(name).tls.min_version == "1.3"}
    assert {name.partition("-")[0] for name in strict} == {"dora", "clinical"}
    sentinels = {n for n in NAMES if (c := load_topology(n).cache) and len(c.sentinels) == 3}
    assert sentinels == {"risk-prod", "dora-staging", "dora-prod"}


@pytest.mark.parametrize("name", NAMES)
def test_every_one_renders_with_endpoints_for_writing_and_reading(name: str) -> None:
    topology = load_topology(name)
    allocation = allocate(topology)
    files = render(topology, allocation)
    compose = yaml.safe_load(files["compose.yaml"])
    assert set(compose["services"]) == {member.name for member in topology.members()}
    known = endpoints(topology, allocation)
    client = networks_of(topology)[topology.clients[0].name]
    for pair in application_endpoints(topology):
        for endpoint in pair:
            place = known[endpoint]
            assert place.database
            # The client shares a network with it that is no control network: faults are felt there.
            assert set(client) & set(networks_of(topology)[place.node]) - {"control"}
            assert place.address == allocation.addresses[place.node]["app"]
    role = application_role(topology)
    assert role in document_roles(topology)
    assert role == ("app_user" if topology.system == "innovate" else "app_readwrite")


def test_a_database_alone_has_neither_patroni_nor_etcd() -> None:
    topology = load_topology("experimentation-dev")
    files = render(topology, allocate(topology))
    names = {Path(path).name for path in files}
    assert {"postgres.run", "postgresql.conf", "pg_hba.conf", "postgres.stop", "bootstrap.sh"} <= names
    assert not {"patroni.yml", "patroni.run", "pg_rewind", "etcd.yml", "haproxy.cfg"} & names
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string("[x]\n" + files["postgres/pg1/postgresql.conf"])
    assert parser["x"]["max_connections"] == "'450'"
    assert "hostssl all all" in files["postgres/pg1/pg_hba.conf"]


def haproxy(name: str) -> dict[str, str]:
    """Sections of the router's configuration."""
    topology = load_topology(name)
    text = render(topology, allocate(topology))["haproxy/router/haproxy.cfg"]
    return {part.split()[0]: part for part in text.split("\nlisten ")[1:]}


def test_who_serves_reads() -> None:
    """Multi-AZ: the primary, nobody else. Aurora: any reader, the old primary too. RDS: the read replicas."""
    multi_az, aurora, replicas = (
        haproxy(name)["read"] for name in ("innovate-prod", "experimentation-prod", "risk-prod")
    )
    assert "uri /primary" in multi_az
    assert "backup" not in multi_az
    assert "uri /replica" in aurora
    # Whoever leads serves the reads while no reader does, and lets go of them when one is back.
    servers = [line.split() for line in aurora.splitlines() if "    server " in line]
    assert [words[1] for words in servers] == ["pg1", "pg2", "pg1-leads", "pg2-leads"]
    assert all("shutdown-backup-sessions" in words for words in servers[:2])
    assert [words[-2:] for words in servers[2:]] == [["write/pg1", "backup"], ["write/pg2", "backup"]]
    assert "uri /replica" in replicas
    assert [line.split()[1] for line in replicas.splitlines() if "    server " in line] == ["pg3", "pg4"]


def test_patronis_tags_follow_the_roles() -> None:
    def tags(name: str) -> dict[str, dict[str, bool]]:
        topology = load_topology(name)
        files = render(topology, allocate(topology))
        return {
            n.name: yaml.safe_load(files[f"postgres/{n.name}/patroni.yml"])["tags"]
            for n in topology.postgres.nodes
        }

    assert tags("experimentation-prod") == {"pg1": {}, "pg2": {}}
    assert tags("innovate-prod") == {"pg1": {"noloadbalance": True}, "pg2": {"noloadbalance": True}}
    assert tags("risk-uat") == {"pg1": {"noloadbalance": True}, "pg2": {"nofailover": True, "nosync": True}}


# --- what they share


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


BASE = """\
system: mine
environment: test
title: Mine
document: none
postgres:
  version: "15"
  database: mine
  schema_set: risk
  high_availability: none
  parameters: {work_mem: 8MB, jit: off}
  nodes:
    - {name: pg1, role: primary, instance_class: db.t3.small}
cache:
  nodes: [{name: redis1}]
"""


def test_a_file_wins_over_its_base_field_by_field(tmp_path: Path) -> None:
    write(
        tmp_path,
        bases__base=BASE,
        bases__middle="extends: base\ntitle: Middle\npostgres: {parameters: {work_mem: 16MB}}\n",
        mine="extends: middle\nname: mine\npostgres: {data_scale: 3}\ncache: null\n",
    )
    found = load_topology(tmp_path / "mine.yaml")
    assert (found.title, found.postgres.data_scale, found.cache) == ("Middle", 3, None)
    assert found.postgres.parameters == {"work_mem": "16MB", "jit": "off"}
    assert [node.name for node in found.postgres.nodes] == ["pg1"]


def test_a_list_replaces_the_bases_list_as_a_whole(tmp_path: Path) -> None:
    nodes = "postgres: {nodes: [{name: db, role: primary, instance_class: db.t3.large}]}\n"
    write(tmp_path, base=BASE, mine=f"extends: ./base.yaml\nname: mine\n{nodes}")
    assert [node.name for node in load_topology(tmp_path / "mine.yaml").postgres.nodes] == ["db"]


def test_one_can_extend_a_topology_of_the_labs_own(tmp_path: Path) -> None:
    write(tmp_path, mine="extends: risk-prod\nname: mine\npostgres: {synchronous: strict}\n")
    found = load_topology(tmp_path / "mine.yaml")
    assert found.postgres.synchronous == "strict"
    assert len(found.members()) == len(load_topology("risk-prod").members())


def test_errors_keep_the_file_and_line_of_the_base_or_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, base=BASE.replace("t3.small", "t3.smal"), mine="extends: ./base.yaml\nname: Mine!\n")
    with pytest.raises(UsageError) as caught:
        load_topology(tmp_path / "mine.yaml")
    lines = str(caught.value).splitlines()
    assert any(f"{tmp_path}/base.yaml:12:" in line and "did" not in line for line in lines), lines
    assert any("unknown instance class 'db.t3.smal'" in line for line in lines), lines
    assert any(line.startswith(f"{tmp_path}/mine.yaml:2:1: name: ") for line in lines), lines


def test_a_field_that_nobody_gives_is_missed_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, base=BASE, mine="# nothing of its own\nextends: ./base.yaml\n")
    with pytest.raises(UsageError, match=r"mine\.yaml:\d+:1: name: this field is required"):
        load_topology(tmp_path / "mine.yaml")


def test_bases_in_a_circle_are_named_in_their_order(tmp_path: Path) -> None:
    write(tmp_path, a="extends: ./b.yaml\n", b="x: 1\nextends: ./c.yaml\n", c="extends: ./a.yaml\n")
    with pytest.raises(UsageError, match=r"c\.yaml:1:1: extends: a circle: a → b → c → a"):
        load_topology(tmp_path / "a.yaml")
    write(tmp_path, own="extends: ./own.yaml\n")
    with pytest.raises(UsageError, match=r"own\.yaml:1:1: extends: a circle: own → own"):
        load_topology(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("extends", "says"),
    [
        ("rsik", r"x\.yaml:2:1: extends: no base 'rsik'; did you mean 'risk'"),
        ("[risk]", r"x\.yaml:2:1: extends: expected the name or the path of a base"),
        ("", r"x\.yaml:2:1: extends: expected"),
        ("./gone.yaml", r"gone\.yaml: cannot read"),
    ],
)
def test_a_wrong_base(tmp_path: Path, extends: str, says: str) -> None:
    write(tmp_path, x=f"name: x\nextends: {extends}\n")
    with pytest.raises(UsageError, match=says):
        load_topology(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("{name: pg1, role: primary, instance_class: db.r5.lage}", "unknown instance class 'db.r5.lage'"),
        ("{name: pg1, role: primary, instance_class: cache.r6g}", "unknown instance class"),
        ("{name: pg1, role: primary, instance_class: db.serverless}", "and acu belong together"),
        (
            "{name: pg1, role: primary, instance_class: db.serverless, acu: {minimum: 4, maximum: 2}}",
            "minimum must not be more than maximum: 4 > 2",
        ),
        (
            "{name: pg1, role: primary, instance_class: db.serverless, acu: {minimum: 0.3, maximum: 2}}",
            "multiple of 0.5",
        ),
        (
            "{name: pg1, role: primary, instance_class: custom, vcpu: 2}",
            "and memory_gib belong together",
        ),
        ("{name: pg1, role: primary, instance_class: db.t3.small, vcpu: 2}", "belong together"),
        ("{name: pg1, role: leader, instance_class: db.t3.small}", "'reader' or 'replica'"),
    ],
)
def test_wrong_sizes_and_roles(tmp_path: Path, wrong: str, says: str) -> None:
    write(tmp_path, mine="name: mine\n" + BASE.replace(
        "{name: pg1, role: primary, instance_class: db.t3.small}", wrong))  # fmt: skip
    with pytest.raises(UsageError) as caught:
        load_topology(tmp_path / "mine.yaml")
    assert says in str(caught.value)
    assert "mine.yaml:13:" in str(caught.value)


# --- instance classes


def test_connections_follow_from_memory_and_from_the_largest_capacity() -> None:
    formula = {"db.t3.small": 225, "db.t3.medium": 450, "db.r5.large": 1802, "db.r5.xlarge": 3604}
    assert {name: instance_class(name).max_connections for name in formula} == formula
    assert instance_class("db.r5.2xlarge").max_connections == 5000
    assert [serverless(acu).max_connections for acu in (1, 4, 8, 16, 32, 64)] == [
        189, 823, 1669, 3360, 5000, 5000,
    ]  # fmt: skip
    assert serverless(2).max_connections == 400  # on the line between 1 and 4
    assert serverless(16, minimum=0.5).max_connections == 2000
    assert serverless(4, minimum=0.5).max_connections == 823


@pytest.mark.parametrize("name", NAMES)
def test_connections_are_never_scaled(name: str) -> None:
    topology = load_topology(name)
    assert max_connections(topology) == size_of(topology.postgres.primary).max_connections
    small = allocate(topology, cores=0.5, memory_bytes=1024**3)
    large = allocate(topology, cores=64, memory_bytes=512 * 1024**3)
    assert small.scale < large.scale
    for allocation in (small, large):
        text = "".join(render(topology, allocation).values())
        assert f'max_connections: "{max_connections(topology)}"' in text or (
            f"max_connections = '{max_connections(topology)}'" in text
        )


def test_prices_grow_with_size_within_a_family() -> None:
    families: dict[str, list[str]] = {}
    for name in INSTANCE_CLASSES:
        families.setdefault(name.rpartition(".")[0], []).append(name)
    assert set(families) == {"db.t3", "db.m6i", "db.r5", "cache.t3", "cache.r6g"}
    for members in families.values():
        prices = [INSTANCE_CLASSES[name].price for name in members]
        memory = [INSTANCE_CLASSES[name].memory_gib for name in members]
        assert None not in prices
        assert prices == sorted(prices)  # type: ignore[type-var]
        assert memory == sorted(memory)
    assert instance_class("db.r5.24xlarge").price == pytest.approx(12.0)
    assert serverless(1).aurora_price == 0.12


def test_a_capacity_beyond_the_machine_is_scaled_down_with_a_notice() -> None:
    topology = load_topology("clinical-prod")
    scale = scale_for(topology, 2, 8 * 1024**3)
    limits, told = resources_for(topology, scale)
    assert limits["pg1"].memory_bytes == 32 * 1024**3 * scale
    assert any("pg1 is serverless, 1 to 16 ACU: held at the largest" in text for text in told)


# --- what stands in for what


def allocation_of(topology: Topology, version: str) -> Allocation:
    return allocate(topology).model_copy(update={"postgres_version": version})


@pytest.mark.parametrize(
    ("name", "runs", "said"),
    [
        ("risk-prod", "15.20", ["PostgreSQL 14 → 15.20"]),
        ("risk-prod", "14.9", []),
        ("clinical-prod", "15.20", ["PostgreSQL 15.4 → 15.20"]),
        ("clinical-prod", "15.4", []),
        ("experimentation-dev", "15.30", ["PostgreSQL 15.3 → 15.30"]),
        ("innovate-prod", "15.20", []),
    ],
)
def test_substituted_versions(name: str, runs: str, said: list[str]) -> None:
    topology = load_topology(name)
    allocation = allocation_of(topology, runs)
    assert substitutions(topology, allocation) == said
    assert any("PostgreSQL substituted" in note for note in notes(topology, allocation)) == bool(said)


def test_stand_ins_are_named() -> None:
    clinical = stand_ins(load_topology("clinical-prod"))
    assert "pins" in clinical["proxy"]
    assert clinical["failover"] == "Patroni for Aurora failover"
    assert "shared storage" in clinical["storage"]
    assert stand_ins(load_topology("innovate-prod"))["failover"] == "Patroni for RDS Multi-AZ"
    assert "proxy" not in stand_ins(load_topology("risk-prod"))
    assert stand_ins(load_topology("dora-prod")) == {}
    assert stand_ins(load_topology("innovate-dev")) == {}


def test_what_is_not_built_is_told() -> None:
    topology = load_topology("dora-prod")
    told = notes(topology, allocate(topology))
    for part in ("MongoDB", "Neo4j", "InfluxDB"):
        assert any(text.startswith(f"not built: {part}") for text in told)
