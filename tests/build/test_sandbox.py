"""What a build can and can't do in its sandbox, with real ones."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import signal
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from morphlib.build import heldsandbox
from morphlib.build.heldsandbox import CAPABILITY_NUMBERS
from morphlib.build.namespace import HOSTNAME, enter_build_namespace
from morphlib.build.sandbox import (
    CAPABILITIES,
    Outcome,
    Sandbox,
    open_sandbox,
    run_in_sandbox,
)
from morphlib.build.sandboxroot import Mount, MountKind, RootKind
from morphlib.build.staging import stage
from morphlib.errors import MorphError, Reason
from morphlib.process import wait_until
from tests.build.isolation import Failed, in_child, in_namespace, make_layer, tools_layer

MOUNT_POINTS = ["dev", "proc", "tmp", "x.build", "x.inst", "objects"]


def _mounts(place: Path) -> tuple[Mount, ...]:
    for name in ("build", "inst", "tmp", "objects"):
        (place / name).mkdir(exist_ok=True)
    return (
        Mount(MountKind.WRITABLE, "/x.build", place / "build"),
        Mount(MountKind.WRITABLE, "/x.inst", place / "inst"),
        Mount(MountKind.WRITABLE, "/tmp", place / "tmp"),
        Mount(MountKind.READ_ONLY, "/objects", place / "objects"),
    )


def _run(
    place: Path,
    user: int,
    script: str | bytes,
    *,
    environment: Mapping[str, str | bytes] | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> tuple[Outcome, bytes]:
    """Run a script in a staging area of a few tools."""

    def work() -> tuple[Outcome, bytes]:
        prepare()
        tools = tools_layer(place / "layers")
        area = place / "area"
        area.mkdir()
        log = place / "log"
        with stage([tools], MOUNT_POINTS, area) as staged, log.open("wb") as file:
            sandbox = Sandbox(
                staged.root,
                mounts=_mounts(place),
                environment={"PATH": "/bin"} if environment is None else environment,
                cwd="/x.build",
            )
            outcome = run_in_sandbox(sandbox, ["sh", "-x", "-e", "-c", script], file.fileno())
        return outcome, log.read_bytes()

    return in_namespace(work, user=user)


def _run_with_host(place: Path, user: int, script: str) -> tuple[Outcome, bytes]:
    """Run a script with the tools of this machine."""

    def work() -> tuple[Outcome, bytes]:
        root = place / "root"
        root.mkdir()
        (place / "inst").mkdir()
        log = place / "log"
        sandbox = Sandbox(
            root,
            RootKind.HOST,
            (Mount(MountKind.WRITABLE, "/staging/x.inst", place / "inst"),),
            {"PATH": "/usr/bin:/bin"},
            cwd="/staging/x.inst",
        )
        with log.open("wb") as file:
            outcome = run_in_sandbox(sandbox, ["sh", "-c", script], file.fileno())
        return outcome, log.read_bytes()

    return in_namespace(work, user=user)


def test_status_and_output_of_a_command(place: Path, user: int) -> None:
    outcome, log = _run(place, user, "echo out; echo err >&2; exit 7")
    assert outcome.status == 7
    assert log == b"+ echo out\nout\n+ echo err\nerr\n+ exit 7\n"


def test_killed_command(place: Path, user: int) -> None:
    assert _run(place, user, "kill -KILL $$")[0].status == 128 + signal.SIGKILL


@pytest.mark.parametrize("directory", ["/x.build", "/x.inst", "/tmp", "/dev/shm"])
def test_writable_directories(place: Path, user: int, directory: str) -> None:
    outcome, log = _run(place, user, f"echo data > {directory}/file; cat {directory}/file")
    assert outcome.status == 0, log


@pytest.mark.parametrize("path", ["/file", "/bin/sh", "/dev/file", "/objects/file", "/x", "/lib/x"])
def test_nothing_else_can_be_written(place: Path, user: int, path: str) -> None:
    outcome, log = _run(place, user, f"echo data > {path}")
    assert outcome.status != 0
    assert b"ead-only file system" in log


def test_what_is_written_arrives(place: Path, user: int) -> None:
    _run(place, user, "echo built > /x.inst/file")
    assert (place / "inst/file").read_text() == "built\n"


def test_read_only_mount_can_be_read(place: Path, user: int) -> None:
    def prepare() -> None:
        (place / "objects").mkdir()
        (place / "objects/pack").write_text("an object")

    assert b"an object" in _run(place, user, "cat /objects/pack", prepare=prepare)[1]


def test_no_network(place: Path, user: int) -> None:
    outcome, log = _run(place, user, "cat /proc/net/dev /proc/net/route")
    assert outcome.status == 0
    interfaces = [line.split(b":")[0].strip() for line in log.splitlines() if b":" in line]
    assert interfaces == [b"lo"]


def test_other_processes_are_invisible(place: Path, user: int) -> None:
    _, log = _run(place, user, "echo /proc/[0-9]*")
    # The first process of the sandbox and the shell.
    assert log.splitlines()[-1].split() == [b"/proc/1", b"/proc/2"]


def test_the_host_is_invisible(place: Path, user: int) -> None:
    _, log = _run(place, user, f"ls -d /home /root /etc /usr/bin {place} || :")
    assert log.count(b"No such file") == 5


def test_undeclared_dependency_is_invisible(place: Path, user: int) -> None:
    def prepare() -> None:
        make_layer(place / "layers", "secret", lambda top: (top / "secret").write_text("x"))

    outcome, log = _run(place, user, "ls /; ls -d /secret", prepare=prepare)
    assert outcome.status != 0
    assert b"secret" not in log.splitlines()


def test_environment_is_as_given(place: Path, user: int) -> None:
    environment: dict[str, str | bytes] = {
        "PATH": "/bin",
        "BYTES": b"\xff\xfe",
        "EMPTY": "",
        "LINES": "a\nb",
    }
    _, log = _run(place, user, "/bin/env -0", environment=environment)
    shown = dict(
        item.split(b"=", 1) for item in log.split(b"\n", 1)[1].split(b"\0") if b"=" in item
    )
    # The shell and bubblewrap add what is theirs.
    for name in (b"PWD", b"OLDPWD", b"SHLVL", b"_"):
        shown.pop(name, None)
    assert shown == {b"PATH": b"/bin", b"BYTES": b"\xff\xfe", b"EMPTY": b"", b"LINES": b"a\nb"}


def test_command_of_bytes(place: Path, user: int) -> None:
    _, log = _run(place, user, b"echo '\xff'")
    assert log.endswith(b"\xff\n")


def test_standard_input_is_empty(place: Path, user: int) -> None:
    assert _run(place, user, "cat")[0].status == 0


def test_uid_0_and_fixed_host_name(place: Path, user: int) -> None:
    _, log = _run(place, user, "id -u; id -g; cat /proc/sys/kernel/hostname; umask")
    lines = [line for line in log.splitlines() if not line.startswith(b"+")]
    assert lines == [b"0", b"0", HOSTNAME.encode(), b"0022"]


def test_no_mounts_and_no_device_nodes(place: Path, user: int) -> None:
    outcome, log = _run(place, user, "mknod /tmp/null c 1 3")
    assert outcome.status != 0
    assert b"not permitted" in log


def test_capabilities_are_few(place: Path, user: int) -> None:
    _, log = _run(place, user, "cat /proc/self/status")
    effective = int(dict(line.split(b":", 1) for line in log.splitlines()[1:])[b"CapEff"], 16)
    assert effective & (1 << 0)  # CAP_CHOWN
    for denied in (12, 16, 19, 21, 27):  # NET_ADMIN, SYS_MODULE, SYS_PTRACE, SYS_ADMIN, MKNOD
        assert not effective & (1 << denied)


def test_without_user_namespaces_root_builds_alike(place: Path, user: int) -> None:
    def prepare() -> None:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        assert not enter_build_namespace().user_namespace

    script = "mknod /tmp/null c 1 3 || touch /x || echo data > /x.inst/file; id -u"
    outcome, log = _run(place, user, script, prepare=prepare)
    assert outcome.status == 0, log
    assert b"not permitted" in log
    assert b"ead-only file system" in log
    assert (place / "inst/file").read_text() == "data\n"


@pytest.mark.parametrize("path", ["sys/kernel/core_pattern", "sys/kernel/printk_delay"])
def test_settings_of_the_machine_can_not_be_written(place: Path, user: int, path: str) -> None:
    """Uid 0 may write to these if it is the machine's, with no capability at all."""
    outcome, log = _run(place, user, f": >> /proc/{path}")
    assert outcome.status != 0
    assert b"Read-only" in log or b"Permission denied" in log


