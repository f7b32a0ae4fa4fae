"""The images of a lab: which there are, which are missing, and building those.

An image is tagged ``pglab/<name>:<hash>``, the hash being over its build context and the id of its
base image, so that a changed Dockerfile or base is a new image and nothing else is built twice. The
host's CA bundle goes into the build (companies and some CI inspect HTTPS) but not into the hash and
not into the image.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lab.deploy.build_context import (
    base_suite,
    build_environment,
    ca_bundle,
    context_files,
    context_hash,
    context_tar,
    go_settings,
)
from lab.deploy.state import project_root
from lab.errors import EngineError, LabError

Progress = Callable[[str, str], None]
"""Called with the image's name and what is being done; from several threads, one call at a time."""

IMAGES = ("postgres", "client", "toxiproxy", "pgbouncer", "haproxy", "etcd", "redis")
"""Every image, the slowest to build first."""

OPTIONAL = frozenset({"toxiproxy"})
"""Images without which a lab still comes up."""

TOXIPROXY_VERSION = "2.12.0"
"""The newest release whose Go directive (1.23) Debian 13's Go (1.24) satisfies."""

TOXIPROXY_OFFICIAL = f"ghcr.io/shopify/toxiproxy:{TOXIPROXY_VERSION}"

PARALLEL_BUILDS = 2
PULL_LIMIT_S = 120.0
LAST_LINES = 15

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STEP = re.compile(
    r"^(?:Step (?P<legacy>\d+/\d+) : |#\d+ \[(?:[\w.-]+ )?(?P<buildkit>\d+/\d+)\] )(?P<what>.+)"
)
_HINTS = (
    ("no space left", "The engine's disk is full: `docker system df` shows by what."),
    (
        "certificate",
        "HTTPS is inspected on this network: set LAB_CA_BUNDLE to a file of the certificates to trust.",
    ),
    (
        "could not resolve",
        "Containers cannot resolve names: check the engine's DNS, or set HTTP_PROXY and HTTPS_PROXY.",
    ),
    ("temporary failure", "Containers cannot resolve names: check the engine's DNS."),
    (
        "do not match the hashes",
        "A downloaded package is not the one that the lock names.",
    ),
    ("cannot connect to the docker daemon", "The engine went away: `lab doctor` checks it."),
    ("timed out", "The network is slow or blocked; run the command again."),
)


class Images(dict[str, str]):
    """Image name → reference; what could not be had is absent, with its reason in ``unavailable``."""

    def __init__(self, found: Mapping[str, str], unavailable: Mapping[str, str]) -> None:
        super().__init__(found)
        self.unavailable = dict(unavailable)


def images_root() -> Path:
    """The folder with one folder an image."""
    return project_root() / "compose" / "images"


def postgres_major() -> str:
    """The major version of PostgreSQL that the image is built with, as its Dockerfile says."""
    text = (images_root() / "postgres" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"\bpostgresql-(\d+)\b", text)
    if found is None:
        raise LabError("compose/images/postgres/Dockerfile does not say which PostgreSQL it installs")
    return found[1]


def step_of(line: str) -> str | None:
    """What a line of build output says of the step begun, for legacy builder and BuildKit alike."""
    match = _STEP.match(line)
    if not match:
        return None
    what = re.sub(r"\s+", " ", match["what"])
    return f"{match['legacy'] or match['buildkit']} {what[:56]}"


def hint_of(text: str) -> str | None:
    """What to do about a failed build, by what its output says."""
    low = text.lower()
    return next((hint for sign, hint in _HINTS if sign in low), None)


def ensure_images(names: Iterable[str], *, progress: Progress) -> Images:
    """Make sure that the engine has the images, building what is missing, two at a time.

    Args:
        names: image names (``postgres``, ``pgbouncer``, …), see ``IMAGES``.
        progress: told of every step, by image.

    Returns:
        References by name. An optional image that could not be had is absent, see ``unavailable``.

    Raises:
        EngineError: a build failed; the message holds its last lines, the hint names the full log.
        ValueError: there is no such image.
    """
    asked = set(names)
    unknown = sorted(asked - set(IMAGES))
    if unknown:
        raise ValueError(f"no such image: {', '.join(unknown)}")
    wanted = [name for name in IMAGES if name in asked]
    suites = {name: base_suite((images_root() / name / "Dockerfile").read_text("utf-8")) for name in wanted}
    session = _Session(progress)
    try:
        if missing := [name for name in wanted if not session.present(name, suites[name])]:
            # One build of the lab's images at a time, so that none is built twice or loses its stages.
            with _build_lock():
                session.bases({suites[name] for name in missing})
                session.build_all(missing, suites)
                if session.built:
                    _drop_build_stages()
    finally:
        session.end()
    return Images(
        {name: session.found[name] for name in wanted if name in session.found}, session.unavailable
    )


