"""The state folder of a lab, ``.lab/<name>/`` (0700): what a later command needs to find it again.

``allocation.json``, ``topology.yaml`` (with the overrides applied), ``secrets.env`` (0600),
``ca.crt``, ``pgpass`` (0600), ``journal.jsonl`` and ``lock``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

import lab as package
from lab.deploy.allocation import Allocation
from lab.errors import LabError, UsageError
from lab.topology.models import Topology

_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}$")

ALLOCATION = "allocation.json"
TOPOLOGY = "topology.yaml"
READY = "ready"
"""Exists once ``lab up`` has seen the lab ready."""


def project_root() -> Path:
    """The folder that holds ``compose/`` and ``.lab/``."""
    return Path(package.__file__).resolve().parent.parent


def state_root() -> Path:
    """``.lab`` of the project, or ``LAB_STATE_DIR`` where that is set."""
    given = os.environ.get("LAB_STATE_DIR")
    return Path(given) if given else project_root() / ".lab"


def check_name(name: str) -> str:
    """The name of a lab becomes part of container names and of a path.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.match(name):
        raise UsageError(
            f"{name!r} is not a name for a lab",
            hint="Use up to 31 small letters, digits and dashes, a letter first, such as `risk-prod-2`.",
        )
    return name


def lab_dir(name: str) -> Path:
    """The lab's own folder, whether it exists or not."""
    return state_root() / check_name(name)


def lab_names() -> list[str]:
    """Every lab that has a state folder, half-made ones too."""
    root = state_root()
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if p.is_dir() and _NAME.match(p.name))


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can look into."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step; it never exists half-written or readable by others."""
    part = path.with_name(path.name + ".part")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> LabError:
    hint = None
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "Check who owns the folder, or set LAB_STATE_DIR to one that you may write to."
    elif error.errno == errno.ENOSPC:
        hint = "The disk is full: free some space and try again."
    return LabError(f"cannot write {path}: {error.strerror}", hint=hint)


def save(topology: Topology, allocation: Allocation) -> None:
    """Write what later commands need to open the lab."""
    folder = lab_dir(allocation.lab)
    make_private(folder)
    dumped = topology.model_dump(mode="json")
    write_private(folder / TOPOLOGY, yaml.safe_dump(dumped, sort_keys=False, allow_unicode=True))
    write_private(folder / ALLOCATION, allocation.model_dump_json(indent=1) + "\n")


def load_allocation(name: str) -> Allocation:
    """The allocation of a lab.

    Raises:
        UsageError: there is no lab of that name.
        LabError: its file is damaged.
    """
    path = lab_dir(name) / ALLOCATION
    try:
        return Allocation.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        others = [n for n in lab_names() if (lab_dir(n) / ALLOCATION).exists()]
        hint = f"Labs here: {', '.join(others)}." if others else "`lab up risk-prod` brings one up."
        if lab_dir(name).exists():
            raise LabError(
                f"lab {name} was only half made", hint=f"`lab down --name {name}` removes what is left of it."
            ) from error
        raise UsageError(f"there is no lab named {name}", hint=hint) from error
    except (ValidationError, OSError) as error:
        raise LabError(
            f"{path} is damaged or unreadable", hint=f"`lab down --name {name}` removes the lab."
        ) from error


def load_topology(name: str) -> Topology:
    """The topology that a lab runs, overrides applied.

    Raises:
        LabError: its file is missing or damaged.
    """
    path = lab_dir(name) / TOPOLOGY
    try:
        return Topology.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise LabError(
            f"{path} is missing or damaged", hint=f"`lab down --name {name}` removes the lab."
        ) from error


def the_lab(name: str | None) -> str:
    """The lab that a command means: the named one, or the only one that there is.

    Raises:
        UsageError: none, or several and none named.
    """
    if name is not None:
        return check_name(name)
    names = lab_names()
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError("no lab is up", hint="`lab up risk-prod` brings one up.")
    raise UsageError(f"several labs are up: {', '.join(names)}", hint="Say which one with `--name`.")


def remove(name: str) -> bool:
    """Remove the lab's folder with everything in it. False where there was none."""
    folder = lab_dir(name)
    if not folder.exists():
        return False
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise LabError(f"cannot remove {folder}: {error.strerror}") from error
    return True


def allocation_lock() -> contextlib.AbstractContextManager[None]:
    """Serialises what must not happen in two processes at once: choosing addresses, removing folders."""
    return exclusive(
        state_root() / "lock", wait_s=60, busy="another `lab up` or `lab down` holds the allocation lock"
    )


def remove_root_if_empty() -> None:
    """Remove ``.lab`` when the last lab is gone. Call with the allocation lock held."""
    if lab_names():
        return
    with contextlib.suppress(OSError):
        (state_root() / "lock").unlink(missing_ok=True)
        state_root().rmdir()


@contextlib.contextmanager
def exclusive(path: Path, *, wait_s: float, busy: str) -> Iterator[None]:
    """Hold a file lock; the kernel lets go of it when the process ends, however it ends.

    Args:
        path: the lock file, made where it is missing.
        wait_s: how long to wait for another process.
        busy: the message when it does not let go.

    Raises:
        LabError: another process holds it.
    """
    deadline = time.monotonic() + wait_s
    while True:
        make_private(path.parent)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # its folder went in between
        except OSError as error:
            raise _cannot_write(path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            if time.monotonic() >= deadline:
                raise LabError(busy, hint="Wait until it is done, or end it.") from error
            time.sleep(0.05)
            continue
        if _is_file(handle, path):
            break
        os.close(handle)  # removed by its last holder; the lock that counts is the new file's
    try:
        yield
    finally:
        os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock file."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
