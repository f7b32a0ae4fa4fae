"""YAML documents that become pydantic models, with errors that name file, line, field and expectation.

YAML is read as its version 1.2 core schema (``on`` and ``off`` are text, only ``true`` and ``false`` are
booleans), without merge keys, tags or duplicate keys, and within limits of size, depth and number of values,
so that a hostile or damaged file is one clear error.
"""

from __future__ import annotations

import copy
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lab.errors import UsageError

MAX_BYTES = 1 << 20
"""Largest file that is read."""
MAX_VALUES = 50_000
"""Most values that a document may hold once its aliases are expanded."""
MAX_DEPTH = 40

Path_ = tuple[str | int, ...]
_M = TypeVar("_M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars as YAML 1.2 does."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?[0-9]{1,30}", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


@dataclass(frozen=True)
class Mark:
    """Where a value stands."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.source
        return f"{self.source}:{self.line}:{self.column}"


@dataclass
class Document:
    """Plain data, and where each of its fields stands."""

    data: dict[str, Any]
    marks: dict[Path_, Mark]

    def mark(self, path: Path_) -> Mark:
        """Of the field itself, or of the nearest one around it."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks[path]


def load_document(
    path: Path | str, model: type[_M], overrides: Sequence[str] = (), *, kind: str = "document"
) -> _M:
    """Read a YAML file, apply overrides, validate it. UsageError says what is wrong, and where."""
    document = read_document(Path(path), kind=kind)
    for override in overrides:
        apply_override(document, override, model)
    return validate(document, model)


def read_document(path: Path, *, kind: str = "document") -> Document:
    """Read a YAML file whose top level is a mapping."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read the {kind}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{str(path)!r}: not a file name") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES} bytes, so hardly a {kind}")
    return parse_document(raw, str(path), kind=kind)


def parse_document(raw: bytes | str, source: str, *, kind: str = "document") -> Document:
    """Parse YAML text whose top level is a mapping; ``source`` names it in errors."""
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: not UTF-8 text (byte {error.start})") from error
    kept = _parsed(text, source, kind)
    return Document(copy.deepcopy(kept.data), dict(kept.marks))


@lru_cache(maxsize=256)
def _parsed(text: str, source: str, kind: str) -> Document:
    """Parsing is slow, and a verification asks for the same scenarios for every topology."""
    root, loader = _compose(text, source)
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else "a list" if isinstance(root, yaml.SequenceNode) else "a value"
        raise UsageError(f"{source}: a {kind} is a mapping of fields, found {found}")
    builder = _Builder(source, loader)
    data = builder.build(root, (), 0)
    return Document(data, builder.marks)


def _compose(text: str, source: str) -> tuple[yaml.Node | None, _Loader]:
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        what = " ".join(filter(None, (error.context, error.problem))) or "not YAML"
        raise UsageError(f"{where}: not valid YAML: {what}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise UsageError(f"{source}: nested deeper than {MAX_DEPTH} levels") from error
    except (ValueError, IndexError) as error:  # PyYAML on malformed escapes
        raise UsageError(f"{source}: not valid YAML: {error}") from error


class _Builder:
    """YAML nodes to plain data, keeping marks."""

    def __init__(self, source: str, loader: _Loader) -> None:
        self.source = source
        self.loader = loader
        self.marks: dict[Path_, Mark] = {}
        self.count = 0

    def mark(self, node: yaml.Node) -> Mark:
        return Mark(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: yaml.Node, path: Path_, depth: int) -> Any:
        self.count += 1
        where = self.mark(node)
        if self.count > MAX_VALUES:
            raise UsageError(f"{where}: more than {MAX_VALUES} values once aliases are expanded")
        if depth > MAX_DEPTH:
            raise UsageError(f"{where}: nested deeper than {MAX_DEPTH} levels")
        self.marks.setdefault(path, where)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, where)

    def _mapping(self, node: yaml.MappingNode, path: Path_, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in node.value:
            where = self.mark(key)
            if not isinstance(key, yaml.ScalarNode):
                raise UsageError(f"{where}: the name of a field is text")
            name = str(key.value)
            if name in result:
                raise UsageError(f"{where}: field {name!r} stands here a second time")
            self.marks[(*path, name)] = where
            result[name] = self.build(value, (*path, name), depth + 1)
        return result

    def _scalar(self, node: yaml.Node, where: Mark) -> Any:
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError, TypeError, OverflowError, KeyError, AttributeError) as error:
            raise UsageError(f"{where}: {str(node.value)[:40]!r} is not a {node.tag}") from error


def validate(document: Document, model: type[_M]) -> _M:
    """The model of a document. UsageError lists every field that is wrong, each with its place."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        items = error.errors(include_url=False)
        wrong: dict[Path_, list[str]] = {}
        for item in items:
            path = tuple(item["loc"])
            # pydantic counts the items that are right: a list whose items are wrong is not short for that.
            if item["type"] == "too_short" and any(_within(other["loc"], path) for other in items):
                continue
            place = _place(document.data, path)
            wrong.setdefault(place, []).append(_explain(item, model, path))
        raise UsageError("\n".join(_line(document, *one) for one in wrong.items())) from error


def _place(data: Any, path: Path_) -> Path_:
    """Without what comes after a scalar: the names of the types that the field could have had."""
    for depth, step in enumerate(path):
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            return path[:depth]
        if data is not None and not isinstance(data, (dict, list)):
            return path[: depth + 1]
    return path


def _line(document: Document, path: Path_, why: Sequence[str]) -> str:
    field = _dotted(document.data, path)
    *others, last = why
    found = last[last.rfind(", found ") :] if ", found " in last else ""
    either = "; or ".join([*(other.removesuffix(found) for other in others), last])
    return f"{document.mark(path)}: {f'{field}: ' if field else ''}{either}"


def _within(path: Path_, around: Path_) -> bool:
    return len(path) > len(around) and path[: len(around)] == around


def _explain(item: Any, model: type[BaseModel], path: Path_) -> str:
    kind, value = item["type"], item.get("input")
    if kind == "extra_forbidden":
        known = sorted(fields_at(model, path[:-1]))
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        return "unknown field; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")
    if kind == "missing":
        return "this field is required"
    message = str(item["msg"])
    message = message.removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if isinstance(value, (str, int, float, bool)) or value is None:
        message += f", found {_shown(value)}"
    return message


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _dotted(data: Any, path: Path_) -> str:
    """``poolers.pool-transaction.mode``: list items by their name where they have one."""
    parts: list[str] = []
    for step in path:
        item = None
        if (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        ):
            item = data[step]  # type: ignore[index]
        named = isinstance(step, int) and isinstance(item, dict) and isinstance(item.get("name"), str)
        parts.append(str(item["name"]) if named and item is not None else str(step))
        data = item
    return ".".join(parts)


