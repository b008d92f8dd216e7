"""What the commands of a chunk see, and in which order they run."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from morphlib.definitions.models import STEPS
from tests.build.e2e.trove import COMMIT_TIME, Trove, git, members, read_member

INSTALL = ["mkdir -p $DESTDIR/usr/bin; echo hi > $DESTDIR/usr/bin/hello"]

#: Prints the environment of a command as the kernel keeps it, before any shell adds to it.
ENVIRONMENT = "tr '\\0' '\\n' < /proc/$$/environ > e; sort e"


def environment(trove: Trove, chunk: str) -> dict[str, str]:
    lines = [line.decode() for line in trove.printed(chunk)]
    return dict(line.split("=", 1) for line in lines)


def test_all_steps_run_in_order_below_their_headers(trove: Trove) -> None:
    every: dict[str, Any] = {}
    for step in STEPS:
        every[step.replace("-", "_")] = [f"echo {step} $MAKEFLAGS", "echo 2"]
    trove.chunk("hello", **every)
    trove.build()
    lines = trove.log("hello").decode().splitlines()
    shown = [line for line in lines if not line.startswith("+ ")]
    expected = []
    for when in ("configure", "build", "test", "install", "strip"):
        for step in (f"pre-{when}", when, f"post-{when}"):
            flags = "-j4" if when == "build" else "-j1"
            expected += [f"### {step.upper()}-COMMANDS ###", f"{step} {flags}", "2"]
    assert shown == expected


def test_commands_are_given_to_the_shell_exactly(trove: Trove) -> None:
    trove.chunk("hello", build=["tr '\\0' '|' < /proc/$$/cmdline; :", "x=1\n\necho $x; echo\t$PWD"])
    trove.build()
    log = trove.log("hello").decode()
    assert "sh|-x|-e|-c|tr '\\0' '|' < /proc/$$/cmdline; :|" in log
    assert "+ x=1\n+ echo 1\n1\n+ echo /hello.build\n/hello.build\n" in log


def test_nothing_carries_over_but_files(trove: Trove) -> None:
    trove.chunk(
        "hello",
        build=["x=1; cd d; (sleep 30 &) ; touch made", "echo x=$x in $(pwd); ls d; ps -o args"],
    )
    trove.build()
    printed = b"\n".join(trove.printed("hello"))
    assert b"x= in /hello.build\nf\nmade" in printed
    assert b"sleep" not in printed


def test_environment_is_exactly_this(any_trove: Trove) -> None:
    any_trove.chunk("hello", configure=[ENVIRONMENT])
    any_trove.build(env={"SECRET": "x", "CFLAGS": "-O9", "LANG": "de_DE.UTF-8", "UMASK": "7"})
    assert environment(any_trove, "hello") == {
        "CCACHE_DIR": "/tmp/ccache",
        "CCACHE_EXTRAFILES": "",
        "DESTDIR": "/hello.inst",
        "HOME": "/tmp",
        "LC_ALL": "C",
        "LOGNAME": "tomjon",
        "MAKEFLAGS": "-j1",
        "MORPH_ARCH": "x86_64",
        "PATH": "/usr/bin:/usr/lib/ccache:/sbin:/usr/sbin:/bin:/usr/bin",
        "PREFIX": "/usr",
        "PWD": "/hello.build",
        "SHELL": "/bin/sh",
        "SOURCE_DATE_EPOCH": str(COMMIT_TIME),
        "TARGET": "x86_64-baserock-linux-gnu",
        "TARGET_STAGE1": "x86_64-bootstrap-linux-gnu",
        "TERM": "dumb",
        "USER": "tomjon",
        "USERNAME": "tomjon",
    }


def test_environment_without_compiler_cache(trove: Trove) -> None:
    trove.chunk("hello", configure=[ENVIRONMENT])
    trove.build("--no-ccache")
    found = environment(trove, "hello")
    assert not [name for name in found if "CCACHE" in name]
    assert found["PATH"] == "/usr/bin:/sbin:/usr/sbin:/bin:/usr/bin"


def test_compiler_cache_of_the_repository_is_there(any_trove: Trove) -> None:
    """Only where the build has a ccache. Two repositories of one name share none."""
    script = "mkdir -p $DESTDIR/usr/bin; echo > $DESTDIR/usr/bin/ccache"
    any_trove.stratum("cc")
    any_trove.chunk("ccache", "cc", install=[script])
    any_trove.stratum("main", build_depends=["base", "cc"])
    any_trove.chunk("hello", build=["echo kept >> $CCACHE_DIR/mine; cat $CCACHE_DIR/mine"])
    any_trove.build()
    any_trove.chunk("hello", build=["cat $CCACHE_DIR/mine; echo more"])
    any_trove.build()
    logs = [p.read_bytes() for p in any_trove.artifacts.glob("*.build-log")]
    assert sum(b"+ echo more\nmore\n" in log and b"\nkept\n" in log for log in logs) == 1
    # As somebody else's repository of that name it starts with nothing.
    any_trove.source("other/src", {"f": "f"})
    any_trove.chunk("hello", repo="other/src", build=["ls -A $CCACHE_DIR | wc -l; echo third"])
    any_trove.build()
    logs = [p.read_bytes() for p in any_trove.artifacts.glob("*.build-log")]
    assert sum(b"\n0\n+ echo third\n" in log for log in logs) == 1


def test_only_what_is_meant_to_pass_is_passed_on(trove: Trove) -> None:
    trove.chunk("hello", configure=[ENVIRONMENT])
    trove.build(env={"DISTCC_HOSTS": "one two", "DISTCC_DIR": "/x", "FAKEROOTKEY": "7"})
    found = environment(trove, "hello")
    assert found["DISTCC_HOSTS"] == "one two"
    assert found["FAKEROOTKEY"] == "7"
    assert "DISTCC_DIR" not in found
    assert "CCACHE_PREFIX" not in found
    trove.chunk("hello", configure=[f"{ENVIRONMENT}; :"])
    trove.settings["no-distcc"] = "no"
    trove.build()
    logs = [p.read_bytes() for p in trove.artifacts.glob("*.build-log")]
    assert sum(b"CCACHE_PREFIX=distcc" in log for log in logs) == 1


def test_environment_of_a_bootstrap_chunk(any_trove: Trove) -> None:
    any_trove.chunk("early", "base", mode="bootstrap", needs=["host-tools"], build=[ENVIRONMENT])
    any_trove.build(env={"PATH": "/nonsense:/usr/bin:/bin:/usr/sbin:/sbin"})
    found = environment(any_trove, "early")
    assert found["DESTDIR"] == "/staging/early.inst"
    assert found["PWD"] == "/staging/early.build"
    assert found["PATH"] == (
        "/staging/usr/bin:/staging/usr/lib/ccache:"
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )


def test_prefixes_of_dependencies_are_searched_first(trove: Trove) -> None:
    """Those of all recursive dependencies, in their order, each once; its own is PREFIX alone."""
    program = "mkdir -p $DESTDIR$PREFIX/bin; echo 'echo it is '$0 > $DESTDIR$PREFIX/bin/mine; "
    program += "chmod +x $DESTDIR$PREFIX/bin/mine"
    trove.chunk("plover", spec={"prefix": "/plover"}, install=[program])
    trove.chunk("xyzzy", spec={"prefix": "/xyzzy"}, needs=["plover"], install=["echo $PREFIX"])
    trove.chunk("hello", needs=["xyzzy"], build=["echo $PREFIX $PATH", "which mine"])
    trove.build("--no-ccache")
    path = "/usr/bin:/plover/bin:/xyzzy/bin:/sbin:/usr/sbin:/bin:/usr/bin"
    assert trove.printed("hello") == [f"/usr {path}".encode(), b"/plover/bin/mine"]
    assert trove.printed("xyzzy") == [b"/xyzzy"]


@pytest.mark.parametrize("limit", [1, 3])
def test_max_jobs_of_a_chunk_is_a_bound(trove: Trove, limit: int) -> None:
    show = "echo $MAKEFLAGS"
    trove.chunk("hello", max_jobs=limit, pre_build=[show], build=[show], install=[show])
    trove.build()
    flag = f"-j{limit}".encode()
    assert trove.printed("hello") == [flag, flag, b"-j1"]


def test_make_jobs_are_shared_by_what_builds_together(trove: Trove) -> None:
    """Two that build at once get half each; the last one left gets all of it again."""
    show = "echo $MAKEFLAGS"
    trove.chunk("short", build=["sleep 0.5", show])
    trove.chunk("long", build=["sleep 0.3", show, "sleep 1", show])
    trove.build()
    assert trove.printed("short") == [b"-j2"]
    assert trove.printed("long") == [b"-j2", b"-j4"]


def test_who_and_where_it_is(any_trove: Trove) -> None:
    any_trove.chunk(
        "hello",
        build=[
            "id -u; id -g; pwd; umask",
            "readlink /proc/self/fd/0; uname -n; echo err >&2",
        ],
    )
    any_trove.build()
    printed = [line.decode() for line in any_trove.printed("hello")]
    assert printed[:4] == ["0", "0", "/hello.build", "0022"]
    assert printed[4] == "/dev/null"
    assert printed[5] != ""
    assert printed[6] == "err"


def test_source_is_as_committed(any_trove: Trove) -> None:
    """All files and directories have the commit's time; git works and says that nothing changed."""
    trove = any_trove
    head = trove.source("src", {"a b/c": "text", "link": "->hello.c", "run": "#!/bin/sh\n"})
    (trove.root / "gits/src/run").chmod(0o755)
    head = trove.source("src", {})
    trove.chunk(
        "hello",
        "base",
        mode="bootstrap",
        build=[
            "find . -path ./.git -prune -o ! -type l -printf '%T@ %m %y %p\\n' | sort -k4",
            "git rev-parse HEAD; git status --porcelain; git describe --always",
            "git log -1 --format=%ct",
            "git rev-parse --abbrev-ref HEAD; git branch -a; git tag; git remote; readlink link",
        ],
    )
    trove.build()
    printed = [line.decode() for line in trove.printed("hello")]
    time = f"{COMMIT_TIME}.0000000000"
    assert printed[:7] == [
        f"{time} 755 d .",
        f"{time} 755 d ./a b",
        f"{time} 644 f ./a b/c",
        f"{time} 755 d ./d",
        f"{time} 644 f ./d/f",
        f"{time} 644 f ./hello.c",
        f"{time} 755 f ./run",
    ]
    assert printed[7:] == [
        head,
        head[:12],
        str(COMMIT_TIME),
        "HEAD",
        "* (no branch)",
        "hello.c",
    ]


