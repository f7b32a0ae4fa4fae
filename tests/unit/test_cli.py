"""The frame of the command line: messages, exit codes, one document with --json, and never a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer

from lab import cli
from lab.errors import Exit, LabError, NotReady, UsageError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / ".lab"))
    monkeypatch.delenv("LAB_DEBUG", raising=False)
    return tmp_path / ".lab"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """An application of one command ``boom``, which raises the given exception."""

    def prepare(error: BaseException) -> None:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

        @app.callback()
        def before() -> None:
            pass

        @app.command()
        def boom(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
            del as_json
            raise error

        monkeypatch.setattr(cli, "build", lambda: app)

    return prepare


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LabError("it broke", hint="mend it"), Exit.FAILED),
        (NotReady("pg1 is not ready", hint="mend it"), Exit.FAILED),
        (UsageError("wrong file", hint="mend it"), Exit.USAGE),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), Exit.FAILED),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), Exit.FAILED),
        (ValueError("oops"), Exit.FAILED),
    ],
)
def test_every_error_is_a_message_and_a_code(
    failing: Callable[[BaseException], None],
    error: BaseException,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(error)
    assert cli.run(["boom"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: " in said.err
    assert "Traceback" not in said.err
    assert cli.run(["boom", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["exit_code"] == code


def test_hints_are_printed(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(LabError("it broke [bold]", hint="mend it"))
    cli.run(["boom"])
    said = capsys.readouterr().err
    assert "it broke [bold]" in said
    assert "hint: mend it" in said


def test_a_bug_says_so_and_shows_its_traceback_on_demand(
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(ValueError("oops"))
    cli.run(["boom"])
    assert "this is a bug in the lab" in capsys.readouterr().err
    monkeypatch.setenv("LAB_DEBUG", "1")
    with pytest.raises(ValueError, match="oops"):
        cli.run(["boom"])


@pytest.mark.parametrize(
    "argv",
    [
        ["upp"],
        ["up"],
        ["up", "risk-prod", "--nope"],
        ["up", "no-such-topology"],
        ["up", "risk-prod", "--name", "../x"],
        ["up", "risk-prod", "--set", "postgres.patroni.ttl=never"],
        ["list", "nonsense"],
        ["status"],
        ["status", "--name", "nope"],
        ["env", "--name", "nope"],
        ["psql", "--name", "nope"],
        ["down", "--all", "--name", "x"],
        ["down", "x", "--name", "y"],
    ],
)
def test_wrong_usage_exits_3_with_a_message(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(argv) == Exit.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["latency", "--workload", "nonsense"], "no workload 'nonsense'"),
        (["pool-size", "--workload", "nonsense"], "no workload 'nonsense'"),
        (["pool-size", "--mode", "nonsense"], "'nonsense' is not one of"),
    ],
)
def test_a_wrong_word_is_told_before_a_lab_is_asked_for(
    argv: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(argv) == Exit.USAGE
    assert what in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["topologies", "scenarios", "faults", "workloads", "targets"])
def test_lists_are_one_document(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", kind, "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)[kind], list)
    assert cli.run(["list", kind]) == 0


def test_render_is_the_same_every_time_and_writes_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["render", "risk-prod", "--json"]) == 0
    first = capsys.readouterr().out
    assert cli.run(["render", "risk-prod", "--json"]) == 0
    assert capsys.readouterr().out == first
    files = json.loads(first)["files"]
    assert cli.run(["render", "risk-prod", "--out", str(tmp_path / "out")]) == 0
    for relative, text in files.items():
        assert (tmp_path / "out" / relative).read_text() == text


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("up", "down", "status", "psql", "env", "render", "list"):
        assert cli.run([command, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


def test_leftovers_are_healed_unless_a_living_process_owns_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lab.deploy import state
    from lab.deploy.docker_driver import DockerLab
    from lab.scenario import journal

    healed: list[str] = []

    def heal_pending(lab: str) -> list[str]:
        healed.append(lab)
        return ["started pg1 again"]

    monkeypatch.setattr(DockerLab, "open", classmethod(lambda _, name: name))
    monkeypatch.setattr(journal, "heal_pending", heal_pending)
    for name in ("clean", "empty", "broken", "busy"):
        state.make_private(root / name)
    (root / "empty" / "journal.jsonl").touch()
    (root / "broken" / "journal.jsonl").write_text("{}\n")
    (root / "busy" / "journal.jsonl").write_text("{}\n")
    with state.exclusive(root / "busy" / "lock", wait_s=0, busy="x"):
        cli.heal_leftovers()
    assert healed == ["broken"]
    assert "started pg1 again" in capsys.readouterr().err


def test_a_lab_that_cannot_be_healed_is_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lab.deploy import state

    state.make_private(root / "broken")
    (root / "broken" / "journal.jsonl").write_text("{}\n")
    cli.heal_leftovers()
    assert "warning: lab broken" in capsys.readouterr().err


def test_help_does_not_import_what_is_heavy() -> None:
    code = (
        "import sys; from lab import cli; cli.build();"
        "print([m for m in ('docker', 'pandas', 'numpy', 'matplotlib', 'locust', 'testcontainers', 'psycopg')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_down_touches_only_what_was_made_here(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lab.deploy import down as module
    from lab.deploy import state

    gone: list[str] = []

    def down(name: str) -> module.Removed:
        gone.append(name)
        return module.Removed(name, folder=True)

    monkeypatch.setattr(module, "existing_labs", lambda: ["mine", "other"])
    monkeypatch.setattr(module, "down", down)
    state.make_private(root / "mine")
    assert cli.run(["down", "--all"]) == 0
    assert gone == ["mine"]
    assert "lab other is on this engine" in capsys.readouterr().err
    assert cli.run(["down", "--name", "other"]) == 0
    assert gone == ["mine", "other"]


def test_up_without_an_engine_leaves_nothing(root: Path) -> None:
    # In a process of its own: the SDK leaves a socket unclosed where it cannot connect.
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli", "up", "risk-prod"],
        env={**os.environ, "DOCKER_HOST": "unix:///no/such.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.FAILED
    assert "could not connect to the container engine" in done.stderr
    assert "hint: Start Docker" in done.stderr
    assert not root.exists()
