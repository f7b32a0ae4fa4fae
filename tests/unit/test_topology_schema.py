"""The published JSON schemas are current, and know every field that a file of the lab uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.topology.document import read_document
from lab.topology.loader import TOPOLOGY_DIR
from lab.topology.models import Topology
from lab.topology.schema import KINDS, schema, text

DOCS = Path(__file__).resolve().parents[2] / "docs" / "schema"
FILES = sorted(TOPOLOGY_DIR.rglob("*.yaml"))
TOPOLOGY = schema("topology")


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schema_is_current(kind: str) -> None:
    published = (DOCS / f"{kind}.schema.json").read_text(encoding="utf-8")
    assert published == text(kind), f"lab schema {kind} > docs/schema/{kind}.schema.json"


def unknown(value: Any, rule: dict[str, Any], path: str = "") -> list[str]:
    """Fields of a document that a schema does not know."""
    if "$ref" in rule:
        rule = TOPOLOGY["$defs"][rule["$ref"].rpartition("/")[2]]
    if "anyOf" in rule:
        return min((unknown(value, one, path) for one in rule["anyOf"]), key=len)
    if isinstance(value, list):
        return [bad for item in value for bad in unknown(item, rule.get("items", {}), path)]
    if isinstance(value, dict):
        if rule.get("type") != "object":
            return [path]
        known, more = rule.get("properties", {}), rule.get("additionalProperties", True)
        found = [f"{path}.{key}" for key in value if key not in known and more is False]
        for key in value.keys() & known.keys():
            found += unknown(value[key], known[key], f"{path}.{key}")
        return found
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_knows_every_field_of_every_file(path: Path) -> None:
    assert unknown(read_document(path).data, TOPOLOGY) == []
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == DOCS / "topology.schema.json"


def test_it_refuses_what_it_does_not_know() -> None:
    wrong = {"name": "x", "poolers": [{"name": "p", "mood": "session"}], "postgres": {"patroni": {"tll": 1}}}
    assert sorted(unknown(wrong, TOPOLOGY)) == [".poolers.mood", ".postgres.patroni.tll"]


def test_what_is_required_is_so_unless_a_base_may_give_it() -> None:
    assert "required" not in TOPOLOGY
    assert TOPOLOGY["if"] == {"not": {"required": ["extends"]}}
    whole = {name for name, field in Topology.model_fields.items() if field.is_required()}
    assert set(TOPOLOGY["then"]["required"]) == whole
    assert "nodes" in TOPOLOGY["then"]["properties"]["postgres"]["then"]["required"]
    # A list is given whole, so that its items are.
    assert set(TOPOLOGY["$defs"]["DatabaseNode"]["required"]) == {"name", "role", "instance_class"}
    assert TOPOLOGY["$defs"]["Member"]["required"] == ["name"]


def test_every_field_is_described_where_its_name_does_not_say_it_all() -> None:
    described = [name for name, rule in TOPOLOGY["properties"].items() if "description" in rule]
    assert {"instances", "not_built", "workload", "targets", "extends", "proxy"} <= set(described)


def test_it_is_json_that_others_read() -> None:
    assert json.loads(text("topology")) == TOPOLOGY
    assert TOPOLOGY["$schema"].startswith("https://json-schema.org/")