def test_submodules_are_there(trove: Trove) -> None:
    inner = trove.source("inner", {"innermost": "deep inside\n"})
    url = (trove.root / "gits/inner").as_uri()
    directory = trove.root / "gits/outer"
    trove.source("outer", {"own": "own\n"})
    git(directory, "submodule", "add", "-q", url, "sub/inner")
    head = trove.source("outer", {})
    trove.chunk(
        "hello",
        "base",
        mode="bootstrap",
        repo="outer",
        build=[
            "cat own sub/inner/innermost; stat -c %Y sub sub/inner sub/inner/innermost",
            "git rev-parse HEAD; git -C sub/inner rev-parse HEAD",
            "git submodule status; git status -s",
        ],
    )
    trove.build()
    printed = [line.decode() for line in trove.printed("hello")]
    assert printed[:5] == ["own", "deep inside", *[str(COMMIT_TIME)] * 3]
    assert printed[5:7] == [head, inner]
    assert re.match(rf"[ -]{inner} sub/inner", printed[7])
    assert printed[8:] == []


def test_binary_commands_reach_the_shell_as_they_are(trove: Trove) -> None:
    command = b"echo \xff\xfe 'caf\xe9' | od -An -tx1 || printf '\xff\\n'"
    trove.chunk("hello", build=[b"printf '\xff\xe9\\n'", command], install=[b": \xc3"])
    ran = trove.build()
    assert b"\xff\xe9" in trove.printed("hello")
    assert b"\n+ : '\xc3'\n" in trove.log("hello")
    assert ran.err == ""
    identity = trove.meta("hello-misc")["cache-id"]
    stored = base64.b64encode(command).decode()
    assert identity["build-commands"][1] == {"type": "binary", "base64": stored}


