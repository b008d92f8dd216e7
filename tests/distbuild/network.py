"""A whole network on this machine: cache servers, controller, workers, helpers. Real processes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from morphlib.process import wait_until
from tests.commandline import MORPH, Ran, run_morph
from tests.commands.world import COPY, SYSTEM, World, chunk_file
from tests.distbuild.hosts import Hosts, listens
from tests.terminal import Terminal

CHECKOUT = MORPH.parent
HELPER = CHECKOUT / "distbuild-helper"
CACHE_SERVER = CHECKOUT / "morph-cache-server"

PATIENCE = 60.0  # seconds, on a machine with other work


@dataclass
class Process:
    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.child.send_signal(number)
        return self.child.wait(30)


class Network:
    """All of it below `world.root / "net"`. `close` ends what still runs."""

    hosts = Hosts()

    def __init__(self, world: World, workers: int = 1, **settings: str) -> None:
        self.world = world
        self.home = world.root / "net"
        self.home.mkdir()
        self.processes: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        self._forgotten = 0
        self.settings = {
            **world.settings,
            "max-jobs": "2",
            "builders": "1",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        self.start_cache("shared-read", "shared")
        self.workers = [f"worker-{number}" for number in range(workers)]
        self.start_cache("shared-write", "shared", "--enable-writes", *self._who_may_write())
        for number in range(workers):
            self.start_worker(number)
        self.start_controller()

    # Starting

    def start_cache(self, name: str, directory: str, *options: str) -> None:
        artifacts = self.home / directory / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        command = [str(CACHE_SERVER), "--no-fcgi", f"--artifact-dir={artifacts}"]
        command += [f"--repo-dir={self.home}", f"--bundle-dir={self.home}", *options]
        if self.hosts.are_apart:
            port = 8081 if name == "shared-write" else 8080
            self.start(name, [*command, f"--address={self.hosts.anywhere}", f"--port={port}"])
            pid = self.processes[name].child.pid
            assert wait_until(lambda: listens(pid, port), PATIENCE), self.logs()
            self.ports[name] = port
        else:
            self.start(name, [*command, f"--port-file={self.home / f'{name}.port'}"])
            self.ports[name] = self.read_port(name)

    def _who_may_write(self) -> list[str]:
        """Options of the shared cache: from whom it takes artifacts, where there are others."""
        if not self.hosts.are_apart:
            return []
        self.token.write_text("controller 0123456789abcdef0123456789abcdef\n")
        self.token.chmod(0o600)
        workers = ",".join(self.hosts.address(name) for name in self.workers)
        return [f"--token-file={self.token}", f"--fetch-from={workers}", "--timeout=5"]

    @property
    def token(self) -> Path:
        return self.home / "tokens"

    def start_worker(self, number: int, **settings: str) -> None:
        """One more worker, or one again. It may have settings that the others do not have."""
        name = f"worker-{number}"
        # There is one setting for the port of the cache servers of all workers: on one machine
        # they share one.
        cache_server = self.worker_cache(number)
        cache = self.home / (name if self.hosts.are_apart else "worker")
        if not self.is_running(cache_server):
            self.start_cache(cache_server, cache.name)
        port = self.ports.get(name, 0)
        more = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
        self.start(name, [*self.morph(cache, port, name, "worker"), *more, "worker-daemon"])
        self.ports[name] = self.read_port(name)
        self.start_helper(name)

    def common(self, role: str) -> dict[str, str]:
        """The settings of all. A setting `of-ROLE` is the certificate of a daemon that has its own
        one."""
        given = {name: value for name, value in self.settings.items() if name[:3] != "of-"}
        own = self.settings.get(f"of-{role}")
        return {**given, "distbuild-certificate": own} if own else given

    def shared_settings(self, role: str) -> dict[str, str]:
        """Of these, what concerns connections."""
        names = self.common(role).items()
        return {k: v for k, v in names if k.startswith("distbuild-") or k == "peer-timeout"}

    def worker_cache(self, number: int) -> str:
        return f"worker-{number}-cache" if self.hosts.are_apart else "worker-cache"

    def is_running(self, name: str) -> bool:
        return name in self.processes and self.processes[name].child.poll() is None

    def address(self, name: str) -> str:
        """Where a process is, as others name it."""
        return f"{self.hosts.address(name)}:{self.ports[name]}"

    def morph(self, cache: Path, port: int, name: str, role: str) -> list[str]:
        values = {
            **self.common(role),
            "cachedir": str(cache),
            "artifact-cache-server": self.url("shared-read"),
            "worker-daemon-address": self.hosts.anywhere,
            "worker-daemon-port": str(port),
            "worker-daemon-port-file": str(self.port_file(name)),
        }
        options = [f"--{key}={value}" for key, value in values.items()]
        return [str(MORPH), "--no-default-configs", *options]

    def start_controller(self, **settings: str) -> None:
        """The controller, or the controller again, with more settings perhaps."""
        options = {
            "worker": ",".join(self.address(name) for name in self.workers),
            "worker-cache-server-port": str(self.ports[self.worker_cache(0)]),
            "writeable-cache-server": self.url("shared-write"),
            "controller-helper-port": str(self.ports.get("helpers", 0)),
            "controller-helper-port-file": str(self.port_file("helpers")),
            "controller-initiator-address": self.hosts.anywhere,
            "controller-initiator-port": str(self.ports.get("controller", 0)),
            "controller-initiator-port-file": str(self.port_file("controller")),
        }
        if "controller-status-address" in self.settings:
            options["controller-status-port"] = str(self.ports.get("status", 0))
            options["controller-status-port-file"] = str(self.port_file("status"))
        if self.token.exists():
            (self.home / "token").write_text(self.token.read_text().split()[1])
            options["writeable-cache-server-token-file"] = str(self.home / "token")
        command = self.morph(self.home / "controller", 0, "unused", "controller")
        options |= {name.replace("_", "-"): value for name, value in settings.items()}
        command += [f"--{key}={value}" for key, value in options.items()]
        self.start("controller", [*command, "controller-daemon"])
        self.ports["helpers"] = self.read_port("helpers")
        self.ports["controller"] = self.read_port("controller")
        if "controller-status-address" in self.settings:
            self.ports["status"] = self.read_port("status")
        self.start_helper("controller")

    def start_helper(self, of: str) -> None:
        number = self.ports["helpers" if of == "controller" else of]
        command = [str(HELPER), "--no-default-configs", f"--parent-port={number}"]
        common = self.shared_settings(of.partition("-")[0])
        command += [f"--{name}={value}" for name, value in common.items()]
        self.start(f"{of}-helper", command)

    def start(self, name: str, command: list[str]) -> None:
        log = self.home / f"{name}.log"
        self.port_file(name).unlink(missing_ok=True)
        with log.open("ab") as file:
            child = subprocess.Popen(
                [*self.hosts.prefix(name), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self.home,
                env=self.environment(),
                start_new_session=True,
            )
        self.processes[name] = Process(name, child, log)

    def environment(self) -> dict[str, str]:
        git = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.world.root),
            "TMPDIR": str(self.world.root),
            **git,
        }

    # Looking

    def port_file(self, name: str) -> Path:
        return self.home / f"{name}.port"

    def read_port(self, name: str) -> int:
        path = self.port_file(name)
        assert wait_until(lambda: path.exists() and path.read_text().endswith("\n"), PATIENCE), (
            self.logs()
        )
        return int(path.read_text())

    def url(self, name: str) -> str:
        return f"http://{self.address(name)}/"

    def logs(self) -> str:
        return "\n".join(
            f"== {process.name}\n{process.log.read_text(errors='replace')}"
            for process in self.processes.values()
        )

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    @property
    def shared(self) -> set[str]:
        """Names in the shared cache."""
        return {path.name for path in (self.home / "shared" / "artifacts").iterdir()}

    def wait_for_app(self) -> Path:
        """Wait until the chunk `app` is being built. Gives its log."""
        log = self.world.root / "logs" / "build-step-app.log"

        def has_begun() -> bool:
            return log.exists() and b"\n" in log.read_bytes()

        assert wait_until(has_begun, PATIENCE), self.logs()
        return log

    def builds(self) -> list[str]:
        """The ids of all builds that were asked for."""
        return re.findall(r"Build (build-\w+): /", self.log("controller"))

    def forget(self) -> None:
        """Let only what happens from now on count, for `find_id` and for the logs of steps."""
        self._forgotten = len(self.builds())
        shutil.rmtree(self.world.root / "logs", ignore_errors=True)

    def find_id(self) -> str:
        """The id of the build that was asked for last."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = self.builds()[self._forgotten :]
            return bool(found)

        assert wait_until(is_there, PATIENCE), self.logs()
        return found[-1]

    # Using

    def change_app(self, *build: str) -> None:
        """Give the chunk `app` other commands, without committing them."""
        document = chunk_file("app", build=list(build), install=[COPY])
        self.world.documents["chunks/app.morph"] = document
        self.world.write()

    def signal(self, name: str, number: int) -> None:
        """To a program that was started here, and to all that it started itself."""
        os.killpg(self.processes[name].child.pid, number)

    def builder(self, worker: str = "worker-0") -> int:
        """The process id of the program that builds for a worker, of one that builds one step at a
        time."""
        helper = self.processes[f"{worker}-helper"].child.pid
        found: list[int] = []

        def is_there() -> bool:
            tasks = Path(f"/proc/{helper}/task").iterdir()
            texts = [(task / "children").read_text() for task in tasks]
            found[:] = [int(pid) for text in texts for pid in text.split()]
            return len(found) == 1

        assert wait_until(is_there, PATIENCE), self.logs()
        return found[0]

    def kill_and_restart(self, name: str) -> None:
        """As a supervisor does it that finds a program gone."""
        if name == "builder":
            os.kill(self.builder(), signal.SIGKILL)  # its worker starts another
            return
        self.processes[name].kill()
        if name.endswith("-helper"):
            self.start_helper(name.removesuffix("-helper"))
            return
        # Helpers end with their daemon.
        self.processes[f"{name}-helper"].child.wait(30)
        if name == "controller":
            self.start_controller()
        else:
            self.start_worker(self.workers.index(name))

    def initiator_settings(self) -> dict[str, str]:
        return {
            "controller_initiator_address": self.hosts.address("controller"),
            "controller_initiator_port": str(self.ports["controller"]),
            "initiator_step_output_dir": str(self.world.root / "logs"),
            **{
                name.replace("-", "_"): value
                for name, value in self.shared_settings("initiator").items()
            },
        }

    def open_terminal(self, *arguments: str, **settings: str) -> Terminal:
        """Morph on a terminal of its own."""
        values = self.all_settings(settings)
        return Terminal(arguments, values, self.world.root, self.world.definitions.path)

    def run(self, *arguments: str, **settings: str) -> Ran:
        return run_morph(
            *(f"--{name}={value}" for name, value in self.all_settings(settings).items()),
            *arguments,
            home=self.world.root,
            cwd=self.world.definitions.path,
            prefix=self.hosts.prefix("initiator"),
            timeout=2 * PATIENCE,
        )

    def all_settings(self, more: Mapping[str, str]) -> dict[str, str]:
        """Those of an initiator."""
        changed = {**self.initiator_settings(), **more}
        return self.world.settings | {k.replace("_", "-"): v for k, v in changed.items()}

    def build(self, *arguments: str, **settings: str) -> Ran:
        """Have the system built, which has to succeed."""
        ran = self.run("distbuild", SYSTEM, *arguments, **settings)
        assert ran.status == 0, ran.out + ran.err + self.logs()
        assert "Traceback" not in self.logs()
        return ran

    def wait_for(self, name: str, text: str) -> None:
        """Wait until a log says something."""
        assert wait_until(lambda: text in self.log(name), PATIENCE), self.logs()

    def close(self) -> None:
        for process in self.processes.values():
            if process.child.poll() is None:
                process.child.terminate()
                with contextlib.suppress(ProcessLookupError):  # it may have been stopped
                    os.killpg(process.child.pid, signal.SIGCONT)
        for process in self.processes.values():
            try:
                process.child.wait(15)
            except subprocess.TimeoutExpired:
                process.child.kill()
                process.child.wait(5)


class Meanwhile(threading.Thread):
    """Something done in a thread of its own."""

    def __init__(self, action: Callable[[], Ran]) -> None:
        super().__init__(daemon=True)
        self._action = action
        self.ran: Ran | None = None
        self.start()

    def run(self) -> None:
        self.ran = self._action()

    def result(self) -> Ran:
        self.join(2 * PATIENCE)
        assert self.ran is not None, "it does not end"
        return self.ran
