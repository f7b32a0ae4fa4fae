"""The scripts that set a machine up, against stand-ins for docker, apt and the rest on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "compose" / "host"
TOOLS = (
    "bash", "cat", "rm", "mkdir", "mktemp", "tail", "sort", "sed", "awk", "grep", "id", "dirname", "timeout",
    "basename", "sleep", "setsid", "env", "readlink", "find", "install", "chmod", "cut", "true", "touch",
)  # fmt: skip


class Machine:
    """A PATH with nothing on it but harmless tools and the stand-ins of a test; each call is recorded."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.folder = folder
        self.bin.mkdir()
        self.calls.touch()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        # Nobody is asked for root, and nothing of the system is changed.
        self.stand_in("sudo", '"$@"')

    def stand_in(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.calls}"\n{script}\n')
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        environment: Mapping[str, str] = {
            "PATH": str(self.bin),
            "HOME": str(self.folder),
            "LAB_DOCKER_PID_FILE": str(self.folder / "docker.pid"),
            "LAB_DOCKERD_LOG": str(self.folder / "dockerd.log"),
            **extra,
        }
        return subprocess.run(
            ["bash", str(HOST / script), *arguments],
            env=environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


RUNNING = """case "$1 $2" in
"version --format") echo 27.0 ;;
"compose version") echo "{compose}" ;;
"context show") echo default ;;
"image inspect") exit {image} ;;
"pull -q") exit {pull} ;;
esac"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_running_engine_with_compose_is_left_alone(machine: Machine) -> None:
    machine.stand_in("docker", RUNNING.format(compose="2.29.1", image=0, pull=0))
    machine.stand_in("apt-get", "exit 1")
    done = machine.run("engine.sh")
    assert done.returncode == 0, done.stderr
    assert not [call for call in machine.called() if call.startswith(("apt", "sudo", "dpkg"))]


@pytest.mark.parametrize("version", ["", "1.29.2", "2.23.0"])
def test_too_old_a_compose_is_named_where_nothing_may_be_installed(machine: Machine, version: str) -> None:
    machine.stand_in("docker", RUNNING.format(compose=version, image=0, pull=0))
    done = machine.run("engine.sh", LAB_NO_INSTALL="1")
    assert done.returncode == 4
    assert "2.23.1" in done.stderr
    assert "docker-compose-plugin" in done.stderr


def test_no_engine_and_no_installing_says_what_to_do(machine: Machine) -> None:
    machine.stand_in("apt-get", "exit 1")
    done = machine.run("engine.sh", LAB_NO_INSTALL="1")
    assert done.returncode == 4
    assert "apt-get install docker.io" in done.stderr
    assert "Compose >= 2.23.1" in done.stderr
    assert machine.called() == []


def test_a_remote_engine_that_is_down_is_no_reason_to_install_one(machine: Machine) -> None:
    machine.stand_in("docker", "exit 1")
    machine.stand_in("apt-get", "exit 1")
    done = machine.run("engine.sh", DOCKER_HOST="tcp://192.0.2.1:2376")
    assert done.returncode == 4
    assert "DOCKER_HOST" in done.stderr
    assert not [call for call in machine.called() if call.startswith("apt")]


def test_a_user_without_access_is_told_of_the_group(machine: Machine) -> None:
    machine.stand_in(
        "docker", '[[ $1 == context ]] && echo default && exit; echo "permission denied" >&2; exit 1'
    )
    machine.stand_in("apt-get", "exit 1")
    done = machine.run("engine.sh")
    assert done.returncode == 4
    assert "usermod -aG docker" in done.stderr


def test_an_engine_is_installed_and_started_over_a_stale_pid_file(machine: Machine) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd would be asked to start the engine")
    up = machine.folder / "up"
    docker = f'[[ -e "{up}" ]] || exit 1\n' + RUNNING.format(compose="2.29.1", image=0, pull=0)
    source = machine.folder / "docker.source"
    source.write_text(f"#!/bin/bash\n{docker}\n")
    source.chmod(0o755)
    # apt-get brings docker and dockerd; dockerd comes up only where no stale pid file is in its way.
    machine.stand_in("dockerd.source", f'[[ -e "{machine.folder}/docker.pid" ]] || touch "{up}"')
    (machine.bin / "dockerd.source").rename(machine.folder / "dockerd.source")
    machine.stand_in(
        "apt-get",
        f'[[ "$*" == *install* ]] || exit 0\nsource_dir="{machine.folder}"\n'
        f'install -m 755 "$source_dir/docker.source" "{machine.bin}/docker"\n'
        f'install -m 755 "$source_dir/dockerd.source" "{machine.bin}/dockerd"',
    )
    machine.stand_in("apt-cache", "exit 0")
    (machine.folder / "docker.pid").write_text("999999")
    done = machine.run("engine.sh")
    assert done.returncode == 0, done.stderr
    assert "installing with apt: docker.io iptables" in done.stderr
    assert "stale" in done.stderr
    assert [call for call in machine.called() if call.startswith("dockerd")]


def test_a_base_image_that_is_there_is_left_alone(machine: Machine) -> None:
    machine.stand_in("docker", RUNNING.format(compose="2.29.1", image=0, pull=1))
    assert machine.run("base.sh", "trixie").returncode == 0
    assert not [call for call in machine.called() if "pull" in call]


def test_a_base_image_is_pulled_where_a_registry_answers(machine: Machine) -> None:
    machine.stand_in("docker", RUNNING.format(compose="2.29.1", image=1, pull=0))
    machine.stand_in("mmdebstrap", "exit 1")
    assert machine.run("base.sh", "trixie").returncode == 0
    assert not [call for call in machine.called() if call.startswith("mmdebstrap")]


def test_a_base_image_is_made_where_none_answers(machine: Machine) -> None:
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        pytest.skip("not Debian: the keyring would have to be installed")
    machine.stand_in("docker", RUNNING.format(compose="2.29.1", image=1, pull=1))
    machine.stand_in("mmdebstrap", "echo tar")
    machine.stand_in(
        "apt-get", '[[ "$1" == indextargets ]] && echo "http://archive.test/debian $CODENAME main"'
    )
    done = machine.run("base.sh", "trixie")
    assert done.returncode == 0, done.stderr
    imported = next(call for call in machine.called() if call.startswith("docker import"))
    assert imported.endswith("debian:trixie-slim")


def test_no_registry_and_no_mmdebstrap_says_what_to_install(machine: Machine) -> None:
    machine.stand_in("docker", RUNNING.format(compose="2.29.1", image=1, pull=1))
    machine.stand_in("apt-get", "exit 0")
    done = machine.run("base.sh", "trixie", LAB_NO_INSTALL="1")
    assert done.returncode == 4
    assert "mmdebstrap" in done.stderr


@pytest.fixture
def demo(tmp_path: Path, machine: Machine) -> Machine:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    machine.stand_in("docker", "echo 0123")
    machine.stand_in("make", "true")
    return machine


def _lab(demo: Machine, code: int, *, report: bool = True) -> None:
    made = "mkdir -p runs/new; ln -sfn new runs/latest;" + (
        "mkdir -p runs/new/report; echo html >runs/new/report/report.html;" if report else ""
    )
    demo.stand_in("ln", f'exec {shutil.which("ln")} "$@"')
    demo.stand_in("lab", f'case "$1" in run) {made} exit {code} ;; esac')
    (demo.bin / "lab").rename(demo.folder / ".venv/bin/lab")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_demo_ends_with_the_report_whatever_the_verdict(demo: Machine, code: int) -> None:
    _lab(demo, code)
    done = demo.run("demo.sh", "risk-prod", "scenarios/kill-primary.yaml", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("runs/new/report/report.html")
    assert "about 4 minutes" in done.stderr
    assert demo.called()[-1].startswith("lab down")


@pytest.mark.parametrize("code", [3, 4, 130])
def test_demo_fails_where_the_run_does_and_still_cleans_up(demo: Machine, code: int) -> None:
    _lab(demo, code)
    done = demo.run("demo.sh", "risk-prod", "scenarios/kill-primary.yaml", "3")
    assert done.returncode == code
    assert demo.called()[-1].startswith("lab down")


def test_demo_without_a_report_fails(demo: Machine) -> None:
    _lab(demo, 0, report=False)
    done = demo.run("demo.sh", "risk-prod", "scenarios/kill-primary.yaml", "3")
    assert done.returncode == 4
    assert demo.called()[-1].startswith("lab down")


def test_demo_keeps_the_lab_where_asked(demo: Machine) -> None:
    _lab(demo, 0)
    done = demo.run("demo.sh", "risk-prod", "scenarios/kill-primary.yaml", "3", KEEP="1")
    assert done.returncode == 0, done.stderr
    assert not [call for call in demo.called() if call.startswith("lab down")]


def test_demo_on_a_bare_machine_says_so(demo: Machine) -> None:
    done = demo.run("demo.sh", "risk-prod", "scenarios/kill-primary.yaml", "3")
    assert "about 10 minutes" in done.stderr
    assert done.returncode != 0
    assert os.linesep in done.stderr


def test_make_help_documents_every_target_a_user_needs() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    text = subprocess.run([make, "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = "setup demo test lab-up lab-down lab-status load chaos report bench check"
    for target in targets.split():
        assert f"\x1b[1m{target} " in text
    assert len([line for line in text.splitlines() if "\x1b[1m" in line]) >= 13