def test_booleans_are_commands_too(trove: Trove) -> None:
    trove.chunk("hello", build=[True], test=[True])
    trove.build()
    assert trove.log("hello").decode().splitlines() == [
        "### BUILD-COMMANDS ###",
        "+ true",
        "### TEST-COMMANDS ###",
        "+ true",
    ]
    trove.chunk("hello", build=[False])
    assert "build failed (exit_code=1)" in trove.fail().err


def test_no_commands_make_an_empty_artifact(trove: Trove) -> None:
    trove.chunk("hello", build=None, install=[])
    trove.build()
    assert trove.log("hello") == b""
    assert set(members(trove.artifact("hello-bins"))) == {"baserock", "baserock/hello-bins.meta"}


def test_output_that_is_no_text_is_kept_and_shown_escaped(trove: Trove) -> None:
    trove.chunk("hello", build=["printf 'caf\\351 \\033[31m \\000 end\\n'"])
    ran = trove.build("--build-log-on-stdout")
    assert b"caf\xe9 \x1b[31m \0 end\n" in trove.log("hello")
    assert "caf\\xe9" in ran.out


def test_build_log_on_stdout_comes_as_it_is_printed(trove: Trove) -> None:
    trove.write()
    trove.chunk("hello", build=["echo one; sleep 30; echo two"])
    trove.write()
    process = trove.start("build", "systems/sys.morph", "--build-log-on-stdout")
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        assert any(line == b"one\n" for line in lines)
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=20)
    assert b"two\n" not in rest.replace(b"echo two\n", b"")


