"""Mutants of a function: one expression replaced by another, in the running process.

The code object of the function itself is exchanged, so that whoever imported it runs the mutant. Known-answer
tests are called directly, parametrised ones with every set of arguments; those that take a fixture or that
draw their input are not known-answer tests here, and are left out.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """``before`` and ``after`` are expressions; ``place`` counts, from 0, those that read alike."""

    function: str
    before: str
    after: str
    place: int = 0

    def __str__(self) -> str:
        return f"{self.function}: {self.before} → {self.after}" + (f" (#{self.place})" if self.place else "")


class _Exchange(ast.NodeTransformer):
    def __init__(self, mutant: Mutant) -> None:
        self._before = ast.unparse(ast.parse(mutant.before, mode="eval"))
        self._after = ast.parse(mutant.after, mode="eval").body
        self._place, self.seen = mutant.place, 0

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and ast.unparse(node) == self._before:
            self.seen += 1
            if self.seen - 1 == self._place:
                return ast.copy_location(self._after, node)
        return self.generic_visit(node)


def function_of(module: ModuleType, name: str) -> FunctionType:
    """A function of a module, or ``Class.method``."""
    found: Any = module
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    if not isinstance(found, FunctionType):
        raise TypeError(f"{module.__name__}.{name} is no plain function")
    return found


def mutated(module: ModuleType, mutant: Mutant) -> CodeType:
    """The mutant's code. LookupError where the function has no such expression."""
    function = function_of(module, mutant.function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    exchange = _Exchange(mutant)
    ast.fix_missing_locations(exchange.visit(tree))
    if exchange.seen <= mutant.place:
        raise LookupError(f"{module.__name__} has no mutant {mutant}")
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    # Annotations are not evaluated, as in the module itself.
    future = ast.parse("from __future__ import annotations").body
    whole = compile(ast.Module([*future, definition], []), f"<{mutant}>", "exec")
    return next(c for c in whole.co_consts if isinstance(c, CodeType) and c.co_name == function.__name__)


@contextlib.contextmanager
def applied(module: ModuleType, mutant: Mutant) -> Iterator[None]:
    """While this lasts, everybody runs the mutant."""
    function = function_of(module, mutant.function)
    before = function.__code__
    function.__code__ = mutated(module, mutant)
    try:
        yield
    finally:
        function.__code__ = before


def known_answers(module: ModuleType) -> list[Callable[[], object]]:
    """The known-answer tests of a test module."""
    found: list[Callable[[], object]] = []
    for name, test in vars(module).items():
        if not name.startswith("test_") or not isinstance(test, FunctionType) or hasattr(test, "hypothesis"):
            continue
        calls: list[dict[str, Any]] = [{}]
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "parametrize":
                calls = [{**call, **given} for call in calls for given in _sets(*mark.args[:2])]
        if set(inspect.signature(test).parameters) == set(calls[0]):
            found += [partial(test, **call) for call in calls]
    return found


def _sets(names: str | tuple[str, ...], values: Any) -> list[dict[str, Any]]:
    keys = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    sets = []
    for value in values:
        one = value.values if hasattr(value, "marks") else value if len(keys) > 1 else (value,)
        sets.append(dict(zip(keys, one, strict=True)))
    return sets


def killer(tests: list[Callable[[], object]]) -> Callable[[], object] | None:
    """The first test that fails, None where all pass."""
    for test in tests:
        try:
            test()
        except Exception:  # whatever a mutant does, it was noticed
            return test
    return None


# --- operators

_NEIGHBOUR: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_CONTRARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt,
}  # fmt: skip
_SWAPPED = {"max": "min", "min": "max", "any": "all", "all": "any"}


def mutants(module: ModuleType) -> Iterator[Mutant]:
    """Every mutant of a module's own functions and methods by the operators below, each once.

    A comparison to its neighbour (< and <=) and to its contrary, a condition or a set dropped, ``and`` for
    ``or`` and so for sets, + for -, a negation dropped, max for min, any for all. Docstrings and annotations
    have none.
    """
    for name in _functions(module):
        tree = ast.parse(textwrap.dedent(inspect.getsource(function_of(module, name)))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        seen: dict[str, int] = {}
        found: set[Mutant] = set()
        for node in _expressions(tree):
            before = ast.unparse(node)
            place = seen[before] = seen.get(before, -1) + 1
            for variant in _variants(node):
                mutant = Mutant(name, before, ast.unparse(ast.fix_missing_locations(variant)), place)
                if mutant not in found:
                    found.add(mutant)
                    yield mutant


def _functions(module: ModuleType) -> Iterator[str]:
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if isinstance(thing, FunctionType):
            yield name
        elif inspect.isclass(thing):
            own = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
            assert isinstance(own, ast.ClassDef)
            yield from (f"{name}.{one.name}" for one in own.body if isinstance(one, ast.FunctionDef))


def _expressions(tree: ast.FunctionDef) -> Iterator[ast.expr]:
    """Expressions in the order in which ``_Exchange`` meets them, without annotations."""
    for statement in tree.body:
        waiting: list[ast.AST] = [statement]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.expr):
                yield node
            children = [c for c in ast.iter_child_nodes(node) if c is not getattr(node, "annotation", None)]
            waiting += reversed(children)


def _variants(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            for table in (_NEIGHBOUR, _CONTRARY):
                for at, sign in enumerate(node.ops):
                    if type(sign) in table:
                        ops = [*node.ops[:at], table[type(sign)](), *node.ops[at + 1 :]]
                        yield ast.Compare(node.left, ops, node.comparators)
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            for at in range(len(node.values)):
                rest = [*node.values[:at], *node.values[at + 1 :]]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            yield ast.BoolOp(other, node.values)
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
            yield from (node.left, node.right)
            yield ast.BinOp(
                node.left, ast.BitOr() if isinstance(node.op, ast.BitAnd) else ast.BitAnd(), node.right
            )
        case ast.BinOp(op=ast.Sub()):
            yield ast.BinOp(node.left, ast.Add(), node.right)
        case ast.UnaryOp(op=ast.Invert() | ast.Not()):
            yield node.operand
        case ast.Call(func=ast.Name(id=name)) if name in _SWAPPED:
            yield ast.Call(ast.Name(_SWAPPED[name]), node.args, node.keywords)
        case ast.Call(func=ast.Attribute(attr=name)) if name in _SWAPPED:
            yield ast.Call(ast.Attribute(node.func.value, _SWAPPED[name]), node.args, node.keywords)  # type: ignore[attr-defined]