@pytest.mark.parametrize("change", ["chmod 622 {}", "chown 1:1 {}", "touch -d @1 {}"])
def test_device_nodes_of_the_machine_can_not_be_changed(
    place: Path, user: int, change: str
) -> None:
    node = Path("/dev/full")
    before = node.stat()
    try:
        outcome, _ = _run(place, user, change.format(node))
        after = node.stat()
    finally:
        if os.getuid() == 0:
            os.chown(node, before.st_uid, before.st_gid)
            node.chmod(before.st_mode & 0o7777)
    assert outcome.status != 0
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


def test_devices_take_what_is_written(place: Path, user: int) -> None:
    outcome, log = _run(place, user, "echo x > /dev/null; ! echo x > /dev/full")
    assert outcome.status == 0, log


def test_files_that_the_caller_left_open_stay_outside(place: Path, user: int) -> None:
    """A directory that is open leads to everything around it."""

    def work() -> bytes:
        os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY), 9, inheritable=True)
        enter_build_namespace()
        root = place / "root"
        root.mkdir()
        with (place / "log").open("wb") as file:
            run_in_sandbox(
                Sandbox(root, RootKind.HOST, environment={"PATH": "/bin"}),
                ["sh", "-c", "ls /proc/self/fd/"],
                file.fileno(),
            )
        return (place / "log").read_bytes()

    seen = in_child(work, user=user)
    assert b"2\n" in seen
    assert b"9\n" not in seen


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_stays_whatever_opens_the_streams_anew(place: Path, user: int, stream: str) -> None:
    _, log = _run(place, user, f"echo before; echo again > /dev/{stream}; echo after")
    lines = [line for line in log.splitlines() if not line.startswith(b"+")]
    assert lines == [b"before", b"again", b"after"]


