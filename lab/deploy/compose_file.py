"""The Compose project: services, networks, configurations inline, secrets by reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from lab.deploy import endpoints
from lab.deploy.allocation import Allocation
from lab.deploy.secret_names import (
    MONITOR,
    PROBE,
    document_roles,
    pool_roles,
    secret_names,
    variable,
)
from lab.topology.instances import GIB
from lab.topology.models import Topology

if TYPE_CHECKING:
    from lab.deploy.render import File

DISK = "/var/lib/postgresql"
"""Holds PGDATA. Not PGDATA itself, which Patroni removes before it makes a standby anew."""
CPU_PERIOD_US = 10_000
"""Period of the CPU quota. Stalls of the usual 100 ms would make p99 a property of the quota."""
MIN_QUOTA_US = 1_000
"""Least quota that the kernel accepts."""


def render_compose(topology: Topology, allocation: Allocation, files: Sequence[File]) -> str:
    """``compose.yaml``: runs with a bare ``docker compose up``, given the secrets in the environment."""
    kinds = endpoints.images_of(topology)
    services = {
        name: _service(topology, allocation, name, image, files)
        for name, image in kinds.items()
        if image != "toxiproxy" or allocation.toxiproxy
    }
    configs = {_config_name(file): {"content": file.text.replace("$", "$$")} for file in files}
    for name in services:
        if names := secrets_of(topology, name, kinds[name]):
            configs[f"secrets-{name}"] = {"content": bundle(names)}
    project = {
        "name": f"pglab-{allocation.lab}",
        "services": services,
        "networks": {
            name: {
                "driver": "bridge",
                "ipam": {"config": [{"subnet": allocation.networks[name]}]},
                "labels": labels(allocation),
            }
            for name in endpoints.NETWORKS
        },
        # Compose replaces $NAME in the texts unless it is doubled.
        "configs": configs,
    }
    head = "# Rendered; `lab render` makes it. Secrets come from the environment, as LAB_SECRET_….\n"
    return head + yaml.dump(project, Dumper=_Dumper, sort_keys=True, width=110, allow_unicode=True)


def labels(allocation: Allocation) -> dict[str, str]:
    """Labels of everything that the lab owns."""
    return {"pglab.lab": allocation.lab, "pglab.instance": allocation.instance_id}


def _service(
    topology: Topology, allocation: Allocation, name: str, image: str, files: Sequence[File]
) -> dict[str, Any]:
    networks = endpoints.networks_of(topology)[name]
    service: dict[str, Any] = {
        "image": allocation.images[image],
        "hostname": name,
        "init": True,
        "restart": "no",
        # Packet filters are set inside the node's own network namespace.
        "cap_add": ["NET_ADMIN"],
        "labels": labels(allocation) | {"pglab.node": name},
        "networks": {network: {"ipv4_address": allocation.addresses[name][network]} for network in networks},
        "extra_hosts": _hosts(topology, allocation, name),
        "stop_grace_period": "30s" if image == "postgres" else "5s",
    }
    if image == "postgres":
        service["shm_size"] = "256mb"
        if topology.postgres.disk_gib is not None:
            service["tmpfs"] = [f"{DISK}:size={round(topology.postgres.disk_gib * GIB)}"]
    if image == "pgbouncer":
        service["stop_signal"] = "SIGQUIT"  # SIGTERM would wait for every client to leave
    if image == "redis":
        sentinel = topology.cache is not None and name in {item.name for item in topology.cache.sentinels}
        service["command"] = ["sentinel" if sentinel else "redis"]
    if image == "toxiproxy":
        service["command"] = [
            "-host", allocation.addresses[name]["control"],
            "-port", str(endpoints.PROXY_API_PORT),
            "-config", "/etc/lab/toxiproxy.json",
        ]  # fmt: skip
    limits = allocation.resources.get(name)
    if limits and limits.cpus:
        service["cpu_period"] = CPU_PERIOD_US
        service["cpu_quota"] = max(round(limits.cpus * CPU_PERIOD_US), MIN_QUOTA_US)
    if name in allocation.cores:
        service["cpuset"] = allocation.cores[name]
    if limits and limits.memory_bytes:
        service["mem_limit"] = limits.memory_bytes
    ports = [
        f"127.0.0.1:{allocation.published[key]}:{item.port}/{item.protocol}"
        for key, item in endpoints.published_ports(topology).items()
        if item.node == name and key in allocation.published
    ]
    if ports:
        service["ports"] = ports
    configs = [{"source": _config_name(file), "target": file.target} for file in files if name in file.nodes]
    if secrets_of(topology, name, image):
        configs.append({"source": f"secrets-{name}", "target": "/etc/lab/secrets"})
    if configs:
        service["configs"] = configs
    return service


def bundle(names: Sequence[str]) -> str:
    """References to a node's secrets, as one file that its entrypoint takes apart into ``/run/secrets``.

    Compose fills them in from its environment and refuses to start where one is missing. One file and not
    one of Compose's ``secrets:`` each: every file that is copied into a container costs the engine some
    40 ms, which for a lab of 19 nodes is seconds.
    """
    lines = (f"@{name}\n${{{variable(name)}:?secret {name} is not in the environment}}\n" for name in names)
    return "".join(lines)


def secrets_of(topology: Topology, node: str, image: str) -> list[str]:
    """Names of the secrets that a node gets, sorted."""
    needs = secret_names(topology)
    names: set[str] = set()
    if topology.tls.enabled and image in ("postgres", "pgbouncer", "redis", "client"):
        names.add("ca.crt")
        if node in needs.certificates:
            names |= {f"{node}.crt", f"{node}.key"}
    if image == "postgres":
        names |= {"password_postgres", "password_replicator"}
        primary = next(item.name for item in topology.postgres.nodes if item.role == "primary")
        if node == primary:
            names |= {f"verifier_{role}" for role in pool_roles(topology)}
    elif image == "pgbouncer":
        names |= {f"verifier_{role}" for role in (*pool_roles(topology), "lab_admin")}
    elif image == "redis":
        names.add("password_redis")
    elif image == "client":
        # What an application has: its own roles. The observer has the probe's and the monitor's besides.
        roles = list(document_roles(topology))
        if node == topology.observer.name:
            roles += [PROBE, MONITOR]
        names |= {f"password_{role}" for role in roles}
        if topology.cache:
            names.add("password_redis")
    return sorted(names)


def _hosts(topology: Topology, allocation: Allocation, name: str) -> list[str]:
    """/etc/hosts of a node: others on the network that the two share, and everyone on control."""
    lines = []
    for other in endpoints.images_of(topology):
        addresses = allocation.addresses.get(other)
        if addresses is None:
            continue
        lines.append(f"{other}.control:{addresses['control']}")
        if other != name:
            lines.append(f"{other}:{addresses[endpoints.shared_network(topology, name, other)]}")
    return sorted(lines)


def _config_name(file: File) -> str:
    return re.sub(r"[^a-z0-9]+", "-", file.key.lower())


class _Dumper(yaml.SafeDumper):
    """Long texts as literal blocks, so that people can read them; no anchors.

    What begins like a number is quoted: Compose's parser takes more for numbers than PyYAML does. A random
    ``12345e12`` would come out as the label ``1.2345e+16``.
    """

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else '"' if re.match(r"[-+.\d]", value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
