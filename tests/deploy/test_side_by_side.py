"""Several deployments of a run, and several runs at a time."""

from __future__ import annotations

import json
import os
import signal

from tests.build.e2e.trove import finish
from tests.deploy.world import CLUSTER, World, wait_for

#: Waits until the other of a pair is there too, so it ends only if both run at a time.
MEET = """#!/bin/sh
set -e
: > "$2.here"
for other in $OTHERS; do
    n=0
    while ! [ -e "$other.here" ]; do sleep 0.02; n=$((n + 1)); [ $n -lt 500 ]; done
done
echo "$$" > "$2"
"""


def started(out: str) -> list[str]:
    """The names of deployments in the order in which they began."""
    marked = [line for line in out.splitlines() if "]Deploying with " in line]
    return [line.partition("]Deploying")[0].rpartition("[")[2] for line in marked]


def meeting(location: str, *others: str) -> dict[str, str]:
    return {"type": "meet", "location": location, "OTHERS": " ".join(others)}


def test_independent_deployments_go_side_by_side(any_world: World) -> None:
    world = any_world
    world.write("meet.write", MEET)
    world.cluster(one=meeting("a", "b"), two=meeting("b", "a"))
    world.deploy()
    assert world.output("a") != world.output("b")


def test_they_begin_in_the_order_of_the_file(world: World) -> None:
    names = ["z", "a", "m", "b", "y"]
    world.write("order.write", '#!/bin/sh\necho "$2" >> order\n')
    world.cluster(**{name: {"type": "order", "location": name} for name in names})
    ran = world.deploy("--builders=1")
    assert started(ran.out) == names
    assert world.output("order").split() == names
    assert sorted(started(world.deploy("--builders=3").out)) == sorted(names)


def test_no_more_at_a_time_than_builders(world: World) -> None:
    world.write(
        "count.write",
        '#!/bin/sh\nset -e\nmkdir "on-$2"; ls -d on-* | wc -l >> most\nsleep 0.2; rmdir "on-$2"\n',
    )
    world.cluster(**{f"d{n}": {"type": "count", "location": f"{n}"} for n in range(6)})
    world.deploy("--builders=2")
    assert {*world.output("most").split()} <= {"1", "2"}


def test_all_checks_come_before_anything_is_done(world: World) -> None:
    world.write("c.write", '#!/bin/sh\necho done > "$2"\n')
    world.write(
        "c.check", '#!/bin/sh\necho "checked $1"\n[ "$1" != bad ] || { echo no >&2; exit 4; }\n'
    )
    world.cluster(
        one="out", two={"type": "c", "location": "good"}, three={"type": "c", "location": "bad"}
    )
    ran = world.fail("--builders=1")
    assert "Nothing was deployed: checking three failed: c.check failed with code 4: no" in ran.err
    assert "checked good" in ran.out
    assert "Unpacking" not in ran.out
    assert not (world.definitions / "out").exists()


def test_a_failure_lets_what_runs_end_and_starts_nothing_more(world: World) -> None:
    # It ends well after the other, or the third could begin before anybody knows of the failure.
    world.write("meet.write", MEET + "sleep 3\n")
    world.write("fail.write", "#!/bin/sh\n: > fail.here; echo broken >&2; kill -9 $$\n")
    world.cluster(
        one={"type": "fail", "location": "x"},
        two=meeting("b", "fail"),
        three="never",
    )
    ran = world.fail()
    assert "Deployment one failed: fail.write failed with code -9: broken" in ran.err
    assert "Deployed before: two." in ran.err
    assert "Not started: three." in ran.err
    assert (world.definitions / "b").exists()
    assert not (world.definitions / "never").exists()