@contextlib.contextmanager
def _build_lock() -> Iterator[None]:
    path = Path(tempfile.gettempdir()) / f"pglab-build-{os.getuid()}.lock"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Session:
    """One call of ``ensure_images``: its logs and its running commands."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False
        self._kept: set[Path] = set()
        self._logs = Path(tempfile.mkdtemp(prefix="pglab-build-"))
        self._environment = build_environment()
        self.built = False
        self.found: dict[str, str] = {}
        self.unavailable: dict[str, str] = {}

    def tell(self, name: str, what: str) -> None:
        with self._lock:
            self._progress(name, what)

    def present(self, name: str, suite: str) -> bool:
        """Whether the engine has the image as it would be built now."""
        base = image_id(f"debian:{suite}-slim")
        reference = _reference(name, base) if base else None
        if reference is None or image_id(reference) is None:
            return False
        self.found[name] = reference
        self.tell(name, "present")
        return True

    def bases(self, suites: Iterable[str]) -> None:
        """Pull or make the base images that are missing."""
        for suite in sorted(suites):
            reference = f"debian:{suite}-slim"
            if image_id(reference) is not None:
                continue
            self.tell(reference, "pulling or making the base image")
            script = project_root() / "compose" / "host" / "base.sh"
            code, log = self.command(f"base-{suite}", reference, ["bash", str(script), suite])
            if code != 0:
                raise self.failure(f"the base image {reference} could not be had", log)
            self.tell(reference, "ready")

    def build_all(self, names: Iterable[str], suites: Mapping[str, str]) -> None:
        """Build images, two at a time.

        Raises:
            EngineError: one that the lab cannot do without failed.
        """
        pool = ThreadPoolExecutor(PARALLEL_BUILDS, thread_name_prefix="build")
        try:
            futures = {pool.submit(self.image, name, suites[name]): name for name in names}
            for future in as_completed(futures):
                name = futures[future]
                try:
                    self.found[name] = future.result()
                except EngineError as error:
                    if name not in OPTIONAL:
                        raise
                    self.unavailable[name] = f"{error} {error.hint or ''}".strip()
                    self.tell(name, "not available")
        finally:
            # On Ctrl-C or a failure, builds still running would hold the threads and the engine.
            self.kill()
            pool.shutdown(wait=True, cancel_futures=True)

    def image(self, name: str, suite: str) -> str:
        """Reference of an image, built where it is missing (another process may have built it by now)."""
        if self.present(name, suite):
            return self.found[name]
        base = image_id(f"debian:{suite}-slim")
        if base is None:
            raise EngineError(f"the base image debian:{suite}-slim is gone though it was just there")
        files = context_files(images_root() / name)
        reference = _reference(name, base)
        arguments: dict[str, str | None] = {}
        if name == "toxiproxy":
            arguments["SOURCE"] = self._toxiproxy_source(files, base)
        elif "requirements.lock" in files:
            arguments |= {key: None for key in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") if key in os.environ}
        self.build(name, reference, "Dockerfile", files, arguments)
        return reference

    def _toxiproxy_source(self, files: Mapping[str, tuple[int, bytes]], base: str) -> str:
        """An image with the program at /toxiproxy: the official one, else built from its Go module."""
        if image_id(TOXIPROXY_OFFICIAL) is not None:
            return TOXIPROXY_OFFICIAL
        only = {"Dockerfile.source": files["Dockerfile.source"]}
        reference = f"pglab/toxiproxy-source:{context_hash(only, base, TOXIPROXY_VERSION)}"
        if image_id(reference) is not None:
            return reference
        self.tell("toxiproxy", "asking for the official image")
        code, _ = self.command(
            "toxiproxy-pull", "toxiproxy", ["docker", "pull", TOXIPROXY_OFFICIAL], PULL_LIMIT_S
        )
        if code == 0:
            return TOXIPROXY_OFFICIAL
        arguments: dict[str, str | None] = {"VERSION": TOXIPROXY_VERSION, **go_settings()}
        self.build("toxiproxy", reference, "Dockerfile.source", only, arguments)
        return reference

    def build(
        self,
        name: str,
        reference: str,
        dockerfile: str,
        files: Mapping[str, tuple[int, bytes]],
        arguments: Mapping[str, str | None],
    ) -> None:
        """Build one image; a build argument of None takes its value from the environment.

        Raises:
            EngineError: it failed.
        """
        began = time.monotonic()
        proxies = [key for key in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if os.environ.get(key)]
        argv = [
            "docker",
            "build",
            "--force-rm",
            "--tag",
            reference,
            "--file",
            dockerfile,
            "--label",
            f"pglab.image={name}",
        ]
        for key, value in {**dict.fromkeys(proxies), **arguments}.items():
            argv += ["--build-arg", key if value is None else f"{key}={value}"]
        bundle = ca_bundle()
        tar = context_tar(files, bundle.read_bytes() if bundle else b"")
        self.tell(name, "building")
        code, log = self.command(name, name, [*argv, "-"], stdin=tar)
        if code != 0:
            raise self.failure(f"the image {name} could not be built", log)
        self.built = True
        self.tell(name, f"built in {time.monotonic() - began:.0f} s")

    def command(
        self, log_name: str, name: str, argv: list[str], limit_s: float | None = None, stdin: bytes = b""
    ) -> tuple[int, Path]:
        """Run a command, its output going to a log and its steps to the progress. Exit code and log."""
        log = self._logs / f"{log_name}.log"
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        except FileNotFoundError as error:
            raise EngineError(f"{argv[0]} is not installed", hint="`make setup` installs it.") from error
        with self._lock:
            self._running.add(process)
            if self._ended:
                process.kill()
        timer = threading.Timer(limit_s, process.kill) if limit_s else None
        feeder = threading.Thread(target=_feed, args=(process, stdin), daemon=True)
        try:
            if timer:
                timer.start()
            feeder.start()
            assert process.stdout is not None
            with log.open("ab") as file:
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    step = step_of(line.decode("utf-8", "replace"))
                    if step:
                        self.tell(name, step)
            return process.wait(), log
        finally:
            if timer:
                timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
            feeder.join(timeout=5)
            with self._lock:
                self._running.discard(process)

    def failure(self, what: str, log: Path) -> EngineError:
        if not self._ended:  # what was killed did not fail
            self._kept.add(log)
        text = _COLOUR.sub("", log.read_text("utf-8", "replace"))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        last = "\n".join(f"    {line[:300]}" for line in lines[-LAST_LINES:])
        advice = hint_of("\n".join(lines[-60:]))
        return EngineError(
            f"{what}; its last lines:\n{last}", hint=f"{advice or 'See the log.'} Full log: {log}"
        )

    def kill(self) -> None:
        """Kill what still runs; nothing starts any more."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()

    def end(self) -> None:
        """Drop every log that no error message names."""
        for log in self._logs.iterdir():
            if log not in self._kept:
                log.unlink()
        if not self._kept:
            self._logs.rmdir()


def _reference(name: str, base: str) -> str:
    """The tag that an image has with its present context on a base image of this id."""
    extra = (TOXIPROXY_VERSION,) if name == "toxiproxy" else ()
    return f"pglab/{name}:{context_hash(context_files(images_root() / name), base, *extra)}"


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(data)
        process.stdin.close()
    except OSError:
        pass  # the command ended first; its exit code tells why


def image_id(reference: str) -> str | None:
    """Id of an image that the engine has, else None.

    Raises:
        EngineError: the engine does not answer.
    """
    from docker.errors import ImageNotFound

    from lab.deploy.engine import api, engine_errors

    with engine_errors(f"look for the image {reference}"):
        try:
            return str(api().inspect_image(reference)["Id"])  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None


def _drop_build_stages() -> None:
    """Remove what the legacy builder leaves of build stages (compilers, pip's stage), by their label."""
    from lab.deploy.engine import api, engine_errors

    with engine_errors("remove build stages"):
        api().prune_images(filters={"dangling": True, "label": "pglab.stage=build"})  # type: ignore[no-untyped-call]