# Overrides


def apply_override(document: Document, override: str, model: type[BaseModel]) -> None:
    """Change one field of a document before it is validated.

    ``postgres.patroni.ttl=30`` names a field; ``poolers.0.mode=session`` and
    ``poolers.pool-transaction.mode=session`` an item of a list by place or name (links by
    ``source-target``); ``poolers.*.server_lifetime=1`` every item. The value is YAML.

    Raises:
        UsageError: no ``=``, no such field or item, or a value that is not YAML.
    """
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UsageError(f"override {override!r}: expected field=value", hint="postgres.patroni.ttl=30")
    source = f"override {override!r}"
    steps = name.split(".")
    mark = Mark(source)
    value = parse_document("value: " + text.strip(), source).data.get("value")
    for path, hint in _targets(document.data, steps, model, source):
        _set(document.data, path, text.strip() if _is_text(hint) and not isinstance(value, str) else value)
        for old in [known for known in document.marks if known[: len(path)] == path]:
            del document.marks[old]
        document.marks[path] = mark


def _targets(data: Any, steps: Sequence[str], model: type[BaseModel], source: str) -> list[tuple[Path_, Any]]:
    """Every path that the steps name, with its type. The model decides: most fields have defaults."""
    found: list[tuple[Path_, Any, Any]] = [((), data, model)]
    for depth, step in enumerate(steps):
        after: list[tuple[Path_, Any, Any]] = []
        where = ".".join(steps[:depth]) or "the top level"
        for path, here, hint in found:
            shape = _shape(hint)
            if isinstance(shape, type) and issubclass(shape, BaseModel):
                hints = _hints(shape)
                if step not in hints:
                    near = difflib.get_close_matches(step, hints, n=1)
                    guess = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(hints))}"
                    raise UsageError(f"{source}: {where} has no field {step!r}; {guess}")
                after.append(((*path, step), here.get(step) if isinstance(here, dict) else None, hints[step]))
            elif isinstance(shape, _Items):
                items = here if isinstance(here, list) else []
                chosen = _choose(items, step)
                if not chosen:
                    names = ", ".join(filter(None, map(_name_of, items))) or "none"
                    raise UsageError(f"{source}: {where} has no item {step!r}; items: {names}")
                after += [((*path, index), items[index], shape.item) for index in chosen]
            elif shape is dict:
                # Keys of a free mapping (PostgreSQL settings) may themselves hold dots.
                rest = ".".join(steps[depth:])
                return [((*path, rest), str) for path, _, _ in found]
            else:
                raise UsageError(f"{source}: {where} is a single value and has no field {step!r}")
        found = after
    return [(path, hint) for path, _, hint in found]


