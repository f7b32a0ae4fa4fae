"""The leader watcher: what etcd says of Patroni's leader key, as it happens.

Every etcd member is watched at once through its JSON gateway (``POST /v3/watch``, a stream of one JSON
object a line); the first to tell counts, so that a dead member costs nothing. A watch that is begun
again starts at the revision that was seen last, so that nothing is missed, only learned later: then the
uncertainty is the time since the member was last heard. Where a member's gateway refuses the watch, its
key is read every ``leader_poll_s``.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

from lab.observe.config import Http
from lab.observe.process import Context, now
from lab.observe.rows import Rows, event
from lab.observe.schedule import NS
from lab.observe.threads import stop_event

LIVE_NS = 5_000_000
"""± of an event on a living watch: the way from etcd's apply to here."""
RETRY_S = 0.2
TIMEOUT_S = 1.0


def encode(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


def decode(value: str | None) -> str:
    return base64.b64decode(value or "").decode(errors="replace")


class Story:
    """Turns changes of the keys into events, each revision once, whoever tells it first. Pure."""

    def __init__(self, prefix: str) -> None:
        self.leader_key, self.sync_key = f"{prefix}/leader", f"{prefix}/sync"
        self._begun: set[str] = set()
        self._leader: tuple[int, str | None] = (0, None)
        self._standby: tuple[int, tuple[str, str]] = (0, ("", ""))

    def change(
        self, key: str, value: str | None, revision: int
    ) -> list[tuple[str, str | None, dict[str, Any]]]:
        """(kind, node, detail) of what one change means; ``value`` is None for a deletion.

        The first state that is told of a key is where the story begins, and no event.
        """
        if key not in self._begun:
            self._begun.add(key)
            if key == self.leader_key:
                self._leader = (revision, value)
            elif key == self.sync_key:
                self._standby = (revision, _standbys(value))
            return []
        if key == self.leader_key and revision > self._leader[0]:
            before, self._leader = self._leader[1], (revision, value)
            if value is None and before is None:
                return []
            if value is None:
                return [("leader-expired", before, {"leader": before})]
            return [("leader-elected", value, {"leader": value, "before": before})] if value != before else []
        if key == self.sync_key and revision > self._standby[0]:
            before_sync, after = self._standby[1], _standbys(value)
            self._standby = (revision, after)
            if after[1] and after != before_sync:
                return [("synchronous", after[1].split(",")[0], {"leader": after[0], "standby": after[1]})]
        return []


def _standbys(value: str | None) -> tuple[str, str]:
    """(leader, synchronous standbys) of Patroni's sync key."""
    try:
        data = json.loads(value or "{}")
    except json.JSONDecodeError:
        return "", ""
    if not isinstance(data, dict):
        return "", ""
    return str(data.get("leader") or ""), str(data.get("sync_standby") or "")


class _Member(threading.Thread):
    """Follows one etcd member until the stop."""

    def __init__(
        self,
        source: Http,
        story: Story,
        lock: threading.Lock,
        rows: Rows,
        context: Context,
        stop: threading.Event,
    ) -> None:
        super().__init__(daemon=True, name=source.node)
        url = urllib.parse.urlsplit(source.url)
        self._host, self._port = url.hostname or "", url.port or 2379
        self._story, self._lock, self._rows, self._context, self._stop = story, lock, rows, context, stop
        self._heard = self._heard_of = now()
        self._revision = 0

    def run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                self._follow()
            self._stop.wait(RETRY_S)

    def _follow(self) -> None:
        present = self._present()
        if not self._revision:
            for key in (self._story.leader_key, self._story.sync_key):
                self._tell(key, *present[key], now() - self._heard)
            self._revision = present[""][1]
        known, self._heard_of = present[""][1], self._heard
        for message in self._watch():
            before, self._heard = self._heard, now()
            result = message.get("result", {})
            for item in result.get("events", ()):
                entry = item["kv"]
                revision = int(entry["mod_revision"])
                value = None if item.get("type") == "DELETE" else decode(entry.get("value"))
                late = self._heard - self._heard_of if revision <= known else LIVE_NS
                self._tell(decode(entry["key"]), value, revision, late)
                self._revision = max(self._revision, revision)
            if result.get("canceled") or "error" in message:
                self._revision = 0  # compacted meanwhile: read the keys anew
                self._heard = before
                return

    def _present(self) -> dict[str, tuple[str | None, int]]:
        """Key → its value and revision now; under the empty name the store's own revision."""
        found: dict[str, tuple[str | None, int]] = {}
        for key in (self._story.leader_key, self._story.sync_key):
            body = self._post("/v3/kv/range", {"key": encode(key)})
            entries, revision = body.get("kvs", []), int(body["header"]["revision"])
            found[key] = (
                (decode(entries[0].get("value")), int(entries[0]["mod_revision"]))
                if entries
                else (None, revision)
            )
            found.setdefault("", (None, revision))
        return found

    def _watch(self) -> Iterator[dict[str, Any]]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            prefix = self._story.leader_key.rpartition("/")[0]
            # From …/leader up to the end of …/sync: both keys (and few others) by one watch.
            request = {
                "create_request": {
                    "key": encode(f"{prefix}/leader"),
                    "range_end": encode(f"{prefix}/sync\0"),
                    "start_revision": str(self._revision + 1),
                }
            }
            connection.request("POST", "/v3/watch", json.dumps(request))
            response = connection.getresponse()
            if response.status != 200:
                self._poll()
                return
            if connection.sock is not None:
                _keep_alive(connection.sock)
            while not self._stop.is_set():
                line = response.readline()
                if not line:
                    return
                yield json.loads(line)
        finally:
            connection.close()

    def _poll(self) -> None:
        """Where the watch is refused: read the keys again and again."""
        while not self._stop.wait(self._context.config.probes.leader_poll_s):
            present = self._present()
            before, self._heard = self._heard, now()
            for key in (self._story.leader_key, self._story.sync_key):
                self._tell(key, *present[key], self._heard - before)

    def _tell(self, key: str, value: str | None, revision: int, uncertainty: int) -> None:
        with self._lock:
            for kind, node, detail in self._story.change(key, value, revision):
                detail["revision"] = revision
                detail["member"] = self.name
                self._rows.write(
                    event(
                        now(),
                        kind,
                        self._context.trial,
                        source="etcd",
                        uncertainty=uncertainty,
                        node=node,
                        **detail,
                    )
                )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"etcd answered {response.status}")
            found = json.loads(response.read())
            if not isinstance(found, dict):
                raise ValueError("etcd answered no object")
            return found
        finally:
            connection.close()


def _keep_alive(sock: socket.socket) -> None:
    """A stream is silent for hours: let the kernel find out within 3 s that the other end is gone."""
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 2)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def watch(context: Context) -> None:
    """Process: the leader watcher."""
    stop = stop_event()
    rows = Rows(context.config.out, "events", "etcd")
    story, lock = Story(f"{context.config.namespace}/{context.config.scope}"), threading.Lock()
    for source in context.config.etcd:
        _Member(source, story, lock, rows, context, stop).start()
    stop.wait(max(0.0, (context.end - now()) / NS))
    stop.set()
