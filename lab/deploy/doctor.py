"""Looks at what a lab needs of its machine, and says what to do about what is missing.

Three states: *ok*; *notice*: something is missing that only part of the lab needs; *failure*: a lab
will not come up. Every check is a function of no arguments, so that each can be tested alone.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lab.deploy.allocate import FIRST_PORT, LAST_PORT, choose_networks, look_at_machine
from lab.deploy.build_context import ca_bundle
from lab.deploy.engine import api, engine_errors, is_local
from lab.deploy.state import state_root
from lab.errors import LabError

State = Literal["ok", "notice", "failure"]

GIB = 1024**3
COMPOSE_MIN = (2, 23, 1)
"""The first Compose with inline ``configs:`` content."""
ENGINE_API_MIN = (1, 41)
"""Docker Engine 20.10."""
MEMORY_MIN = 3 * GIB
MEMORY_GOOD = 6 * GIB
"""``risk-prod`` is 20 containers; below this its databases have less than 512 MiB each."""
DISK_MIN = 4 * GIB
"""Images take 1.5 GiB, a lab of three trials about 1 GiB more."""
DISK_GOOD = 10 * GIB
CLOCK_LIMIT_S = 1.0
"""The record corrects offsets; beyond a second, certificates and logs become confusing."""
PORTS_WANTED = 30

_PROBE = (
    "tc qdisc add dev lo root netem delay 1ms >/dev/null 2>&1 && echo netem;"
    "iptables -w -A INPUT -s 192.0.2.1 -j DROP >/dev/null 2>&1 && echo filter; true"
)


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    state: State
    detail: str
    advice: str | None = None


def check_python() -> Finding:
    """The interpreter that runs the lab."""
    return judge_python(sys.version_info[:3])


def judge_python(version: tuple[int, ...]) -> Finding:
    """Major, minor and micro version."""
    text = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("python", "failure", text, "Install Python 3.11 or newer, then `make setup`.")
    return Finding("python", "ok", text)


def check_engine() -> Finding:
    """Whether an engine answers, and which."""
    try:
        with engine_errors("ask the engine for its version"):
            version = api().version()
            info = api().info()
    except LabError as error:
        return Finding("engine", "failure", str(error), error.hint)
    detail = f"{version['Version']} (API {version['ApiVersion']}, cgroup v{info.get('CgroupVersion', '1')})"
    if info.get("OSType") != "linux":
        return Finding("engine", "failure", detail, "Switch the engine to Linux containers.")
    if numbers(version["ApiVersion"]) < ENGINE_API_MIN:
        return Finding("engine", "failure", detail, "Install Docker Engine 20.10 or newer.")
    if not info.get("CPUCfsQuota", True) or not info.get("MemoryLimit", True):
        return Finding(
            "engine", "notice", f"{detail}, without CPU or memory limits",
            "Instance classes cannot be told apart: give the engine's cgroups their controllers.",
        )  # fmt: skip
    return Finding("engine", "ok", detail)


def check_compose() -> Finding:
    """Compose v2 as a plug-in of the command line."""
    advice = "`make setup` fetches it; by hand: install docker-compose-plugin (or docker-compose-v2)."
    argv = ["docker", "compose", "version", "--short"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return Finding("compose", "failure", "the command `docker` is not installed", advice)
    except subprocess.TimeoutExpired:
        return Finding("compose", "failure", "`docker compose version` does not answer", advice)
    return judge_compose(done.stdout.strip() if done.returncode == 0 else "", advice)


def judge_compose(text: str, advice: str) -> Finding:
    """What Compose says is its version; empty where it does not answer."""
    if not numbers(text):
        return Finding("compose", "failure", "no Compose v2", advice)
    if numbers(text) < COMPOSE_MIN:
        least = ".".join(map(str, COMPOSE_MIN))
        return Finding("compose", "failure", f"{text} is older than {least}", advice)
    return Finding("compose", "ok", text)


def numbers(version: str) -> tuple[int, ...]:
    """``v2.26.1-4`` → (2, 26, 1); what is no version gives an empty tuple."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def check_memory() -> Finding:
    """Memory of the engine's host, and what of it is free where that is this machine."""
    with engine_errors("ask the engine for its memory"):
        total = int(api().info()["MemTotal"])
    return judge_memory(total, available_memory() if is_local() else None)


