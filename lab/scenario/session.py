"""The instruments of one run inside the lab: observer, load, clocks and the look at the cluster."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lab as lab_package
from lab.deploy.endpoints import CLOCK_PORT, REDIS_PORT, endpoints
from lab.deploy.secret_names import MONITOR, PROBE
from lab.driver import Lab
from lab.errors import LabError
from lab.load import LoadSpec, start_load
from lab.observe.config import Config
from lab.observe.redis_writer import key_of
from lab.record.schema import NS, ClockOffset
from lab.record.writer import RecordWriter
from lab.scenario import facts
from lab.scenario.clock import ObserverClock, tell, udp
from lab.scenario.cluster import Watch
from lab.scenario.journal import Journal
from lab.scenario.live import LiveWrites
from lab.scenario.plan import Plan, observer_config
from lab.scenario.remote import Follower, Program, fetch_rest, start_agents, stop, stop_agents
from loadtests.config import LoadConfig

PYTHON = facts.PYTHON
CODE = "/opt/lab"
WATCH_PERIOD_S = 0.4
START_WITHIN_S = 60.0
"""A machine that is busy with other things takes its time to start two interpreters."""


class Session:
    """Everything that runs in the lab because of one run, and what is known of it."""

    def __init__(self, lab: Lab, plan: Plan, record: RecordWriter) -> None:
        self.lab = lab
        self.plan = plan
        self.record = record
        self.run = record.manifest.run
        self.base = f"/run/lab/{self.run}"
        self.token = secrets.token_hex(8)
        self.observer = lab.nodes[lab.topology.observer.name]
        self.client = lab.nodes[lab.topology.clients[0].name]
        self.programs = programs_of(lab, self.run)
        self.live = LiveWrites(plan.scenario.slow_after)
        self.followers: list[Follower] = []
        self.clock: ObserverClock
        self.watch: Watch | None = None
        self.load: LoadConfig
        self.observe: Config
        self.faulty: list[tuple[int, int]] = []
        """From a fault to the end of its trial, ns of the observer's clock."""

    @property
    def _clock_address(self) -> tuple[str, int]:
        return "127.0.0.1", self.lab.allocation.published.get(f"{self.observer.name}.clock", CLOCK_PORT)

    # --- start

    def start_observer(self) -> None:
        """Copy the programs, start probes and collectors, find the clock, follow what is written."""
        package = Path(lab_package.__file__).parent
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(self.observer.put_tree, package / "observe", f"{CODE}/lab/observe"),
                pool.submit(self.observer.put, f"{CODE}/lab/__init__.py", _init(package)),
                pool.submit(self.observer.put, self._file("inside.py"), _inside()),
                pool.submit(self._put_secrets),
            ]
            for job in jobs:
                job.result()
        self.observe = self._observer_config()
        self.observer.put(self._file("observe.json"), self.observe.to_json().encode(), mode=0o600)
        self.observer.put(self._file("inside.json"), json.dumps(self._inside_settings()).encode(), mode=0o600)
        self._spawn(self.observer.name, "lab.observe", "observe")
        self.start_agents(self.lab.nodes)
        self.clock = self._find_clock()
        words = self._inside_words("watch")
        self.watch = Watch(self.observer.stream(words))
        self._follow(self.programs[0])

    def start_load(self) -> None:
        """Start the load; it runs until it is stopped."""
        load = self.plan.scenario.load
        spec = LoadSpec(
            workload=load.workload,
            rate=load.rate,
            users=load.users,
            arrivals=load.arrivals,
            pool=load.pool,
            workers=load.workers,
            seed=self.plan.seed,
            deadline_s=self.plan.deadline_s,
            cache=load.cache,
            clock=load.clock,
            coalesce=load.coalesce,
        )
        self.load = start_load(self.lab, spec, self.run).config
        self._follow(self.programs[1])

    def _file(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _put_secrets(self) -> None:
        roles = {PROBE: f"password_{PROBE}", MONITOR: f"password_{MONITOR}"}
        if self.lab.topology.cache:
            roles["redis"] = "password_redis"
        for role, secret in roles.items():
            self.observer.put(self._file(f"password_{role}"), self.lab.secret(secret).encode(), mode=0o600)

    def _passwords(self) -> dict[str, str]:
        return {role: self._file(f"password_{role}") for role in (PROBE, MONITOR, "redis")}

    def _observer_config(self) -> Config:
        scope, namespace = facts.scope_of(self.lab.rendered())
        return observer_config(
            self.plan,
            self.lab.allocation,
            run=self.run,
            out=self.programs[0].out,
            token=self.token,
            passwords=self._passwords(),
            scope=scope,
            namespace=namespace,
        )

    def _inside_settings(self) -> dict[str, Any]:
        topology = self.lab.topology
        places = endpoints(topology, self.lab.allocation)
        nodes = []
        for node in topology.postgres.nodes:
            direct, patroni = places[f"{node.name}.direct"], places.get(f"{node.name}.patroni")
            url = f"http://{patroni.address}:{patroni.port}" if patroni else ""
            nodes.append({"name": node.name, "host": direct.host, "port": direct.port, "patroni": url})
        # The audit goes over the control network, which no fault touches and no proxy slows.
        cache = topology.cache.nodes if topology.cache else ()
        redis = [{"name": one.name, "host": f"{one.name}.control", "port": REDIS_PORT} for one in cache]
        return {
            "run": self.run,
            "out": self.base,
            "nodes": nodes,
            "redis": redis,
            "redis_key": key_of(self.run),
            "database": topology.postgres.database,
            "tls": topology.tls.enabled,
            "passwords": self._passwords(),
            "period_s": WATCH_PERIOD_S,
            "deadline_s": self.plan.deadline_s,
            "wait_s": 30.0,
            "clock_port": CLOCK_PORT,
            "datagram": "",
        }

    def _inside_words(self, mode: str) -> list[str]:
        return [PYTHON, "-u", self._file("inside.py"), self._file("inside.json"), mode]

    def _spawn(self, node: str, module: str, name: str) -> None:
        """Start a program; what it prints goes to a file beside its configuration."""
        out = self._file(name)
        script = 'mkdir -p "$1" && cd "$1" && exec "$2" -m "$3" --config "$4" >>"$5" 2>&1'
        arguments = [out, PYTHON, module, self._file(f"{name}.json"), self._file(f"{name}.txt")]
        self.lab.nodes[node].spawn(["sh", "-c", script, "sh", *arguments], env={"PYTHONPATH": CODE})

    def start_agents(self, names: Iterable[str]) -> None:
        """One agent a node sends its control group's figures to the observer."""
        missing = start_agents(
            self.lab,
            names,
            address=self.observe.agent_address,
            port=self.observe.agent_port,
            token=self.token,
            seconds=self.plan.deadline_s,
        )
        if missing:
            self.record.note(f"no figures of the control group of {', '.join(missing)}")

    def _find_clock(self) -> ObserverClock:
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                return ObserverClock(udp(self._clock_address), self._ask_slowly)
            except LabError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"the observer did not start: {self._said('observe') or error}") from error
                time.sleep(0.2)

    def _ask_slowly(self) -> tuple[int, int]:
        words = self.observer.run(self._inside_words("clock"), timeout_s=10).stdout.split()
        return int(words[0]), int(words[1])

    def _said(self, name: str) -> str:
        """Last lines of what a program printed."""
        node = self.lab.nodes[self.programs[0 if name == "observe" else 1].node]
        done = node.run(["tail", "-n", "3", self._file(f"{name}.txt")], check=False)
        return " ".join(done.stdout.split())[-400:]

    def _follow(self, program: Program) -> None:
        follower = Follower(self.lab, program, self.record, self.live.feed)
        self.followers.append(follower)
        deadline = time.monotonic() + START_WITHIN_S
        while not follower.following:
            follower.look_for_files()
            if time.monotonic() > deadline:
                name = program.out.rpartition("/")[2]
                raise LabError(f"{program.part} wrote nothing: {self._said(name) or 'no word from it'}")
            time.sleep(0.2)

    # --- while it runs

    def check(self) -> None:
        """LabError where the record cannot be written any more, or a program ended by itself."""
        for follower in self.followers:
            if follower.error is not None:
                raise follower.error

    def look_for_files(self) -> None:
        """Follow files that appeared since."""
        for follower in self.followers:
            follower.look_for_files()

    def tell_trial(self, number: int) -> None:
        """From now on probes write under this trial."""
        datagram = f"trial {number} {self.token}"
        if tell(self._clock_address, datagram).startswith("trial "):
            return
        settings = {**self._inside_settings(), "datagram": datagram}
        path = self._file("trial.json")
        self.observer.put(path, json.dumps(settings).encode(), mode=0o600)
        said = self.observer.run([PYTHON, self._file("inside.py"), path, "trial"], timeout_s=10).stdout
        if not said.startswith("trial "):
            raise LabError(f"the observer did not take the number of trial {number}")

    def requests_bytes(self) -> int:
        """Bytes of the load's raw record that have come in so far."""
        return sum(path.stat().st_size for path in self.record.path.glob("requests.*"))

    # --- end

    def stop_load(self) -> dict[str, Any]:
        """Stop the load, fetch its rest; its own summary."""
        return self._end(self.programs[1])

    def stop_observer(self) -> dict[str, Any]:
        """Stop probes, collectors and agents, fetch their rest."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        stop_agents(self.lab)
        return self._end(self.programs[0])

    def _end(self, program: Program) -> dict[str, Any]:
        node = self.lab.nodes[program.node]
        finished = stop(node, program.out)
        for follower in [f for f in self.followers if f.program is program]:
            follower.close()
        fetch_rest(node, program, self.record)
        if not finished:
            self.record.note(f"{program.part} did not end in good order")
            return {}
        with contextlib.suppress(LabError, ValueError):
            summary = json.loads(node.get(f"{program.out}/done") or b"{}")
            return summary if isinstance(summary, dict) else {}
        return {}

    def load_offsets(self) -> list[ClockOffset]:
        """The load's clocks against the observer's, as the load measured them."""
        found: list[ClockOffset] = []
        with contextlib.suppress(LabError, ValueError, KeyError, TypeError, AttributeError):
            clocks = json.loads(self.client.get(f"{self.programs[1].out}/clock.json"))
            for name, ends in clocks.items():
                found += [
                    ClockOffset(
                        clock=name,
                        when=when,
                        offset_ns=ends[when]["offset_ns"],
                        uncertainty_ns=ends[when]["uncertainty_ns"],
                    )
                    for when in ("start", "end")
                ]
        return found

    def remote(self) -> list[dict[str, str]]:
        """For the journal: what has to be stopped and fetched should the runner die."""
        return [asdict(program) for program in self.programs]

    def started_wall(self) -> float:
        """When the run began, wall clock of the engine's host in seconds."""
        anchor = self.record.manifest.anchor
        return anchor.wall_ns / NS if anchor else 0.0

    def abandon(self) -> None:
        """Stop following; what runs in the lab is left to whoever heals it."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        for follower in self.followers:
            follower.close()

    def clean(self) -> None:
        """Remove this run's files (and the passwords among them) from the nodes."""
        for node in {self.observer.name, self.client.name}:
            with contextlib.suppress(LabError):
                self.lab.nodes[node].run(["rm", "-rf", self.base], check=False)

    def inside(self, mode: str, timeout_s: float) -> Any:
        """Run ``inside.py`` in the observer; the JSON that it printed."""
        done = self.observer.run(self._inside_words(mode), env={"PYTHONPATH": CODE}, timeout_s=timeout_s)
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise LabError(f"the observer's {mode} gave no answer: {done.stderr.strip()[-300:]}") from error


def programs_of(lab: Lab, run: str) -> tuple[Program, Program]:
    """The observer and the load of a run."""
    base = f"/run/lab/{run}"
    return (
        Program(lab.topology.observer.name, f"{base}/observe", "observer"),
        Program(lab.topology.clients[0].name, f"{base}/load", "client"),
    )


def announce_run(lab: Lab, journal: Journal, path: Path) -> int:
    """Note a run in the journal before its record exists: what to stop, fetch and close should we die."""
    remote = [asdict(program) for program in programs_of(lab, path.name)]
    return journal.begin("run", record=str(path.resolve()), remote=remote)


def _init(package: Path) -> bytes:
    return (package / "__init__.py").read_bytes()


def _inside() -> bytes:
    return Path(__file__).with_name("inside.py").read_bytes()