def test_build_log_on_stdout_is_whole(trove: Trove) -> None:
    trove.chunk("hello", build=["seq 20000", "echo last"])
    ran = trove.build("--build-log-on-stdout")
    log = trove.log("hello").decode()
    shown = [line for line in ran.out.splitlines() if line.isdigit()]
    assert shown == [line for line in log.splitlines() if line.isdigit()]
    assert len(shown) == 20000
    assert "### BUILD-COMMANDS ###" in ran.out


def test_build_log_on_stdout_goes_to_the_output_file(trove: Trove) -> None:
    trove.chunk("hello", build=["echo it speaks"])
    ran = trove.build("--build-log-on-stdout", f"--output={trove.root}/out")
    assert ran.out == ""
    assert "\nit speaks\n" in (trove.root / "out").read_text()


def test_failed_build_keeps_its_log_and_shows_it(any_trove: Trove) -> None:
    any_trove.chunk(
        "hello", build=["echo before; printf '\\377\\n'", "sh -c 'exit 77'", "echo never"]
    )
    ran = any_trove.fail()
    (path,) = [p for p in any_trove.artifacts.glob("*.build-log") if b"before" in p.read_bytes()]
    log = path.read_bytes()
    assert b"\xff\n" in log
    assert b"never" not in log
    assert not list(any_trove.artifacts.glob("*.chunk.hello-*"))
    assert "build failed (exit_code=77)" in ran.err
    assert "hello" in ran.err
    assert str(path) in ran.err
    assert "before\n" in ran.out
    copies = list(any_trove.temp.glob("staging/hello-*.log"))
    assert [copy.read_bytes() for copy in copies] == [log]


def test_what_is_installed_is_in_the_system(any_trove: Trove) -> None:
    any_trove.chunk("hello", install=INSTALL)
    any_trove.build()
    assert read_member(any_trove.image(), "usr/bin/hello") == b"hi\n"
