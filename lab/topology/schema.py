"""The JSON schemas of the files that users write, for editors that complete and check them.

``lab schema topology`` prints one; ``docs/schema/`` holds them, and a test keeps them current.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from lab.topology.loader import EXTENDS
from lab.topology.models import Topology
from lab.topology.workload import WorkloadFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS: dict[str, type[BaseModel]] = {"topology": Topology, "workload": WorkloadFile}


def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind of file. KeyError where there is no such kind.

    What a topology extends may give any of its fields, and any field of a mapping in it, but never a part of
    a list's item: so what is required otherwise is not where a file extends another.
    """
    made = KINDS[kind].model_json_schema(by_alias=True)
    made = {
        "$schema": DIALECT,
        "title": f"A {kind} of the lab",
        **{k: v for k, v in made.items() if k != "title"},
    }
    if kind == "topology":
        _allow_extending(made)
    return made


def text(kind: str) -> str:
    """The schema as it stands in ``docs/schema/``."""
    return json.dumps(schema(kind), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _allow_extending(made: dict[str, Any]) -> None:
    made["properties"][EXTENDS] = {
        "type": "string",
        "description": "A base, by name or by a path with a / in it, whose fields this file changes.",
    }
    whole: dict[str, Any] = {"required": made.pop("required"), "properties": {}}
    # Items of lists are whole always.
    items = set(re.findall(r'"items": \{"\$ref": "#/\$defs/(\w+)"', json.dumps(made)))
    for name, value in made["properties"].items():
        for found in set(_mappings(value)) - items:
            definition = made["$defs"][found]
            if "required" in definition:
                whole["properties"][name] = {"required": definition.pop("required")}
    # An object only: `cache: null` takes away what the base has.
    for name, needs in whole["properties"].items():
        whole["properties"][name] = {"if": {"type": "object"}, "then": needs}
    made["if"] = {"not": {"required": [EXTENDS]}}
    made["then"] = whole


def _mappings(value: dict[str, Any]) -> list[str]:
    """Names of the definitions that a field itself refers to (and no list of them)."""
    refs = [value, *value.get("anyOf", ())]
    return [ref["$ref"].rpartition("/")[2] for ref in refs if "$ref" in ref]
