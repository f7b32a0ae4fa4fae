r"""SQL scripts as pgbench writes them, read on the host (to check them) and in the client node (to run them).

Statements end with ``;`` and may span lines. ``:name`` is a variable (not in quotes, and ``::type`` is a
cast); its value travels as a parameter, never as text. Of pgbench's commands there are

    \set name expression    integers, + - * / %, ( ), :name, random(low, high), each run anew
    \sleep number ms|s|us   a pause of the client

Anything else pgbench knows is an error, with its line, rather than something that quietly does not happen.
Standard library only.
"""

from __future__ import annotations

import ast
import operator
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

Variables = Mapping[str, int]
Evaluate = Callable[[dict[str, int], random.Random], int]

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
# Quotes, dollar quotes and comments are passed over; a colon is a variable's unless it is one of two.
_TOKEN = re.compile(
    r"(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"
    r"|(?P<comment>--[^\n]*|/\*.*?\*/)"
    rf"|(?P<cast>::)|:(?P<variable>{_NAME})|(?P<end>;)|(?P<percent>%)"
    r"|(?P<open>['\"]|/\*|\$\w*\$)|(?P<other>.)",
    re.DOTALL,
)
_TRANSACTION = re.compile(r"(begin|start\s+transaction)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One statement: its text with ``%s`` where variables stand, and their names in that order."""

    sql: str
    variables: tuple[str, ...]


@dataclass(frozen=True)
class Set:
    """``\\set``: a variable and how its value is found."""

    name: str
    evaluate: Evaluate


@dataclass(frozen=True)
class Sleep:
    """``\\sleep``, in seconds."""

    seconds: float


Step = Statement | Set | Sleep


def parse_script(text: str, variables: Variables = {}) -> tuple[Step, ...]:  # noqa: B006 - never changed
    """The steps of a script.

    Args:
        text: the script.
        variables: those that have a value before it begins.

    Raises:
        ValueError: ``line 3: …``: what is not understood, or a variable that nobody has set.
    """
    known = set(variables)
    steps: list[Step] = []
    rest, first = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if _is_blank(rest):
            rest, first = "", number
        if line.lstrip().startswith("\\"):
            if rest:
                raise ValueError(f"line {number}: a command in the middle of a statement (is a ; missing?)")
            steps.append(_command(line.strip(), number, known))
            continue
        done, rest = _statements(f"{rest}{line}\n", first, known)
        steps += done
        if done:
            first = number
    if not _is_blank(rest):
        done, rest = _statements(f"{rest};", first, known)
        if not done:
            raise ValueError(f"line {first}: a quote or a comment is not closed")
        steps += done
    if not any(isinstance(step, Statement) for step in steps):
        raise ValueError("line 1: there is no statement in it")
    return tuple(steps)


def _is_blank(text: str) -> bool:
    """Whether there is nothing but spaces and comments."""
    return not re.sub(r"--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL).strip()


def needs_transaction(steps: tuple[Step, ...]) -> bool:
    """Whether a script opens a transaction of several statements."""
    return any(isinstance(step, Statement) and _TRANSACTION.match(step.sql) for step in steps)


def _statements(text: str, line: int, known: set[str]) -> tuple[list[Statement], str]:
    """Complete statements of a text, and the rest that no semicolon has ended yet."""
    found: list[Statement] = []
    out: list[str] = []
    names: list[str] = []
    begun = 0
    for token in _TOKEN.finditer(text):
        kind, piece = token.lastgroup, token[0]
        if token["quoted"] is not None:
            out.append(piece.replace("%", "%%"))
        elif kind == "comment":
            out.append(" ")
        elif token["variable"] is not None:
            if token["variable"] not in known:
                at = line + text.count("\n", 0, token.start())
                raise ValueError(f"line {at}: variable :{token['variable']} has no value")
            names.append(token["variable"])
            out.append("%s")
        elif kind == "open":
            break  # it is closed on a later line
        elif kind == "percent":
            out.append("%%")
        elif kind == "end":
            sql = "".join(out).strip()
            if sql:
                # Without parameters psycopg takes the text as it is.
                found.append(Statement(sql if names else sql.replace("%%", "%"), tuple(names)))
            out, names, begun = [], [], token.end()
        else:
            out.append(piece)
    return found, text[begun:]


def _command(line: str, number: int, known: set[str]) -> Step:
    word, _, rest = line[1:].partition(" ")
    if word == "set":
        matched = re.match(rf"({_NAME})\s+(.+)$", rest.strip())
        if not matched:
            raise ValueError(f"line {number}: expected \\set name expression")
        step = Set(matched[1], _expression(matched[2], number, known))
        known.add(matched[1])
        return step
    if word == "sleep":
        matched = re.match(r"(\d+)\s*(us|ms|s)?$", rest.strip())
        if not matched:
            raise ValueError(f"line {number}: expected \\sleep number us, ms or s")
        return Sleep(int(matched[1]) * _UNITS[matched[2] or "s"])
    raise ValueError(f"line {number}: \\{word} is not known here; there are \\set and \\sleep")


def _divide(one: int, other: int) -> int:
    """As in SQL and pgbench: towards zero."""
    return int(one / other) if abs(one) < 2**52 else (abs(one) // abs(other)) * (1 if one * other > 0 else -1)


_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
    ast.Mod: lambda one, other: one - _divide(one, other) * other,
}


def _is_random(node: ast.expr) -> TypeGuard[ast.Call]:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "random"
        and len(node.args) == 2
        and not node.keywords
    )


def _expression(text: str, number: int, known: set[str]) -> Evaluate:
    wrong = ValueError(f"line {number}: {text!r} is no sum of integers, :names, + - * / % and random(a, b)")
    try:
        tree = ast.parse(re.sub(rf":({_NAME})", r"\1", text), mode="eval").body
    except SyntaxError:
        raise wrong from None

    def build(node: ast.expr) -> Evaluate:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            value = node.value
            return lambda _, __: value
        if isinstance(node, ast.Name):
            name = node.id
            if name not in known:
                raise ValueError(f"line {number}: variable :{name} has no value")
            return lambda variables, _: variables[name]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = build(node.operand)
            return lambda variables, rng: -inner(variables, rng)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            act, left, right = _OPERATORS[type(node.op)], build(node.left), build(node.right)
            return lambda variables, rng: act(left(variables, rng), right(variables, rng))
        if _is_random(node):
            low, high = map(build, node.args)
            return lambda variables, rng: rng.randint(low(variables, rng), high(variables, rng))
        raise wrong

    return build(tree)