def test_a_sandbox_that_is_killed_is_no_broken_one(place: Path, user: int) -> None:
    def prepare() -> None:
        if os.fork():
            return
        while not (place / "build/began").exists():
            time.sleep(0.01)
        bubblewraps = _processes_with(os.fsencode(place / "area/root"))
        for first in (each for pid in bubblewraps for each in _children(int(pid))):
            os.kill(first, signal.SIGKILL)
        os._exit(0)

    outcome, _ = _run(place, user, "touch /x.build/began; sleep 100", prepare=prepare)
    assert outcome.status == 128 + signal.SIGKILL


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []  # it is gone
    return [int(each) for each in text.split()]


def _run_several(place: Path, user: int, scripts: Sequence[str]) -> tuple[list[Outcome], bytes]:
    """Run scripts one after the other in one sandbox."""

    def work() -> tuple[list[Outcome], bytes]:
        tools = tools_layer(place / "layers")
        area = place / "area"
        area.mkdir()
        log = place / "log"
        with stage([tools], MOUNT_POINTS, area) as staged, log.open("wb") as file:
            sandbox = Sandbox(
                staged.root, mounts=_mounts(place), environment={"PATH": "/bin"}, cwd="/x.build"
            )
            with open_sandbox(sandbox) as opened:
                outcomes = [opened.run(["sh", "-c", each], file.fileno()) for each in scripts]
        return outcomes, log.read_bytes()

    return in_namespace(work, user=user)