def judge_memory(total: int, available: int | None) -> Finding:
    """Sizes in bytes; available is None where it is not known."""
    least = total if available is None else min(total, available)
    detail = f"{total / GIB:.1f} GiB" + (
        "" if available is None else f", {available / GIB:.1f} GiB available"
    )
    if least < MEMORY_MIN:
        advice = f"Free memory, or give the engine more: at least {MEMORY_MIN / GIB:.0f} GiB."
        return Finding("memory", "failure", detail, advice)
    if least < MEMORY_GOOD:
        advice = f"A lab of production size wants {MEMORY_GOOD / GIB:.0f} GiB."
        return Finding("memory", "notice", detail, advice)
    return Finding("memory", "ok", detail)


def available_memory(table: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes available on this machine; None where the kernel does not say."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", table.read_text("ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def check_disk() -> Finding:
    """Free space where the engine keeps its data, and where run records go."""
    with engine_errors("ask the engine where it keeps its data"):
        root = Path(str(api().info()["DockerRootDir"]))
    places = [_existing(state_root())]
    if is_local() and sys.platform == "linux":
        places.append(_existing(root))
    return judge_disk({str(place): shutil.disk_usage(place).free for place in places})


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that can be looked at (the engine's folder is root's)."""
    path = path.absolute()
    while path != path.parent and not os.access(path, os.R_OK):
        path = path.parent
    return path


def judge_disk(free: dict[str, int]) -> Finding:
    """Free bytes by folder."""
    place, least = min(free.items(), key=lambda item: item[1])
    detail = f"{least / GIB:.1f} GiB free on {place}"
    if least < DISK_MIN:
        return Finding(
            "disk", "failure", detail, "Free some: `docker system df` shows what the engine holds."
        )
    if least < DISK_GOOD:
        return Finding("disk", "notice", detail, f"Long runs want {DISK_GOOD / GIB:.0f} GiB.")
    return Finding("disk", "ok", detail)


def check_clock() -> Finding:
    """The engine's wall clock against this machine's."""
    with engine_errors("ask the engine for its time"):
        before = time.time()
        text = str(api().info()["SystemTime"])
        after = time.time()
    return judge_clock(wall_seconds(text) - (before + after) / 2, (after - before) / 2)


def wall_seconds(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time stamp with up to nanoseconds."""
    from datetime import datetime

    # datetime reads six digits at most.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()


def judge_clock(offset_s: float, uncertainty_s: float) -> Finding:
    """Engine minus host, in seconds, ± the uncertainty."""
    detail = f"engine − host {offset_s * 1000:+.0f} ms ± {uncertainty_s * 1000:.0f} ms"
    if abs(offset_s) - uncertainty_s > CLOCK_LIMIT_S:
        advice = "Synchronise both by NTP; for an engine in a virtual machine, restart that machine."
        return Finding("clock", "failure", detail, advice)
    return Finding("clock", "ok", detail)


def check_network_faults() -> list[Finding]:
    """Whether containers may filter packets, and delay them with netem: tried in one."""
    image = _any_image()
    if image is None:
        detail = "not tried: no image of the lab's is built yet"
        advice = "`make setup` builds them; then run `lab doctor` again."
        return [Finding(name, "notice", detail, advice) for name in ("packet filter", "netem")]
    argv = ["docker", "run", "--rm", "--cap-add", "NET_ADMIN", "--network", "none"]
    argv += ["--entrypoint", "bash", image, "-c", _PROBE]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        detail = f"a container did not run: {last}"
        return [Finding("packet filter", "failure", detail, "See the engine's log.")]
    return judge_network_faults(set(done.stdout.split()))


def judge_network_faults(works: set[str]) -> list[Finding]:
    """What a container could do: ``filter``, ``netem``."""
    filters = Finding("packet filter", "ok", "containers can drop packets")
    if "filter" not in works:
        filters = Finding(
            "packet filter", "notice", "containers cannot drop packets",
            "Partitions will not run: load the kernel's ip_tables or nf_tables modules.",
        )  # fmt: skip
    netem = Finding("netem", "ok", "containers can delay packets")
    if "netem" not in works:
        netem = Finding(
            "netem", "notice", "the kernel has no netem",
            "Latency and bandwidth faults go through Toxiproxy; `modprobe sch_netem` may bring it.",
        )  # fmt: skip
    return [filters, netem]


def _any_image() -> str | None:
    with engine_errors("list the lab's images"):
        for image in api().images():
            for tag in image.get("RepoTags") or ():
                if str(tag).startswith(("pglab/pgbouncer:", "pglab/haproxy:", "pglab/etcd:")):
                    return str(tag)
    return None


def check_ca() -> Finding:
    """Whether there is a CA bundle to hand to builds, and whether pip reaches its index with it."""
    try:
        bundle = ca_bundle()
    except LabError as error:
        return Finding("CA", "failure", str(error), error.hint)
    if bundle is None:
        return Finding("CA", "notice", "no CA bundle found", "Set LAB_CA_BUNDLE to a PEM file.")
    try:
        count = len(ssl.create_default_context(cafile=str(bundle)).get_ca_certs())
    except (ssl.SSLError, OSError) as error:
        return Finding("CA", "failure", f"{bundle} is no CA bundle: {error}", "Set LAB_CA_BUNDLE.")
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "0", "--timeout", "8"]
    argv += ["--cert", str(bundle), "index", "versions", "pip"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        reached, output = done.returncode == 0, done.stderr
    except subprocess.TimeoutExpired:
        reached, output = False, "timed out"
    return judge_ca(f"{bundle}, {count} certificates", reached, output)


def judge_ca(detail: str, reached: bool, output: str) -> Finding:
    """Whether pip found its index over HTTPS with the bundle, and what it said if not."""
    if reached:
        return Finding("CA", "ok", f"{detail}; HTTPS to the package index works")
    if "certificate" in output.lower() or "sslerror" in output.lower():
        advice = "Set LAB_CA_BUNDLE (and PIP_CERT) to a bundle that holds your network's authority."
        return Finding("CA", "failure", f"{detail}: HTTPS to the package index is not trusted", advice)
    advice = "Needed only to build images and to install; check the network, or set HTTPS_PROXY."
    return Finding("CA", "notice", f"{detail}: the package index is out of reach", advice)


def check_ports() -> Finding:
    """Free ports on 127.0.0.1 and free private subnets for one more lab."""
    machine = look_at_machine()
    try:
        networks = choose_networks(machine.taken_networks)
    except LabError as error:
        return Finding("ports", "failure", str(error), error.hint)
    free = free_ports(PORTS_WANTED, machine.taken_ports)
    if len(free) < PORTS_WANTED:
        detail = f"{len(free)} of {PORTS_WANTED} ports free between {FIRST_PORT} and {LAST_PORT}"
        return Finding("ports", "failure", detail, "Take labs down (`lab list`), or end what listens there.")
    subnets = ", ".join(networks.values())
    return Finding("ports", "ok", f"{free[0]} and up on 127.0.0.1; subnets {subnets}")


def free_ports(wanted: int, taken: frozenset[int]) -> list[int]:
    """Up to that many ports of the lab's range that nothing listens on, and that no lab has."""
    free: list[int] = []
    for port in range(FIRST_PORT, LAST_PORT + 1):
        if len(free) == wanted:
            break
        if port in taken:
            continue
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
    return free


def examine() -> list[Finding]:
    """Every check, in order. Checks that need the engine are left out where none answers."""
    engine = check_engine()
    findings = [check_python(), engine]
    checks: list[Callable[[], Finding]] = [check_compose, check_ca]
    if engine.state != "failure":
        checks += [check_memory, check_disk, check_clock, check_ports]
    findings += [_guard(check) for check in checks]
    if engine.state != "failure":
        try:
            findings += check_network_faults()
        except (LabError, OSError, subprocess.SubprocessError) as error:
            findings.append(
                Finding("netem", "notice", f"could not be tried: {error}", "Run `lab doctor` again.")
            )
    return findings


def _guard(check: Callable[[], Finding]) -> Finding:
    """A check that itself breaks is a failure of its own, and the others still run."""
    try:
        return check()
    except LabError as error:
        return Finding(check.__name__.removeprefix("check_"), "failure", str(error), error.hint)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        name = check.__name__.removeprefix("check_")
        return Finding(name, "failure", f"could not be checked: {error}", "LAB_DEBUG=1 shows more.")


def as_document(findings: list[Finding]) -> dict[str, Any]:
    """For ``--json``: ``ok`` is false where anything failed."""
    return {
        "ok": all(finding.state != "failure" for finding in findings),
        "checks": [asdict(finding) for finding in findings],
    }
