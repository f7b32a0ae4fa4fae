"""Cache-aside: look in Redis; what is not there is loaded from the database and put there with a TTL.

A cache that fails is passed by: the value comes from the database, and the cache is tried again a moment
later. Every command is a row of the record, at the endpoint of the node that it went to. Where Sentinels
stand beside the nodes they are asked for the primary, at the start and after each failure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any

import gevent
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from loadtests.config import CacheConfig, CacheNode
from loadtests.outcomes import OK

if TYPE_CHECKING:
    from loadtests.gauges import Gauges
    from loadtests.recorder import Recorder

TIMEOUT_S = 0.5
"""For a connection and for an answer: a cache that takes longer costs more than it saves."""
AVOID_S = 0.5
"""After a failure the cache is left alone for so long."""
LOCK_MS = 5_000
WAIT_S = 0.01
NS = 1_000_000_000


class Keys:
    """What one process knows of the keys that it filled, shared by its clients."""

    def __init__(self, config: CacheConfig, gauges: Gauges) -> None:
        self.config = config
        self.gauges = gauges
        self.loading: Counter[str] = Counter()
        """Key → loads under way."""
        self.filled: dict[str, tuple[int, int]] = {}
        """Key → moments (ns) at which this process loaded the value and at which the cache said that it has
        it, until it is deleted."""

    def begin(self, key: str) -> None:
        """A client misses a key and loads it."""
        self.loading[key] += 1
        self.gauges.most("cache_simultaneous_loads", self.loading[key])
        self.gauges.count("cache_loads")
        filled = self.filled.pop(key, None)
        # Gone by itself rather than deleted: at its age it can only have expired.
        if filled is not None and monotonic_ns() - filled[1] >= 0.9 * self.config.ttl_s * NS:
            self.gauges.count("cache_expiries")

    def served(self, key: str, loaded_at: int, asked_at: int) -> None:
        """A value came from the cache. Its age there is known for what this process put there itself.

        From the answer that it was stored to the question for it: what the network and a busy client take
        is not the entry's age, and no scaled clock scales it.
        """
        filled = self.filled.get(key)
        if filled is not None and filled[0] == loaded_at:
            self.gauges.most("cache_oldest_hit_seconds", max(0, asked_at - filled[1]) / NS)

    def end(self, key: str) -> None:
        """It has the value, or failed."""
        self.loading[key] -= 1
        if not self.loading[key]:
            del self.loading[key]


class Cache:
    """One client's connection to the cache; for one greenlet at a time."""

    def __init__(self, keys: Keys, recorder: Recorder) -> None:
        self._keys = keys
        self._config = keys.config
        self._record = recorder
        self._password = Path(self._config.password_file).read_text(encoding="utf-8").strip()
        self._client: Any = None
        self._endpoint = (self._config.nodes or self._config.sentinels)[0].name
        self._avoid_until = 0.0

    def get(self, key: str, load: Callable[[], Any]) -> Any:
        """The value of a key, as JSON keeps it; ``load`` gives it where the cache does not have it.

        Raises what ``load`` raises.
        """
        asked_at = monotonic_ns()
        found = self._command("GET", "GET", key)
        if found is not None:
            loaded_at, value = json.loads(found)
            self._keys.served(key, loaded_at, asked_at)
            return value
        if self._config.coalesce and not self._may_load(key):
            waited = self._await(key)
            if waited is not None:
                return waited
        return self._fill(key, load)

    def _fill(self, key: str, load: Callable[[], Any]) -> Any:
        self._keys.begin(key)
        try:
            loaded_at = monotonic_ns()
            text = json.dumps([loaded_at, load()], default=str)
        finally:
            self._keys.end(key)
        if self._command("SET", "SET", key, text, "PX", round(self._config.ttl_s * 1000)) is not None:
            self._keys.filled[key] = loaded_at, monotonic_ns()
        return json.loads(text)[1]

    def _may_load(self, key: str) -> bool:
        return self._command("SET lock", "SET", f"lock:{key}", "1", "NX", "PX", LOCK_MS) is not None

    def _await(self, key: str) -> Any:
        """What another client loads, None where it does not come in time."""
        until = monotonic() + LOCK_MS / 1000
        while monotonic() < until and self._client is not None:
            gevent.sleep(WAIT_S)
            found = self._command("GET wait", "GET", key)
            if found is not None:
                return json.loads(found)[1]
        return None

    def forget(self, *keys: str) -> None:
        """Delete keys whose value was changed in the database."""
        for key in keys:
            self._keys.filled.pop(key, None)
        self._command("DEL", "DEL", *keys)

    def session(self, key: str, lives_s: float) -> bool:
        """Look a session up and prolong its life; False where there is none (or no cache)."""
        return self._command("GETEX session", "GETEX", key, "EX", max(1, round(lives_s))) is not None

    def log_in(self, key: str, value: str, lives_s: float) -> None:
        """Begin a session."""
        self._command("SET session", "SET", key, value, "EX", max(1, round(lives_s)))

    def connect(self) -> None:
        """Connect ahead of the first command; a failure shows with that one."""
        self._command("PING", "PING")

    def close(self) -> None:
        """Close the connection. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _command(self, name: str, *words: Any) -> Any:
        """Send one command and record it; None where the answer is nil, or where the cache failed."""
        if monotonic() < self._avoid_until:
            return None
        words = self._with_prefix(words)
        begin = monotonic_ns()
        answer = None
        try:
            if self._client is None:
                self._client = self._open()
            answer = self._client.execute_command(*words)
            outcome = OK
        except (redis.RedisError, OSError) as error:
            outcome = classify(error)
            self.close()
            self._avoid_until = monotonic() + AVOID_S
        if words[0] == "GET" and outcome == OK:
            name = f"{name} {'miss' if answer is None else 'hit'}"
        record = self._record
        record.add(
            begin, begin, monotonic_ns(), record.id("name", f"redis {name}"),
            record.id("endpoint", self._endpoint), record.id("outcome", outcome),
        )  # fmt: skip
        return answer

    def _with_prefix(self, words: tuple[Any, ...]) -> tuple[Any, ...]:
        name, *rest = words
        keys = len(rest) if name == "DEL" else min(1, len(rest))
        return name, *(f"{self._config.prefix}{key}" for key in rest[:keys]), *rest[keys:]

    def _open(self) -> Any:
        node = self._primary()
        self._endpoint = node.name
        return self._connection(node)

    def _primary(self) -> CacheNode:
        """The node that leads. redis.ConnectionError where no Sentinel tells."""
        if not self._config.sentinels:
            return self._config.nodes[0]
        last: Exception | None = None
        for sentinel in self._config.sentinels:
            client = self._connection(sentinel)
            try:
                answer = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._config.service)
            except (redis.RedisError, OSError) as error:
                last = error
                continue
            finally:
                client.close()
            host = _text(answer[0]) if answer else ""
            for node in self._config.nodes:
                if host in (node.announced, node.address):
                    return node
            last = redis.ConnectionError(f"the Sentinels name {host or 'no node'}, which is not the cache's")
        raise redis.ConnectionError(str(last))

    def _connection(self, node: CacheNode) -> Any:
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": self._config.ca_file, "ssl_cert_reqs": "required"}
        return redis.Redis(
            host=node.address,
            port=node.port,
            password=self._password,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # Its own would try again up to 3 times, seconds apart.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **(tls if self._config.tls else {}),
        )


def classify(error: BaseException) -> str:
    """The outcome that a failure of the cache stands for; a server's error by its first word."""
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return "client:timeout"
    if isinstance(error, redis.ConnectionError | OSError):
        return "client:refused" if "refused" in str(error).lower() else "client:closed"
    return f"redis:{(str(error).split() or ['error'])[0]}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