def test_nothing_of_a_command_is_left_when_the_next_begins(place: Path, user: int) -> None:
    stubborn = "trap '' TERM HUP INT; (trap '' TERM HUP; while :; do sleep 1; done) & echo began"
    look = "for each in /proc/[0-9]*; do cat $each/stat 2>/dev/null; done"
    outcomes, log = _run_several(place, user, [stubborn, look, "exit 3"])
    assert [outcome.status for outcome in outcomes] == [0, 0, 3]
    states = {line.split(b") ")[0]: line.split(b") ")[1][:1] for line in log.splitlines()[1:]}
    # The first process of the namespace, and the shell that looks.
    assert sorted(name.split(b"(")[1] for name in states) == [b"bwrap", b"sh"]


def test_a_command_can_kill_all_it_sees(place: Path, user: int) -> None:
    outcomes, log = _run_several(place, user, ["sleep 60 & kill -9 -1; echo survived", "echo next"])
    assert [outcome.status for outcome in outcomes] == [0, 0]
    assert log == b"survived\nnext\n"


def test_what_starts_commands_is_not_to_be_seen(place: Path, user: int) -> None:
    _, log = _run_several(place, user, ["true", "cat /proc/[0-9]*/cmdline; ls -l /proc/self/fd"])
    assert b"python" not in log
    descriptors = {line.split(b" -> ")[0].split()[-1] for line in log.splitlines() if b"->" in line}
    assert descriptors == {b"0", b"1", b"2", b"3"}, log  # 3 is the directory that ls reads


def test_the_first_process_gives_nothing_away(place: Path, user: int) -> None:
    """Bubblewrap holds the machine's /proc open while it waits, which root's builds could write."""
    look = "for each in 0 1 2 3 4 5; do ls /proc/1/fd/$each/; done; ls /proc/1/root/"
    _, log = _run_several(place, user, ["true", look, "ls -l /proc/1/fd"])
    assert log.count(b"Permission denied") >= 7, log
    assert b"->" not in log


def test_keys_are_not_for_the_next_sandbox(place: Path, user: int) -> None:
    add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    script = f"""
        @key = ("user", "left-here"); $data = "x"; $session = -3; $search = 10;
        exit 2 if syscall({keyctl}, $search, $session, @key, 0) > 0;
        exit 3 if syscall({add_key}, @key, $data, 1, $session) < 0;
        exit 4 if syscall({keyctl}, $search, $session, @key, 0) < 0;
    """

    def work() -> list[int]:
        (place / "root").mkdir()
        sandbox = Sandbox(place / "root", RootKind.HOST, environment={"PATH": "/usr/bin:/bin"})
        run = ["perl", "-e", script]
        with (place / "log").open("wb") as file:
            return [run_in_sandbox(sandbox, run, file.fileno()).status for _ in range(2)]

    assert in_namespace(work, user=user) == [0, 0]


