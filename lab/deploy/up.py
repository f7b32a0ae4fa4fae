"""Bringing a lab up: allocate, make secrets, render, start with Compose, wait for the truth.

Whatever goes wrong on the way (an error, Ctrl-C, SIGTERM), nothing is left behind. After ``kill -9`` the
next ``lab up`` or ``lab down`` of that name finds the unfinished lab and removes it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab.deploy import state
from lab.deploy.allocate import allocate, look_at_machine
from lab.deploy.allocation import Allocation
from lab.deploy.diagnose import explain_dead
from lab.deploy.differences import notes
from lab.deploy.docker_driver import LABEL_LAB, LABEL_SERVICE, DockerLab, find_nodes
from lab.deploy.down import Removed, down, remove_from_engine
from lab.deploy.endpoints import images_of
from lab.deploy.engine import api, engine_errors, read_archive
from lab.deploy.images import Images, ensure_images
from lab.deploy.readiness import Check, wait_ready
from lab.deploy.render import render
from lab.deploy.secrets import FILE as SECRETS
from lab.deploy.secrets import make_secrets, save_secrets
from lab.errors import EngineError, LabError, UsageError
from lab.topology.models import Topology

PROJECT = "project"
"""Folder of the rendered files within the lab's state folder."""
_POLL_S = 0.3
_COMPOSE_ENVIRONMENT = ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_ENV_FILES")


class Reporter(Protocol):
    """Who is told how far it is."""

    def stage(self, text: str) -> None:
        """Something begins."""

    def note(self, text: str) -> None:
        """Something worth knowing that is no error."""

    def image(self, name: str, doing: str) -> None:
        """What is being done about an image; called from several threads, one call at a time."""

    def plan(self, nodes: list[str]) -> None:
        """The nodes that will come up."""

    def node(self, name: str, state: str) -> None:
        """A node's state, as the engine calls it."""

    def check(self, check: Check) -> None:
        """A readiness check changed."""


