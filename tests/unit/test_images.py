"""Images: what makes a tag, what a build is given, what a user is told. No engine needed."""

from __future__ import annotations

import io
import re
import tarfile
import tomllib
from pathlib import Path

import pytest

from lab.deploy import build_images, images
from lab.deploy.build_context import (
    base_suite,
    ca_bundle,
    context_files,
    context_hash,
    context_tar,
    go_settings,
)
from lab.deploy.images import IMAGES, Images, ensure_images, hint_of, images_root, step_of
from lab.errors import EngineError, UsageError


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM debian:trixie-slim\n")
    (tmp_path / "entrypoint.sh").write_text("#!/bin/bash\n")
    return tmp_path


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_has_a_dockerfile_on_a_known_base(name: str) -> None:
    text = (images_root() / name / "Dockerfile").read_text()
    assert base_suite(text) in {"bookworm", "trixie"}
    assert (images_root() / name / "entrypoint.sh").exists()


@pytest.mark.parametrize("name", IMAGES)
def test_the_ca_bundle_stays_in_a_build_stage(name: str) -> None:
    for dockerfile in (images_root() / name).glob("Dockerfile*"):
        last_stage = dockerfile.read_text().rpartition("\nFROM ")[2]
        assert "ca-bundle" not in last_stage, dockerfile


def test_no_folder_of_an_image_is_forgotten() -> None:
    assert {path.parent.name for path in images_root().glob("*/Dockerfile")} == set(IMAGES)


def test_locks_hold_hashes_and_no_addresses() -> None:
    root = images_root().parent.parent
    locks = [
        root / "requirements.lock",
        root / "compose/host/uv.lock",
        *images_root().glob("*/requirements.lock"),
    ]
    assert len(locks) == 4
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text, lock
        pins = re.findall(r"^[a-z][\w.-]*==\S+.*\n(    --hash=sha256:)?", text, re.MULTILINE)
        assert pins, lock
        assert all(pins), lock


def test_the_lock_holds_what_the_project_asks_for() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    root = images_root().parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pins = dict(
        re.findall(r"^([a-z][\w.-]*)==([^\s;]+)", (root / "requirements.lock").read_text(), re.MULTILINE)
    )
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        asked = Requirement(text)
        name = canonicalize_name(asked.name)
        assert name in pins, f"{text}: run `make lock`"
        assert asked.specifier.contains(pins[name]), f"{text}: run `make lock`"


def test_the_client_runs_the_versions_of_the_host() -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([a-z][\w.-]*)==(\S+)", path.read_text(), re.MULTILINE))

    host = pins(images_root().parent.parent / "requirements.lock")
    client = pins(images_root() / "client" / "requirements.lock")
    shared = set(host) & set(client)
    assert {"locust", "psycopg", "redis"} <= shared
    assert {name: host[name] for name in shared} == {name: client[name] for name in shared}


def test_hash_changes_with_content_name_and_base(context: Path) -> None:
    first = context_hash(context_files(context), "sha256:1")
    assert first == context_hash(context_files(context), "sha256:1")
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert first != context_hash(context_files(context), "sha256:2")
    (context / "entrypoint.sh").write_text("#!/bin/bash\ntrue\n")
    second = context_hash(context_files(context), "sha256:1")
    assert second != first
    (context / "entrypoint.sh").rename(context / "start.sh")
    assert context_hash(context_files(context), "sha256:1") not in {first, second}


def test_hash_is_blind_to_umask_caches_and_certificates(context: Path) -> None:
    first = context_hash(context_files(context), "x")
    (context / "entrypoint.sh").chmod(0o600)
    (context / "ca-bundle.crt").write_text("left over from a build by hand")
    (context / "__pycache__").mkdir()
    (context / "__pycache__" / "a.pyc").write_bytes(b"\0")
    assert context_hash(context_files(context), "x") == first


def test_context_carries_modes_and_the_bundle(context: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(context_tar(context_files(context), b"PEM"))) as tar:
        modes = {member.name: member.mode for member in tar}
        bundle = tar.extractfile("ca-bundle.crt")
        assert bundle is not None
        assert bundle.read() == b"PEM"
    assert modes == {"Dockerfile": 0o644, "ca-bundle.crt": 0o644, "entrypoint.sh": 0o755}


def test_base_is_the_one_of_the_last_stage() -> None:
    assert base_suite("FROM debian:trixie-slim AS build\nFROM debian:bookworm-slim\n") == "bookworm"
    with pytest.raises(ValueError, match="debian"):
        base_suite("FROM alpine\n")


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Step 3/10 : RUN apt-get   update\n", "3/10 RUN apt-get update"),
        ("#8 [build 3/6] RUN apt-get update\n", "3/6 RUN apt-get update"),
        ("#5 [2/4] COPY entrypoint.sh /x\n", "2/4 COPY entrypoint.sh /x"),
        (" ---> Running in 0123\n", None),
        ("#8 0.345 Get:1 http://archive\n", None),
    ],
)
def test_steps_of_both_builders(line: str, step: str | None) -> None:
    assert step_of(line) == step


