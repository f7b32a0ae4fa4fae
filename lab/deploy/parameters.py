"""PostgreSQL's settings, and the arithmetic of the pools."""

from __future__ import annotations

import base64

from lab.deploy.allocation import Allocation, Resources
from lab.deploy.secret_names import REPLICATION, SUPERUSER
from lab.topology.models import TcpTimeouts, Topology
from lab.topology.sizing import size_of

MIB = 1024**2


def base64_key(key: str) -> str:
    """A key as etcd's JSON gateway wants it."""
    return base64.b64encode(key.encode()).decode()


def split_limit(limit: int, writer_share: float) -> tuple[int, int]:
    """(writer, reader) parts of a pool's limit; each at least 1, their sum is the limit."""
    writer = min(max(round(limit * writer_share), 1), limit - 1)
    return writer, limit - writer


def max_connections(topology: Topology) -> int:
    """The default of the primary's instance class, whatever this machine gives it. Never scaled.

    One value for the whole cluster: PostgreSQL wants no less on a standby than on its primary.
    """
    return size_of(topology.postgres.primary).max_connections


def server_timeouts(tcp: TcpTimeouts) -> dict[str, str]:
    """PostgreSQL's settings for half-open connections; 0 leaves a time to the kernel."""
    on = tcp.keepalives
    return {
        "tcp_keepalives_idle": str(tcp.idle if on else 0),
        "tcp_keepalives_interval": str(tcp.interval if on else 0),
        "tcp_keepalives_count": str(tcp.count if on else 0),
        "tcp_user_timeout": f"{tcp.user_timeout:g}s",
    }


def client_timeouts(tcp: TcpTimeouts) -> dict[str, int]:
    """libpq's parameters for half-open connections; ``tcp_user_timeout`` in ms, 0 leaves it to the kernel."""
    found = {"keepalives": int(tcp.keepalives), "tcp_user_timeout": round(tcp.user_timeout * 1000)}
    if tcp.keepalives:
        found |= {
            "keepalives_idle": tcp.idle,
            "keepalives_interval": tcp.interval,
            "keepalives_count": tcp.count,
        }
    return found


def cluster_parameters(topology: Topology) -> dict[str, str]:
    """Settings that are the same on every node; the topology's own come last and win."""
    values = {
        "max_connections": str(max_connections(topology)),
        "password_encryption": "scram-sha-256",
        # Replication. Slots keep WAL for members that are away; the reserve covers a new primary, which
        # has no slot yet for those that come back.
        "wal_level": "replica",
        "hot_standby": "on",
        "wal_log_hints": "on",
        "wal_keep_size": "512MB",
        "max_wal_size": "2GB",
        "max_wal_senders": "16",
        "max_replication_slots": "16",
        "wal_sender_timeout": "10s",
        "wal_receiver_timeout": "10s",
        "wal_retrieve_retry_interval": "500ms",
        **server_timeouts(topology.tcp.server),
        "shared_preload_libraries": "pg_stat_statements",
        "pg_stat_statements.track": "top",
        "track_io_timing": "on",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] %q%u@%d/%a ",
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_min_duration_statement": "1s",
    }
    if topology.tls.enabled:
        values["ssl"] = "on"
        values["ssl_min_protocol_version"] = f"TLSv{topology.tls.min_version}"
        values["ssl_ca_file"] = "/run/lab/ca.crt"
    return dict(sorted((values | topology.postgres.parameters).items()))


def host_rules(topology: Topology, allocation: Allocation) -> list[str]:
    """Lines of pg_hba.conf, first match wins: who may connect from where, always with a password and TLS."""
    host = "hostssl" if topology.tls.enabled else "host"
    rules = ["local all all peer", f"local replication {REPLICATION} scram-sha-256"]
    # Databases know each other on the data network alone: a cut of it must not be gone round over control.
    for node in topology.postgres.nodes:
        for network, answer in (("data", "scram-sha-256"), ("control", "reject")):
            address = allocation.addresses[node.name][network]
            rules += [f"{host} {what} {address}/32 {answer}"
                      for what in (f"replication {REPLICATION}", f"all {SUPERUSER}")]  # fmt: skip
    fronts = [
        name for name in ("app", "data") if name in allocation.addresses[topology.postgres.primary.name]
    ]
    rules += [f"{host} all {SUPERUSER} {allocation.networks[name]} reject" for name in fronts]
    rules.append(f"{host} replication all {allocation.networks['control']} scram-sha-256")
    rules += [f"{host} all all {allocation.networks[name]} scram-sha-256" for name in (*fronts, "control")]
    return rules


def node_parameters(limits: Resources | None) -> dict[str, str]:
    """Settings that follow a node's memory: a quarter for shared buffers, as RDS does by default.

    Source: RDS' default parameter group, shared_buffers = {DBInstanceClassMemory/32768} pages of 8 KiB.
    """
    memory = limits.memory_bytes if limits and limits.memory_bytes else 1024 * MIB
    return {
        "shared_buffers": f"{memory // 4 // MIB}MB",
        "effective_cache_size": f"{memory * 3 // 4 // MIB}MB",
    }
