"""The connection to the container engine: address, clients, and what its errors mean to a user.

The engine is the one that the ``docker`` command line would use: ``DOCKER_HOST`` where it is set,
else the current Docker context, so that Compose and the SDK can never talk to different engines.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import docker
import docker.errors
import docker.utils
import requests.exceptions
import urllib3.exceptions

from lab.errors import EngineError, LabError

CALL_TIMEOUT_S = 60.0
"""Limit of one call of the engine's API; an engine that is busy removing volumes takes seconds."""

HINT_NO_ENGINE = (
    "Start Docker (for example `sudo systemctl start docker`, or Docker Desktop), check that "
    "`docker version` shows a server and that your user may use it; `lab doctor` checks the rest."
)

_threads = threading.local()


@lru_cache(maxsize=1)
def _address() -> dict[str, Any]:
    """Keyword arguments of ``docker.APIClient`` for the engine that the command line uses."""
    if os.environ.get("DOCKER_HOST"):
        return dict(docker.utils.kwargs_from_env())
    try:
        context = docker.ContextAPI.get_context()
        if context is not None and context.Host:
            return {"base_url": context.Host, "tls": context.TLSConfig or False}
    except (docker.errors.DockerException, OSError, KeyError, ValueError):
        pass  # a damaged context file: the default socket is the best guess
    return {}


def is_local() -> bool:
    """Whether the engine is reached through a socket of this machine."""
    base = str(_address().get("base_url") or "unix://")
    return base.startswith(("unix:", "http+unix:", "npipe:"))


class _Held:
    """A client that is closed when the thread that holds it ends."""

    def __init__(self, client: docker.APIClient) -> None:
        self.client = client

    def __del__(self) -> None:
        with suppress(Exception):
            self.client.close()


def api() -> docker.APIClient:
    """The low-level client of the calling thread (sessions of `requests` are not thread-safe).

    Raises:
        EngineError: no engine answers.
    """
    held: _Held | None = getattr(_threads, "held", None)
    if held is None:
        with engine_errors("connect to the container engine"):
            held = _Held(docker.APIClient(version="auto", timeout=int(CALL_TIMEOUT_S), **_address()))
        _threads.held = held
    return held.client


def forget_client() -> None:
    """Close the calling thread's client; its next call connects anew."""
    _threads.held = None


atexit.register(forget_client)


def read_archive(container: str, path: str) -> bytes:
    """A path of a container as a tar archive, read to its end even if Ctrl-C comes meanwhile.

    The engine holds the container's lock until the stream was read: one that was left half read would make
    its removal wait for `CALL_TIMEOUT_S`. So another thread reads, which no signal interrupts.
    """
    client, done = api(), Future[bytes]()

    def read() -> None:
        try:
            chunks, _ = client.get_archive(container, path)
            done.set_result(b"".join(chunks))
        except BaseException as error:  # handed to the calling thread
            done.set_exception(error)

    try:
        threading.Thread(target=read, name="read-archive", daemon=True).start()
        return done.result()
    except KeyboardInterrupt:
        wait((done,), timeout=CALL_TIMEOUT_S)
        raise


@contextmanager
def engine_errors(action: str) -> Iterator[None]:
    """Turn whatever the SDK raises into one EngineError that says what was being done.

    Args:
        action: completes the sentence "could not …".
    """
    try:
        yield
    except LabError:
        raise
    except docker.errors.NotFound as error:
        raise EngineError(f"could not {action}: {error.explanation or error}") from error
    except docker.errors.APIError as error:
        text = f"could not {action}: {error.explanation or error}"
        raise EngineError(text, hint=_hint(str(error))) from error
    except docker.errors.DockerException as error:
        raise EngineError(f"could not {action}: {_short(error)}", hint=HINT_NO_ENGINE) from error
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
        raise EngineError(
            f"could not {action}: the engine did not answer in time",
            hint="The engine is overloaded or hangs: look at its log and at free memory (`lab doctor`).",
        ) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        forget_client()
        raise EngineError(f"could not {action}: {_short(error)}", hint=HINT_NO_ENGINE) from error


def _hint(text: str) -> str | None:
    low = text.lower()
    if "no space left" in low:
        return "The engine's disk is full: `docker system df` shows by what, `docker system prune` frees it."
    if "port is already allocated" in low or "address already in use" in low:
        return "Something else took the port in between; run the command again."
    if "permission denied" in low:
        return "Your user may not use the engine: add it to the group `docker`, or use sudo."
    return None


def _short(error: BaseException) -> str:
    """The innermost reason of a chain of wrapped connection errors, on one line."""
    text = str(error)
    low = text.lower()
    if "permission denied" in low or "permissionerror" in low:
        return "permission denied on the engine's socket"
    if "no such file" in low or "filenotfound" in low:
        return "its socket does not exist (no engine is running)"
    if "connection refused" in low or "connectionrefused" in low:
        return "connection refused (no engine is running)"
    return text.splitlines()[0][:300] if text else type(error).__name__