def test_capabilities_are_no_more_than_those_meant(place: Path, user: int) -> None:
    _, log = _run_several(place, user, ["cat /proc/self/status"])
    status = dict(line.split(b":", 1) for line in log.splitlines() if b":" in line)
    meant = sum(1 << CAPABILITY_NUMBERS[name] for name in CAPABILITIES)
    for name in (b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb"):
        assert int(status[name], 16) == meant, name
    assert int(status[b"NoNewPrivs"]) == 1


def test_programs_are_found_by_the_path_of_the_command(place: Path, user: int) -> None:
    def work() -> list[int]:
        for name, mode in (("a/x", 0o644), ("b/x", 0o755)):
            path = place / "build" / name
            path.parent.mkdir(parents=True)
            path.write_text("echo script without a head\n")
            path.chmod(mode)
        tools = tools_layer(place / "layers")
        (place / "area").mkdir()
        with (
            stage([tools], MOUNT_POINTS, place / "area") as staged,
            (place / "log").open("wb") as file,
            open_sandbox(Sandbox(staged.root, mounts=_mounts(place), cwd="/x.build")) as opened,
        ):
            found = {"PATH": "/nowhere:a:/x.build/b"}
            return [opened.run([name], file.fileno(), environment=found).status for name in "xy"]

    assert in_namespace(work, user=user) == [0, 127], (place / "log").read_bytes()
    log = (place / "log").read_bytes()
    assert log == (b"script without a head\nmorph: can't start y: No such file or directory\n")


def test_a_dead_builder_leaves_nothing(place: Path, user: int) -> None:
    def build() -> None:
        _run(place, user, "touch /x.build/began; sleep 97.31")

    builder = os.fork()
    if builder == 0:
        try:
            build()
        finally:
            os._exit(0)
    while not (place / "build/began").exists():
        time.sleep(0.01)
    (child,) = _children(builder)
    os.kill(child, signal.SIGKILL)
    os.waitpid(builder, 0)
    deadline = time.monotonic() + 10
    while (left := _processes_with(b"97.31")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


def _processes_with(text: bytes) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if text in (directory / "cmdline").read_bytes():
                found.append(directory.name)
        except OSError:
            continue
    return found


def test_owners_can_be_given(place: Path, user: int) -> None:
    outcome, log = _run(
        place, user, "touch /x.inst/f; chown 7:8 /x.inst/f; stat -c %u:%g /x.inst/f"
    )
    if user == 0:
        assert log.endswith(b"\n7:8\n")
    else:
        # Without subordinate ids it fails; with them it works as for root.
        assert outcome.status != 0 or log.endswith(b"\n7:8\n")


def test_processes_left_behind_are_gone(place: Path, user: int) -> None:
    _run(place, user, "(sleep 2; echo late > /x.inst/late) & :")
    time.sleep(2.5)
    assert not (place / "inst/late").exists()


def test_signals_are_not_ignored(place: Path, user: int) -> None:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    _, log = _run(place, user, "cat /proc/self/status", prepare=prepare)
    ignored = int(dict(line.split(b":", 1) for line in log.splitlines()[1:])[b"SigIgn"], 16)
    for signum in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
        assert not ignored & (1 << (signum - 1))


def test_time_and_memory_are_those_of_the_command(place: Path, user: int) -> None:
    script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done 2>/dev/null"
    outcome, _ = _run(place, user, f"set +x; {script}")
    assert outcome.cpu_seconds > 0.05
    assert 500_000 < outcome.peak_memory_bytes < 100_000_000


def test_missing_program_is_a_failing_command(place: Path, user: int) -> None:
    assert _run(place, user, "exec /no/such/program")[0].status == 127


def test_missing_mount_point_is_an_error(place: Path, user: int) -> None:
    def work() -> None:
        tools = tools_layer(place / "layers", ("sh",))
        area = place / "area"
        area.mkdir()
        with stage([tools], ["dev"], area) as staged:
            run_in_sandbox(Sandbox(staged.root, mounts=_mounts(place)), ["sh"], 2)

    with pytest.raises(Failed, match="MorphError: Can't put a sandbox together"):
        in_namespace(work, user=user)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["--no-such-option"], "no-such-option"), (["--ro-bind", "/none", "/tmp"], "/none")],
)
def test_what_bubblewrap_says_is_told(
    place: Path, user: int, monkeypatch: pytest.MonkeyPatch, arguments: list[str], why: str
) -> None:
    monkeypatch.setattr("morphlib.build.sandbox._CAPABILITY_ARGUMENTS", tuple(arguments))
    with pytest.raises(Failed, match=f"could not make a sandbox: bwrap: .*{why}"):
        _run(place, user, "true")
    assert wait_until(lambda: not _processes_with(os.fsencode(place)), 5)


def test_a_launcher_that_is_killed_is_started_anew(place: Path, user: int) -> None:
    def work() -> list[int]:
        (place / "root").mkdir()
        statuses = []
        for _ in range(3):
            sandbox = Sandbox(place / "root", RootKind.HOST, environment={"PATH": "/bin"})
            with (place / "log").open("wb") as file, open_sandbox(sandbox) as opened:
                statuses.append(opened.run(["sh", "-c", "exit 3"], file.fileno()).status)
                assert heldsandbox._launcher is not None
                os.kill(heldsandbox._launcher[1], signal.SIGKILL)
                statuses.append(opened.run(["sh", "-c", "exit 4"], file.fileno()).status)
        assert heldsandbox._launcher is not None
        (launcher,) = _children(os.getpid())  # and no dead runners
        assert launcher == heldsandbox._launcher[1]
        return statuses

    assert in_namespace(work, user=user) == [3, 4] * 3


