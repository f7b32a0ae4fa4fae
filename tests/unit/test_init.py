"""``lab init``: what it writes is what the other commands take, for every shape; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lab import cli
from lab.commands.init import read_schema
from lab.deploy.allocate import sample_allocation
from lab.deploy.render import render
from lab.deploy.secret_names import application_role, document_roles
from lab.errors import Exit, UsageError
from lab.scenario.loader import load_scenario
from lab.scenario.plan import make_plan
from lab.topology.loader import load_topology
from lab.topology.scaffold import Answers, WeightedScript, named_roles, prepared_schema
from lab.topology.workload import load_workload_file
from reports.targets import load_targets

SHAPES = {
    "default": [],
    "alone": ["--standbys", "0", "--pooler", "none"],
    "aurora-like": ["--readers", "2", "--pooler", "session", "--cache"],
    "replicas": ["--replicas", "1", "--standbys", "0", "--pooler", "none"],
    "everything": [
        "--standbys",
        "1",
        "--readers",
        "1",
        "--replicas",
        "1",
        "--pooler",
        "statement",
        "--cache",
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_writes_fits_together(shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / shape
    assert cli.run(["init", str(folder), "--rate", "20", "--json", *SHAPES[shape]]) == Exit.MET
    assert json.loads(capsys.readouterr().out)["topology"] == shape
    topology = load_topology(folder / "topology.yaml")
    files = render(topology, sample_allocation("x", topology))
    assert "CREATE TABLE item" in files["postgres/sql/schema.sql"]
    assert document_roles(topology) == ("app",)
    assert application_role(topology) == "app"
    workload = load_workload_file(topology.workload or "")
    assert [(s.name, s.weight, s.reads) for s in workload.scripts] == [
        ("read item", 9, True),
        ("change item", 1, False),
    ]
    scenarios = {path.stem: load_scenario(path) for path in (folder / "scenarios").glob("*.yaml")}
    for scenario in scenarios.values():
        make_plan(scenario, topology, sample_allocation("x", topology), 1)
        assert scenario.load.workload == "custom"
    named = {name for target in load_targets(topology.targets or "").targets for name in target.scenarios}
    assert named <= set(scenarios)
    assert {target.id for target in load_targets(topology.targets or "").targets} > {"latency"}


def test_a_schema_and_scripts_of_ones_own(tmp_path: Path) -> None:
    dump = (
        "SET transaction_timeout = 0;\nCREATE TABLE public.t (id int);\nALTER TABLE public.t OWNER TO shop;\n"
        'GRANT SELECT ON TABLE public.t TO "Some One";\n'
    )
    (tmp_path / "dump.sql").write_text(dump)
    (tmp_path / "look-up.sql").write_text("SELECT count(*) FROM t;")
    (tmp_path / "add.sql").write_text("\\set n random(1, 9)\nINSERT INTO t VALUES (:n);")
    arguments = ["--schema", str(tmp_path / "dump.sql"), "--script", f"{tmp_path}/look-up.sql@7"]
    arguments += ["--script", f"{tmp_path}/add.sql", "--json"]
    assert cli.run(["init", str(tmp_path / "shop"), *arguments]) == Exit.MET
    topology = load_topology(tmp_path / "shop" / "topology.yaml")
    files = render(topology, sample_allocation("x", topology))
    assert 'CREATE ROLE "Some One";\nCREATE ROLE shop;' in files["postgres/sql/roles.sql"]
    assert "transaction_timeout" not in files["postgres/sql/schema.sql"]
    assert "generate_series" not in files["postgres/sql/data.sql"]
    scripts = load_workload_file(topology.workload or "").scripts
    assert [(s.name, s.weight, s.reads) for s in scripts] == [("look up", 7, True), ("add", 1, False)]


def test_it_writes_over_nothing_unless_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "topology.yaml").write_text("precious")
    assert cli.run(["init", str(tmp_path / "mine"), "--json"]) == Exit.USAGE
    assert "holds topology.yaml already" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "mine" / "topology.yaml").read_text() == "precious"
    assert cli.run(["init", str(tmp_path / "mine"), "--json", "--force"]) == Exit.MET
    assert yaml.safe_load((tmp_path / "mine" / "topology.yaml").read_text())["name"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--schema", "/nowhere.sql"], "/nowhere.sql: cannot read the schema"),
        (["--script", "/nowhere.sql@3"], "/nowhere.sql: cannot read the script"),
        (["--script", "{bad}"], "bad.sql:2: variable :x has no value"),
        (["--schema", "{created}"], "makes or enters a database of its own"),
        (["--name", "Not A Name"], "name: string should match pattern"),
        (["--pooler", "other"], "'other' is not one of"),
    ],
)
def test_wrong_answers(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.sql").write_text("SELECT 1;\nSELECT :x;")
    (tmp_path / "created.sql").write_text("CREATE DATABASE x;\n\\connect x\n")
    places = {"bad": tmp_path / "bad.sql", "created": tmp_path / "created.sql"}
    given = [text.format(**places) for text in arguments]
    assert cli.run(["init", str(tmp_path / "new"), "--json", *given]) == Exit.USAGE
    # The terminal breaks lines where it likes.
    assert "".join(says.split()) in "".join(capsys.readouterr().err.split())


def test_roles_of_a_dump() -> None:
    assert named_roles("ALTER TABLE a.b OWNER TO postgres;\nGRANT ALL ON SCHEMA x TO Reports;\n") == [
        "reports"
    ]
    assert named_roles("REVOKE ALL ON SCHEMA x FROM PUBLIC;\nGRANT pg_monitor TO app;") == []
    assert prepared_schema("SELECT 1;") == "SELECT 1;"


@pytest.mark.parametrize(
    ("text", "reads"),
    [("SELECT 1", True), ("select * from t for update", False), ("SELECT nextval('s')", False),
     ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", False), ("VACUUM", False)],
)  # fmt: skip
def test_scripts_that_only_read(text: str, reads: bool) -> None:
    assert WeightedScript("x", text).reads == reads


def test_roles_of_the_databases() -> None:
    assert Answers("x", standbys=1, readers=1, replicas=2).roles == [
        "primary", "standby", "reader", "replica", "replica",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "mine"),
    [
        ("CREATE SCHEMA lab;", False),
        ('create schema if not exists "lab" ;', False),
        ("CREATE SCHEMA lab AUTHORIZATION me;", False),
        ("CREATE SCHEMA labour;", True),
        ("-- CREATE SCHEMA lab;", True),
    ],
)
def test_the_labs_own_schema_is_not_taken_from_a_dump(tmp_path: Path, line: str, mine: bool) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_text(f"SET x = 1;\n\n{line}\n")
    if mine:
        assert read_schema(dump) == dump.read_text()
        return
    with pytest.raises(UsageError, match=r"dump\.sql, line 3: the schema lab is the lab's own") as caught:
        read_schema(dump)
    assert "--exclude-schema=lab" in str(caught.value.hint)