def _is_text(hint: Any) -> bool:
    """Whether a field holds text and nothing else, so that ``postgres.version=14`` is no number."""
    if typing.get_origin(hint) is typing.Annotated:
        return _is_text(typing.get_args(hint)[0])
    if typing.get_origin(hint) is typing.Literal:
        return all(isinstance(choice, str) for choice in typing.get_args(hint))
    return hint is str


def _set(data: Any, path: Path_, value: Any) -> None:
    for step in path[:-1]:
        if isinstance(data, dict):
            if not isinstance(data.get(step), (dict, list)):
                data[step] = {}
            data = data[step]
        else:
            data = data[step]
    data[path[-1]] = value


def _choose(items: list[Any], step: str) -> list[int]:
    if step == "*":
        return list(range(len(items)))
    if step.isdecimal() and len(step) < 6:
        return [int(step)] if int(step) < len(items) else []
    return [index for index, item in enumerate(items) if _name_of(item) == step]


def _name_of(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    if "name" in item:
        return str(item["name"])
    if "source" in item and "target" in item:
        return f"{item['source']}-{item['target']}"
    return None


# Shapes of models


@dataclass(frozen=True)
class _Items:
    item: Any


def _shape(hint: Any) -> Any:
    """A model, ``_Items`` of a list or tuple, ``dict``, or None for a single value."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _shape(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        shapes = [_shape(arg) for arg in typing.get_args(hint) if arg is not type(None)]
        return next((shape for shape in shapes if shape is not None), None)
    if origin in (tuple, list):
        return _Items(typing.get_args(hint)[0])
    if origin is dict:
        return dict
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return None


def _hints(model: type[BaseModel]) -> Mapping[str, Any]:
    """Type of every field, by the name that it has in a document."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def fields_at(model: type[BaseModel], path: Path_) -> list[str]:
    """Names of the fields that a model knows at a path; empty where there is no model."""
    hint: Any = model
    for step in path:
        shape = _shape(hint)
        if isinstance(shape, _Items) and isinstance(step, int):
            hint = shape.item
        elif isinstance(shape, type) and issubclass(shape, BaseModel) and step in _hints(shape):
            hint = _hints(shape)[str(step)]
        else:
            return []
    shape = _shape(hint)
    return sorted(_hints(shape)) if isinstance(shape, type) and issubclass(shape, BaseModel) else []