class Silent:
    """A reporter that tells nobody."""

    def stage(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def image(self, name: str, doing: str) -> None: ...
    def plan(self, nodes: list[str]) -> None: ...
    def node(self, name: str, state: str) -> None: ...
    def check(self, check: Check) -> None: ...


@dataclass(frozen=True)
class Up:
    """What `up` did."""

    lab: DockerLab
    created: bool
    """False where the lab was up already and nothing was changed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage → how long it took: images, allocate, compose, ready, total."""


ALLOCATIONS = 4
"""How often networks and ports are chosen: a lab of another folder of state knows nothing of this one's until
the engine has made its networks."""
TAKEN = ("overlaps with other one on this address space", "port is already allocated")
"""What the engine says where another was quicker."""


def up(name: str, topology: Topology, reporter: Reporter, *, timeout_s: float = 180.0) -> Up:
    """Bring a lab up, or find that it is up already.

    Args:
        name: of the lab.
        topology: with its overrides applied.
        reporter: told about progress.
        timeout_s: limit of the readiness checks, seconds.

    Raises:
        UsageError: a lab of that name runs another topology.
        NotReady: a service did not come up.
        EngineError: no engine, no Compose, or it failed.
        LabError: another command works on that lab.
    """
    began = time.monotonic()
    folder = state.lab_dir(name)
    with engine_errors("reach the container engine"):
        api().ping()
    found = existing(name, topology)
    if found is not None:
        return Up(found, created=False, seconds={"total": time.monotonic() - began})
    with terminated_like_ctrl_c(), state.exclusive(folder / "lock", wait_s=0, busy=_busy(name)):
        found = existing(name, topology)  # another `up` may have finished in between
        if found is not None:
            return Up(found, created=False, seconds={"total": time.monotonic() - began})
        try:
            lab, seconds = _make(name, topology, reporter, timeout_s)
        except BaseException as error:
            reporter.stage(
                "cleaning up" if not isinstance(error, KeyboardInterrupt) else "interrupted: cleaning up"
            )
            _clean_up(name, error)
            raise
    seconds["total"] = time.monotonic() - began
    return Up(lab, created=True, seconds=seconds)


def _busy(name: str) -> str:
    return f"another command is working on lab {name}"


def _clean_up(name: str, error: BaseException) -> None:
    """Remove what was made. Where even that fails, the first error stays the one that is told."""
    try:
        down(name)
    except LabError as second:
        if isinstance(error, LabError):
            also = f"Not all of it could be removed ({second}): `lab down --name {name}`."
            error.hint = f"{error.hint} {also}" if error.hint else also


def existing(name: str, topology: Topology) -> DockerLab | None:
    """The lab of that name where it is up with that topology; None where there is none.

    Raises:
        UsageError: it runs another topology.
        LabError: parts of it are dead.
    """
    folder = state.lab_dir(name)
    if not (folder / state.READY).exists():
        return None
    running = state.load_topology(name)
    if running != topology:
        other = (
            f"topology {running.name}"
            if running.name != topology.name
            else "the topology with other settings"
        )
        raise UsageError(
            f"lab {name} is up and runs {other}",
            hint=f"Choose another name with `--name`, or run `lab down --name {name}` first.",
        )
    lab = DockerLab.open(name)
    dead = [node.name for node in lab.nodes.values() if not node.state().running]
    if dead:
        raise LabError(
            f"lab {name} is up, but not whole: {', '.join(dead)} not running",
            hint=f"`lab status --name {name}` shows more; `lab down --name {name}` removes it.",
        )
    return lab


def _make(
    name: str, topology: Topology, reporter: Reporter, timeout_s: float
) -> tuple[DockerLab, dict[str, float]]:
    seconds: dict[str, float] = {}
    with _timed(seconds, "images"):
        reporter.stage("images")
        images = ensure_images(set(images_of(topology).values()), progress=reporter.image)
    for attempt in range(ALLOCATIONS):
        with _timed(seconds, "allocate"):
            left = _remove_leftovers(name)
            if left and not attempt:
                reporter.note(f"removed what an unfinished lab {name} had left: {left}")
            allocation = make_allocation(name, topology, images)
            project = write_project(topology, allocation)
        try:
            with _timed(seconds, "compose"):
                reporter.stage("starting")
                lab = DockerLab(name, topology, allocation, {})
                reporter.plan([member.name for member in lab.expected()])
                compose_up(project, allocation, reporter)
            break
        except EngineError as error:
            if attempt + 1 == ALLOCATIONS or not any(word in str(error) for word in TAKEN):
                raise
            reporter.note("somebody else took the same networks or ports at that moment: others are chosen")
    for note in notes(topology, allocation):
        reporter.note(note)
    with _timed(seconds, "ready"):
        lab = DockerLab.open(name)
        reporter.stage("waiting until it works")
        wait_ready(lab, reporter.check, timeout_s)
    state.write_private(lab.state_dir / state.READY, "")
    return lab, seconds


def make_allocation(name: str, topology: Topology, images: Images) -> Allocation:
    """Choose a lab's allocation and keep it, so that no other lab chooses the same."""
    version = postgres_version(images["postgres"], name)
    with state.allocation_lock():
        allocation = allocate(
            name,
            topology,
            look_at_machine(),
            images=images,
            postgres_version=version,
            toxiproxy="toxiproxy" in images,
        )
        state.save(topology, allocation)
    return allocation


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - began


def _remove_leftovers(name: str) -> Removed | None:
    """Remove an unfinished lab of that name, but keep its folder: its lock is ours."""
    folder = state.lab_dir(name)
    removed = remove_from_engine(name, look_twice=(folder / state.ALLOCATION).exists())
    for path in folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed or None


def postgres_version(image: str, lab: str) -> str:
    """The version of PostgreSQL that an image holds, such as ``15.20``, by its own list of packages.

    Read out of a container that never runs; it carries the lab's label, so that it goes with the lab
    should nobody come to remove it.
    """
    with engine_errors("look into the image of PostgreSQL"):
        container = api().create_container(image, labels={LABEL_LAB: lab})["Id"]
        try:
            packed = read_archive(container, "/var/lib/dpkg/status")
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                file = archive.extractfile("status")
                text = file.read().decode() if file else ""
        finally:
            api().remove_container(container, force=True)
    found = re.search(r"^Package: postgresql-\d+\n(?:.+\n)*?Version: (\d+(?:\.\d+)?)", text, re.MULTILINE)
    if found is None:
        raise LabError(f"the image {image} does not say which PostgreSQL it holds")
    return found[1]


def write_project(topology: Topology, allocation: Allocation) -> Path:
    """Render into the lab's folder, and make its secrets. The folder with ``compose.yaml``."""
    folder = state.lab_dir(allocation.lab)
    project = folder / PROJECT
    for relative, text in render(topology, allocation).items():
        path = project / relative
        state.make_private(path.parent)
        state.write_private(path, text)
    save_secrets(folder, make_secrets(topology, allocation))
    return project


def compose_up(project: Path, allocation: Allocation, reporter: Reporter) -> None:
    """``docker compose up --detach`` of a rendered project, telling each node's state meanwhile.

    Raises:
        NotReady: a container ended.
        EngineError: Compose failed otherwise.
    """
    failed: list[BaseException] = []

    def start() -> None:
        try:
            compose(project).start()
        except BaseException as error:  # handed to the calling thread
            failed.append(error)

    thread = threading.Thread(target=start, name="compose-up", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
            for node, seen in node_states(allocation).items():
                reporter.node(node, seen)
    except BaseException:
        # Ctrl-C reaches Compose too, which then ends; nothing may be made behind the clean-up's back.
        thread.join(timeout=30)
        raise
    if failed:
        raise compose_error(failed[0], allocation) from failed[0]


def compose(project: Path) -> Any:
    """testcontainers' handle on the rendered project."""
    from testcontainers.compose import DockerCompose

    logging.getLogger("testcontainers.compose.compose").addHandler(logging.NullHandler())
    logging.getLogger("testcontainers.compose.compose").propagate = False
    for variable in _COMPOSE_ENVIRONMENT:
        os.environ.pop(variable, None)  # each would redirect Compose from the lab's project to another
    return DockerCompose(
        context=project, compose_file_name="compose.yaml", env_file=str(project.parent / SECRETS), wait=False
    )


def node_states(allocation: Allocation) -> dict[str, str]:
    """Node → the engine's word for its container's state (created, running, exited, …)."""
    with engine_errors("list the nodes of the lab"):
        found = api().containers(all=True, filters={"label": [f"{LABEL_LAB}={allocation.lab}"]})
    return {c["Labels"][LABEL_SERVICE]: c["State"] for c in found if LABEL_SERVICE in c["Labels"]}


def compose_error(error: BaseException, allocation: Allocation) -> LabError:
    """What a failed ``docker compose up`` means."""
    if isinstance(error, FileNotFoundError):
        return EngineError(
            "the `docker` command is not installed", hint="Install the Docker command line; `make setup` can."
        )
    if not isinstance(error, subprocess.CalledProcessError):
        return EngineError(f"Compose failed: {error}")
    said = [line for line in (error.stderr or b"").decode(errors="replace").splitlines() if line.strip()]
    text = "\n".join(said)
    if "is not a docker command" in text or "unknown shorthand flag" in text or "unknown command" in text:
        return EngineError(
            "Docker Compose v2 is not installed",
            hint="Install the Compose plugin (`docker compose version`).",
        )
    for node in find_nodes(allocation).values():
        seen = node.state()
        if not seen.running and seen.exit_code not in (0, None) and seen.started_at is not None:
            return explain_dead(node)
    # The last lines tell; those before are Compose's progress.
    reasons = [line.strip() for line in said if "error" in line.lower() or "failed" in line.lower()] or said[
        -3:
    ]
    reason = "; ".join(dict.fromkeys(reasons[-3:])) or "it said nothing"
    low = reason.lower()
    hint = None
    if "port is already allocated" in low or "address already in use" in low:
        hint = "Another program took the port in between: run the command again."
    elif "no space left" in low:
        hint = "The engine's disk is full: `docker system df` shows by what."
    elif "no such image" in low or "pull access denied" in low or "not found: manifest" in low:
        hint = "An image is missing: run the command again, it is then built anew."
    elif "overlaps" in low or "pool overlaps" in low:
        hint = "Another network took the subnet in between: run the command again."
    return EngineError(f"Compose could not start the lab: {reason}", hint=hint)


@contextlib.contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does, so that it cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
