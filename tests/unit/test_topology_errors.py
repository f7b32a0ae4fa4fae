"""Errors of a topology that is written by hand: one for each mistake, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.topology.loader import load_topology


def test_a_wrong_item_is_one_error_and_not_a_short_list(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "extends: risk-dev\nname: own\nenvironment: dev\ntitle: Own\npostgres:\n  nodes:\n"
        "    - {name: pg1, role: primary, instance_class: db.t3.medum, zone: a}\n"
    )
    with pytest.raises(UsageError, match=r"own\.yaml:7:34: postgres\.nodes\.pg1\.instance_class") as caught:
        load_topology(path)
    assert "at least 1 item" not in str(caught.value)
    path.write_text(path.read_text().rpartition("\n    -")[0].replace("nodes:", "nodes: []") + "\n")
    with pytest.raises(UsageError, match="at least 1 item"):
        load_topology(path)


def test_two_nodes_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("extends: risk-uat\nname: own\ntitle: Own\nobserver: {name: pg1, zone: a}\n")
    with pytest.raises(UsageError, match=r"own\.yaml:1:1: node names must be unique, found twice: pg1"):
        load_topology(path)
