"""Checksums of tables on a real PostgreSQL: equal on all nodes, and one changed row is noticed."""

from __future__ import annotations

import time

from lab.deploy.docker_driver import DockerLab
from lab.deploy.readiness import wait_ready
from lab.scenario.last_look import checksums


def sql(lab: DockerLab, text: str) -> None:
    """Run statements on the primary, as the superuser."""
    for node in lab.topology.postgres.nodes:
        words = ["psql", "-XAtq", "-h", "/run/postgresql", "-d", lab.topology.postgres.database]
        asked = lab.nodes[node.name].run([*words, "-c", "SELECT pg_is_in_recovery()"], user="postgres")
        if asked.stdout.strip() == "f":
            lab.nodes[node.name].run([*words, "-v", "ON_ERROR_STOP=1", "-c", text], user="postgres")
            return
    raise AssertionError("no primary")


def settled(lab: DockerLab) -> dict[str, dict[str, list[object]]]:
    """Node → table → checksum, once all nodes agree (or after 20 s as they are)."""
    deadline = time.monotonic() + 20
    while True:
        found = checksums(lab)
        assert [one["why"] for one in found.values()] == [""] * len(found)
        tables = {node: one["tables"] for node, one in found.items()}
        first = next(iter(tables.values()))
        if all(one == first for one in tables.values()) or time.monotonic() > deadline:
            return tables
        time.sleep(0.5)


def test_one_changed_row_changes_the_sum_of_its_table_alone(lab_risk_prod: DockerLab) -> None:
    lab = lab_risk_prod
    wait_ready(lab)
    try:
        sql(
            lab,
            "CREATE SCHEMA look; CREATE TABLE look.a (id int PRIMARY KEY, t text, at timestamptz);"
            "CREATE TABLE look.b AS SELECT 1 AS _row_; "
            "INSERT INTO look.a SELECT i, 'row ' || i, 'epoch'::timestamptz + i * interval '1 day'"
            " FROM generate_series(1, 1000) AS i",
        )
        before = settled(lab)
        assert len({str(tables) for tables in before.values()}) == 1
        assert len(before["pg1"]) > 20
        assert before["pg1"]["look.a"][0] == 1000
        for change in (
            "UPDATE look.a SET t = 'row 501' WHERE id = 500",
            "UPDATE look.a SET at = at + interval '1 microsecond' WHERE id = 7",
            "DELETE FROM look.a WHERE id = 1000; INSERT INTO look.a VALUES (1000, NULL, NULL)",
        ):
            sql(lab, change)
            after = settled(lab)
            assert len({str(tables) for tables in after.values()}) == 1
            changed = [name for name, one in after["pg1"].items() if one != before["pg1"][name]]
            assert changed == ["look.a"]
            assert after["pg1"]["look.a"][0] == 1000
            before = after
        sql(lab, "UPDATE look.a SET id = -id; UPDATE look.a SET id = -id")
        sql(lab, "VACUUM FULL look.a")
        assert settled(lab)["pg1"]["look.a"] == before["pg1"]["look.a"]  # the rows' order is no content
    finally:
        sql(lab, "DROP SCHEMA IF EXISTS look CASCADE")
