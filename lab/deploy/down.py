"""Taking a lab down: everything that carries its label, by id, and its state folder.

Works for whole labs, half-made ones, and labs whose files were removed: what counts is what the engine has.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import docker.errors

from lab.deploy import state
from lab.deploy.docker_driver import LABEL_LAB
from lab.deploy.engine import api, engine_errors
from lab.errors import EngineError, LabError, NetworkKept

LABEL_PROJECT = "com.docker.compose.project"
_PARALLEL = 8
_SETTLE_S = 0.3
"""A Compose that outlived its `lab up` may still be making things: look again after this pause."""
_GIVE_UP_S = 60.0
_LET_GO_S = 10.0
"""How long a busy engine may take to let go of a network or volume whose containers are gone."""


@dataclass
class Removed:
    """What was taken away."""

    lab: str
    containers: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    folder: bool = False
    stuck: list[str] = field(default_factory=list)
    """Networks of which nothing is left but the engine's refusal to remove them."""

    def __bool__(self) -> bool:
        return bool(self.containers or self.networks or self.volumes or self.folder)

    def __str__(self) -> str:
        parts = [
            f"{len(things)} {kind}{'' if len(things) == 1 else 's'}"
            for kind, things in (
                ("container", self.containers),
                ("network", self.networks),
                ("volume", self.volumes),
            )
            if things
        ]
        if self.folder:
            parts.append("its folder with the secrets")
        return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def project_of(lab: str) -> str:
    """The Compose project of a lab."""
    return f"pglab-{lab}"


def existing_labs() -> list[str]:
    """Every lab of which the engine or the state folder has anything."""
    names = set(state.lab_names())
    with engine_errors("look for labs"):
        things = [
            *(c.get("Labels") for c in api().containers(all=True, filters={"label": [LABEL_LAB]})),
            *(n.get("Labels") for n in api().networks(filters={"label": [LABEL_LAB]})),
            *(v.get("Labels") for v in api().volumes(filters={"label": [LABEL_LAB]})["Volumes"] or ()),
        ]
    names |= {labels[LABEL_LAB] for labels in things if labels and LABEL_LAB in labels}
    return sorted(names)


def down(name: str) -> Removed:
    """Remove a lab with everything that it owns. Nothing there is no error: the result is then empty.

    Raises:
        NetworkKept: everything has gone but networks that the engine does not let go of (they are named).
        EngineError: the engine does not answer, or does not let go of something else (it is named).
    """
    state.check_name(name)
    with uninterrupted():
        removed = remove_from_engine(name, look_twice=not (state.lab_dir(name) / state.READY).exists())
        with state.allocation_lock():
            removed.folder = state.remove(name)
            state.remove_root_if_empty()
    if removed.stuck:
        raise NetworkKept(
            f"lab {name}: removed {removed}, but the engine does not let go of {', '.join(removed.stuck)}",
            hint="Nothing is attached to it: the engine lost count of its endpoints. Restarting the engine "
            f"mends that; then `lab down --name {name}` removes it. Other labs are not affected.",
        )
    return removed


def remove_from_engine(name: str, *, look_twice: bool) -> Removed:
    """Remove what the engine has of a lab, until there is nothing left.

    Args:
        name: of the lab.
        look_twice: look again after a pause although nothing was found, for unfinished labs.
    """
    removed = Removed(name)
    deadline: float | None = None
    while True:
        found = _remove_once(name, removed)
        # The first pass may take its time on a busy machine: only what comes after it is made anew.
        deadline = deadline or time.monotonic() + _GIVE_UP_S
        if not found:
            if not look_twice:
                return removed
            look_twice = False
            time.sleep(_SETTLE_S)
        elif time.monotonic() > deadline:
            raise EngineError(
                f"lab {name}: something is made anew as fast as it is removed",
                hint="Is another `lab up` or `docker compose up` of it still running?",
            )


def _remove_once(name: str, removed: Removed) -> bool:
    """Remove what there is now. False where there was nothing."""
    containers = _by_label(lambda f: api().containers(all=True, filters=f), name)
    with ThreadPoolExecutor(_PARALLEL) as threads:
        list(threads.map(lambda c: _gone(api().remove_container, c["Id"], v=True, force=True), containers))
    removed.containers += [c["Names"][0].lstrip("/") for c in containers if c.get("Names")]
    networks = _by_label(lambda f: api().networks(filters=f), name)
    networks = [network for network in networks if network["Name"] not in removed.stuck]
    with ThreadPoolExecutor(_PARALLEL) as threads:
        names = {*removed.containers, *_container_names(name)}
        gone = list(threads.map(lambda network: _remove_network(network, names), networks))
    removed.networks += [n["Name"] for n, ok in zip(networks, gone, strict=True) if ok]
    removed.stuck += [n["Name"] for n, ok in zip(networks, gone, strict=True) if not ok]
    volumes = _by_label(lambda f: api().volumes(filters=f)["Volumes"] or [], name, key="Name")
    with ThreadPoolExecutor(_PARALLEL) as threads:
        list(threads.map(lambda v: _gone(api().remove_volume, v["Name"], force=True), volumes))
    removed.volumes += [v["Name"] for v in volumes]
    return bool(containers or networks or volumes)


def _by_label(ask: Callable[[dict[str, Any]], list[Any]], name: str, key: str = "Id") -> list[Any]:
    """Everything with the lab's own label, or with the label of its Compose project."""
    found = {}
    with engine_errors(f"look for what lab {name} owns"):
        for label in (f"{LABEL_LAB}={name}", f"{LABEL_PROJECT}={project_of(name)}"):
            found.update({thing[key]: thing for thing in ask({"label": [label]})})
    return list(found.values())


def _container_names(name: str) -> list[str]:
    """Names that Compose gives the lab's containers, from its allocation; none where that is gone."""
    try:
        nodes = state.load_allocation(name).addresses
    except LabError:
        return []
    return [f"{project_of(name)}-{node}-1" for node in nodes]


def _remove_network(network: dict[str, Any], containers: set[str]) -> bool:
    """Remove a network. False where the engine does not let go of it although nothing is attached.

    Detaches what is not the lab's own but was attached by hand. And an engine may keep the endpoint of a
    container that was removed while it was being started: it is dropped by the container's name.
    """
    with engine_errors(f"detach from network {network['Name']}"), contextlib.suppress(docker.errors.NotFound):
        attached = api().inspect_network(network["Id"]).get("Containers") or {}
        for container in attached:
            api().disconnect_container_from_network(container, network["Id"], force=True)

    def drop_endpoints() -> None:
        for container in containers:
            with contextlib.suppress(docker.errors.APIError):  # it has none: the usual case
                api().disconnect_container_from_network(container, network["Id"], force=True)

    try:
        _gone(api().remove_network, network["Id"], when_busy=drop_endpoints)
    except EngineError as error:
        if "active endpoints" not in str(error):
            raise
        return False
    return True


def _gone(
    remove: Callable[..., Any], what: str, *, when_busy: Callable[[], None] | None = None, **options: Any
) -> None:
    """Remove one thing; that it has gone or is going already is fine."""
    deadline = time.monotonic() + _LET_GO_S
    while True:
        with engine_errors(f"remove {what[:24]}"):
            try:
                remove(what, **options)
                return
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                busy = error.status_code == 409 or "in use" in str(error) or "active endpoints" in str(error)
                if not busy or time.monotonic() > deadline:
                    raise
                if when_busy is not None:
                    when_busy()
        time.sleep(0.1)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Clean-up goes on to its end, whatever signals come. Only the main thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