def test_a_runner_that_is_killed_breaks_its_sandbox_only(place: Path, user: int) -> None:
    def work() -> tuple[str, str, int]:
        (place / "root").mkdir()
        sandbox = Sandbox(place / "root", RootKind.HOST, environment={"PATH": "/bin"})
        with (place / "log").open("wb") as file:
            with open_sandbox(sandbox) as opened:
                opened.run(["true"], file.fileno())
                assert heldsandbox._launcher is not None
                (runner,) = _children(heldsandbox._launcher[1])
                threading.Timer(0.5, os.kill, (runner, signal.SIGKILL)).start()
                try:
                    opened.run(["sleep", "98.31"], file.fileno())
                except MorphError as error:
                    told = error
            assert not _processes_with(b"98.31")
            assert wait_until(lambda: not _processes_with(os.fsencode(place)), 5)
            after = run_in_sandbox(sandbox, ["sh", "-c", "exit 5"], file.fileno())
        return told.message, told.reason.value, after.status

    message, reason, status = in_namespace(work, user=user)
    assert "a sandbox broke" in message
    assert reason == Reason.BUILD.value
    assert status == 5


def test_interrupt_kills_the_command(place: Path, user: int) -> None:
    def work() -> float:
        tools = tools_layer(place / "layers", ("sh", "sleep"))
        area = place / "area"
        area.mkdir()

        def stop(signum: int, frame: object) -> None:
            raise SystemExit

        signal.signal(signal.SIGTERM, stop)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        started = time.monotonic()
        try:
            with (
                stage([tools], MOUNT_POINTS, area) as staged,
                open_sandbox(Sandbox(staged.root, mounts=_mounts(place))) as opened,
            ):
                opened.run(["/bin/sleep", "60"], 2)
        except SystemExit:
            assert list(area.iterdir()) == []
            return time.monotonic() - started
        raise AssertionError("not interrupted")

    assert in_namespace(work, user=user) < 10


def test_host_tools_are_there_and_read_only(place: Path, user: int) -> None:
    outcome, log = _run_with_host(place, user, "ls / > listing; touch /usr/x || touch /x || :")
    assert outcome.status == 0, log
    assert log.count(b"ead-only file system") == 2
    assert "usr" in (place / "inst/listing").read_text().split()


@pytest.mark.parametrize("directory", ["/home", "/root", "/tmp", "/run", "/var/tmp"])
def test_host_places_are_empty(place: Path, user: int, directory: str) -> None:
    outcome, log = _run_with_host(place, user, f"ls -A {directory}; test -d {directory}")
    assert outcome.status == 0
    assert log == b""


def test_host_secrets_are_hidden(place: Path, user: int) -> None:
    _, log = _run_with_host(place, user, "cat /etc/shadow /etc/gshadow 2>/dev/null; ls -A /etc/ssh")
    assert b"root:" not in log
    assert b"key" not in log


def test_caches_on_the_host_are_hidden(place: Path, user: int) -> None:
    assert _run_with_host(place, user, f"ls -d {place}")[0].status != 0


_PERL = Path("/usr/bin/perl")


@pytest.mark.skipif(not _PERL.exists(), reason="needs perl on this machine")
@pytest.mark.parametrize(
    ("request_number", "expected"),
    [(0x5412, errno.EPERM), (0x1_0000_5412, errno.EPERM), (0x541C, errno.EPERM), (0x5401, 0)],
)
def test_nothing_types_on_a_terminal_that_is_shared(
    place: Path, user: int, request_number: int, expected: int
) -> None:
    def work() -> int:
        _ours, theirs = pty.openpty()
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        for stream in (0, 1, 2):
            os.dup2(theirs, stream)
        enter_build_namespace()
        (place / "root").mkdir()
        script = f"ioctl(STDIN, {request_number}, $b = 'x' x 100) || exit $!; exit 0"
        with open_sandbox(Sandbox(place / "root", RootKind.HOST)) as opened:
            return opened.run_on_terminal([str(_PERL), "-e", script]).status

    assert in_child(work, user=user) == expected