def test_two_runs_at_once(any_world: World) -> None:
    """Of the same cluster, to different places and to the same one."""
    world = any_world
    world.write("meet.write", MEET)
    world.cluster(one=meeting("a", "b"))
    first = world.start("deploy", CLUSTER)
    second = world.start("deploy", CLUSTER, "one.location=b", "one.OTHERS=a")
    for process in (first, second):
        ran = finish(process)
        assert ran.status == 0, ran.err
    assert not world.runs

    world.cluster(one={"type": "tar", "location": "same.tar"})
    world.deploy()
    wanted = (world.definitions / "same.tar").read_bytes()
    processes = [world.start("deploy", CLUSTER) for _ in range(3)]
    for process in processes:
        ran = finish(process)
        assert ran.status == 0, ran.err
    assert (world.definitions / "same.tar").read_bytes() == wanted
    assert not world.runs


def test_what_another_run_is_at_is_left_alone(world: World) -> None:
    """What killed runs left is removed, but not what belongs to one that goes on."""
    world.write("meet.write", MEET)
    world.cluster(one=meeting("a", "later"))
    slow = world.start("deploy", CLUSTER)
    wait_for(lambda: (world.definitions / "a.here").exists())
    (going_on,) = world.runs
    killed = world.start("deploy", CLUSTER, "one.location=b")
    wait_for(lambda: (world.definitions / "b.here").exists())
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert len(world.runs) == 2
    world.write("quick.write", '#!/bin/sh\nls "$TMPDIR/../.." > "$2"\n')
    ran = world.run("deploy", CLUSTER, "one.type=quick", "one.location=listing")
    assert ran.status == 0, ran.err
    assert going_on.name in world.output("listing").split()
    assert len(world.output("listing").split()) == 2  # with its own
    world.write("later.here", "")
    assert finish(slow).status == 0
    assert not world.runs


def test_events_of_each_can_be_told_apart(world: World) -> None:
    world.write("say.write", '#!/bin/sh\necho "I am $2"; echo warned >&2; echo done > "$2"\n')
    world.cluster(one={"type": "say", "location": "a"}, two={"type": "say", "location": "b"})
    ran = world.deploy("--progress=json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    said = {e["name"]: e["text"] for e in events if e.get("stream") == "stdout"}
    assert said == {"one": "I am a", "two": "I am b"}
    finished = [e for e in events if e["event"] == "deployment_finished"]
    assert sorted((e["name"], e["succeeded"]) for e in finished) == [("one", True), ("two", True)]


def test_output_of_any_kind(world: World) -> None:
    """No UTF-8, no newline at the end, lines that are far too long, and a lot of all."""
    world.write(
        "odd.write",
        "#!/bin/sh\n"
        "printf '\\377\\376 odd\\n'; printf '\\033[31mred\\n'\n"
        "head -c 300000 /dev/zero | tr '\\0' x; printf '\\nno newline'\n"
        "head -c 200000 /dev/zero | tr '\\0' y >&2\n"
        'seq 20000 >&"$MORPH_LOG_FD"; printf \'\\377\' >&"$MORPH_LOG_FD"\n'
        'echo done > "$2"\n',
    )
    world.cluster(one={"type": "odd", "location": "a"})
    log = world.definitions / "log"
    ran = world.deploy(f"--log={log}", "--log-level=debug")
    assert "\\xff\\xfe odd" in ran.out
    assert "\033" not in ran.out
    assert ran.out.count("x") >= 300000
    assert "[one]no newline\n" in ran.out
    assert ran.err.count("y") >= 200000
    logged = [line.partition("odd.write: ")[2] for line in log.read_text().splitlines()]
    assert [text for text in logged if text.isdecimal()] == [str(n) for n in range(1, 20001)]
    assert "\\xff" in logged


def test_questions_are_asked_one_at_a_time(world: World) -> None:
    """Each extension that may ask has standard input to itself."""
    world.write("ask.write", '#!/bin/sh\nread -r answer; sleep 0.1; echo "$answer" > "$2"\n')
    world.cluster(
        one={"type": "ask", "location": "a"}, two={"type": "ask", "location": "b"}, three="c"
    )
    world.give()
    answers = world.write("answers", "yes\nno\n")
    ran = world.run("deploy", CLUSTER, wrap=["sh", "-c", f'exec "$@" < {answers}', "sh"])
    assert ran.status == 0, ran.err
    assert sorted([world.output("a"), world.output("b")]) == ["no\n", "yes\n"]
