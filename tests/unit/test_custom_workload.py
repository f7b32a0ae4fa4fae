"""Scripts of a user's own: what is understood of pgbench's language, and what is refused, with its line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.topology.workload import load_workload_file
from loadtests.config import LoadConfig, LoadTarget, Script
from loadtests.scripts import Set, Sleep, Statement, needs_transaction, parse_script

TPCB = r"""
-- the classic, as pgbench has it
\set aid random(1, 100000 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE accounts SET balance = balance + :delta
 WHERE aid = :aid;
SELECT balance::text, '50% :aid; --' FROM accounts WHERE aid = :aid; /* ; */
\sleep 20 ms
END;
"""


def test_a_script_of_pgbench() -> None:
    steps = parse_script(TPCB, {"scale": 2})
    assert [type(step) for step in steps] == [Set, Set, Statement, Statement, Statement, Sleep, Statement]
    statements = [step for step in steps if isinstance(step, Statement)]
    assert statements[0] == Statement("BEGIN", ())
    assert statements[1].variables == ("delta", "aid")
    assert statements[1].sql == "UPDATE accounts SET balance = balance + %s\n WHERE aid = %s"
    assert statements[2] == Statement(
        "SELECT balance::text, '50%% :aid; --' FROM accounts WHERE aid = %s", ("aid",)
    )
    assert steps[5] == Sleep(0.02)
    assert needs_transaction(steps)
    drawn = {steps[0].evaluate({"scale": 2}, random.Random(n)) for n in range(200)}  # type: ignore[union-attr]
    assert 1 <= min(drawn) < 20_000 < 180_000 < max(drawn) <= 200_000


def test_quotes_and_comments_may_span_lines() -> None:
    text = "SELECT 'one;\ntwo' /* three;\nfour */ , 5;\nSELECT 6"
    assert [step.sql for step in parse_script(text) if isinstance(step, Statement)] == [
        "SELECT 'one;\ntwo'   , 5",
        "SELECT 6",
    ]


def test_without_variables_a_statement_stays_as_it_is() -> None:
    assert parse_script("SELECT 7 % 2, $tag$ ; :no $tag$") == (
        Statement("SELECT 7 % 2, $tag$ ; :no $tag$", ()),
    )
    assert not needs_transaction(parse_script("SELECT 1; SELECT 2;"))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 2", 3), ("-7 / 2", -3), ("-7 % 3", -1), ("2 + 3 * 4", 14), ("(2 + 3) * :x", 25),
        ("random(:x, :x)", 5), ("-:x", -5),
    ],
)  # fmt: skip
def test_arithmetic_is_that_of_sql(expression: str, value: int) -> None:
    step = parse_script(f"\\set x 5\n\\set y {expression}\nSELECT :y;")[1]
    assert isinstance(step, Set)
    assert step.evaluate({"x": 5}, random.Random(1)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT :nobody;", "line 1: variable :nobody has no value"),
        ("SELECT 1;\n\\set x :y\n", "line 2: variable :y has no value"),
        ("SELECT\n\\set x 1\n;", "line 2: a command in the middle of a statement"),
        ("\\if 1\nSELECT 1;", "line 1: \\if is not known here"),
        ("\\set x random_gaussian(1, 2, 3)\nSELECT 1;", "line 1: 'random_gaussian(1, 2, 3)' is no sum"),
        ("\\set x __import__('os')\nSELECT 1;", "line 1: "),
        ("\\set x 1 +\nSELECT 1;", "line 1: "),
        ("\\set x\nSELECT 1;", "line 1: expected \\set name expression"),
        ("\\sleep long\nSELECT 1;", "line 1: expected \\sleep"),
        ("SELECT 1;\nSELECT 'a;\nb", "line 2: a quote or a comment is not closed"),
        ("-- nothing\n", "line 1: there is no statement in it"),
        ("SELECT 1;\n\nSELECT 2,\n :late;\n\\set late 1", "line 4: variable :late has no value"),
    ],
)
def test_what_is_not_understood_is_said_with_its_line(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at
        parse_script(text)
    assert says in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_with_a_line(text: str) -> None:
    try:
        steps = parse_script(text)
    except ValueError as error:
        assert str(error).startswith("line ")  # noqa: PT017
    else:
        assert any(isinstance(step, Statement) for step in steps)


WORKLOAD = """\
role: app
variables: {customers: 1000}
scripts:
  - {name: read, weight: 9, reads: true, file: read.sql}
  - {name: write, sql: "BEGIN; UPDATE t SET n = 1; COMMIT;"}
"""


def test_a_workload_file(tmp_path: Path) -> None:
    (tmp_path / "workload.yaml").write_text(WORKLOAD)
    (tmp_path / "read.sql").write_text("\\set id random(1, :customers)\nSELECT * FROM t WHERE id = :id;")
    found = load_workload_file(tmp_path / "workload.yaml")
    assert [(s.name, s.weight, s.reads) for s in found.scripts] == [("read", 9, True), ("write", 1, False)]
    assert found.transactions
    assert found.role == "app"
    config = LoadConfig(
        run="r", out="/o", workload="custom", writer=LoadTarget("pg1.writer", "pg1", 5432, "d"), user="app",
        password_file="/p", scripts=found.scripts, variables=found.variables,
    )  # fmt: skip
    again = LoadConfig.from_json(config.to_json())
    assert again == config
    assert isinstance(again.scripts[0], Script)


@pytest.mark.parametrize(
    ("replace", "by", "says"),
    [
        (
            "name: write",
            "name: read",
            "workload.yaml:1:1: names of scripts must be unique, found twice: read",
        ),
        ("file: read.sql", "file: gone.sql", "workload.yaml:4:42: scripts.read: cannot read"),
        ("file: read.sql", "fiel: read.sql", "unknown field; did you mean 'file'?"),
        ("reads: true, file: read.sql", "reads: true", "a script is given by file or by sql"),
        ("weight: 9", "weight: 0", "scripts.read.weight"),
        ("UPDATE t SET n = 1", "UPDATE t SET n = :n", "scripts.write, line 1: variable :n has no value"),
        ("customers: 1000", "custmers: 1000", "read.sql:1: variable :customers has no value"),
    ],
)
def test_wrong_workload_files(tmp_path: Path, replace: str, by: str, says: str) -> None:
    (tmp_path / "workload.yaml").write_text(WORKLOAD.replace(replace, by))
    (tmp_path / "read.sql").write_text("\\set id random(1, :customers)\nSELECT * FROM t WHERE id = :id;")
    with pytest.raises(UsageError) as caught:
        load_workload_file(tmp_path / "workload.yaml")
    assert says in str(caught.value)