def test_hints_fit_the_failure() -> None:
    assert "LAB_CA_BUNDLE" in (hint_of("SSL: CERTIFICATE_VERIFY_FAILED") or "")
    assert "disk is full" in (hint_of("write /x: no space left on device") or "")
    assert "resolve names" in (hint_of("Could not resolve 'archive'") or "")
    assert hint_of("exit code 2") is None


def test_ca_bundle_prefers_what_the_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("PEM")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "a"))
    monkeypatch.delenv("LAB_CA_BUNDLE", raising=False)
    assert ca_bundle() == tmp_path / "a"
    monkeypatch.setenv("LAB_CA_BUNDLE", str(tmp_path / "b"))
    assert ca_bundle() == tmp_path / "b"
    monkeypatch.setenv("LAB_CA_BUNDLE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="LAB_CA_BUNDLE"):
        ca_bundle()


def test_go_settings_without_go_are_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("GOPROXY", "direct")
    monkeypatch.setenv("GOSUMDB", "")
    found = go_settings()
    assert found["GOPROXY"] == "direct"
    assert "GOSUMDB" not in found


class FakeEngine:
    """Images that exist, and a ``docker`` that builds or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.images = {"debian:bookworm-slim": "sha256:b", "debian:trixie-slim": "sha256:t"}
        self.failing: dict[str, str] = {}
        self.commands: list[list[str]] = []
        self.pruned = 0
        monkeypatch.setattr(images, "image_id", self.images.get)
        monkeypatch.setattr(images, "_drop_build_stages", self._prune)
        monkeypatch.setattr(images._Session, "command", self._command())
        monkeypatch.setattr(images.tempfile, "mkdtemp", lambda **_: str(_made(tmp_path / "logs")))

    def _prune(self) -> None:
        self.pruned += 1

    def _command(self):  # type: ignore[no-untyped-def]
        engine = self

        def command(session, log_name, name, argv, *_, **__):  # type: ignore[no-untyped-def]
            engine.commands.append(argv)
            log = session._logs / f"{log_name}.log"
            what = "pull" if "pull" in argv else name
            log.write_text(engine.failing.get(what, ""))
            if what in engine.failing:
                return 1, log
            if "--tag" in argv:
                engine.images[argv[argv.index("--tag") + 1]] = f"sha256:{name}"
            else:
                engine.images[argv[-1]] = "sha256:pulled"
            return 0, log

        return command

    def tags(self) -> list[str]:
        return [argv[argv.index("--tag") + 1].split(":")[0] for argv in self.commands if "--tag" in argv]


def _made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    return FakeEngine(monkeypatch, tmp_path)


def _quiet(name: str, what: str) -> None:
    del name, what


def test_builds_what_is_missing_and_nothing_twice(engine: FakeEngine, tmp_path: Path) -> None:
    first = ensure_images(["redis", "etcd"], progress=_quiet)
    assert sorted(engine.tags()) == ["pglab/etcd", "pglab/redis"]
    assert engine.pruned == 1
    engine.commands.clear()
    assert ensure_images(["redis", "etcd"], progress=_quiet) == first
    assert engine.commands == []
    assert not (tmp_path / "logs").exists()


def test_a_failed_build_gives_last_lines_hint_and_log(engine: FakeEngine, tmp_path: Path) -> None:
    engine.failing["redis"] = "Step 1/2 : RUN\n\x1b[91merror: no space left on device\x1b[0m\n"
    with pytest.raises(EngineError, match=r"redis could not be built(.|\n)*no space left") as caught:
        ensure_images(["redis", "etcd"], progress=_quiet)
    assert caught.value.hint is not None
    assert "disk is full" in caught.value.hint
    assert str(tmp_path / "logs" / "redis.log") in caught.value.hint
    assert [log.name for log in (tmp_path / "logs").iterdir()] == ["redis.log"]
    assert "\x1b" not in str(caught.value)


def test_toxiproxy_is_pulled_where_a_registry_answers(engine: FakeEngine) -> None:
    ensure_images(["toxiproxy"], progress=_quiet)
    assert engine.tags() == ["pglab/toxiproxy"]
    assert f"SOURCE={images.TOXIPROXY_OFFICIAL}" in engine.commands[-1]


def test_toxiproxy_is_built_where_none_answers(engine: FakeEngine) -> None:
    engine.failing["pull"] = "no such host"
    ensure_images(["toxiproxy"], progress=_quiet)
    assert engine.tags() == ["pglab/toxiproxy-source", "pglab/toxiproxy"]


def test_a_lab_comes_up_without_toxiproxy(engine: FakeEngine) -> None:
    engine.failing |= {"pull": "no such host", "toxiproxy": "x509: certificate signed by unknown authority"}
    found = ensure_images(["redis", "toxiproxy"], progress=_quiet)
    assert list(found) == ["redis"]
    assert "certificate" in found.unavailable["toxiproxy"]


def test_setup_command_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_images.main(["nonsense"]) == 3
    assert "postgres" in capsys.readouterr().err
    monkeypatch.setattr(
        build_images, "ensure_images", lambda *_, **__: Images({}, {"toxiproxy": "no network"})
    )
    assert build_images.main([]) == 0
    assert "no network" in capsys.readouterr().err
