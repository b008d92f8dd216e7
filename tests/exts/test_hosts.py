from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.exts.hosts import find_problem
from tests.exts.programs import fail, succeed

NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9.-]*", fullmatch=True), min_size=1, max_size=4)


def test_lines_are_added(tree: Path) -> None:
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    succeed(
        "hosts.configure",
        tree,
        env={"HOSTS_B": "10.0.0.1 b", "HOSTS_A": "::1 localhost6 ip6", "HOSTS_C": " 10.0.0.1\ta "},
    )
    expected = "127.0.0.1 localhost\n10.0.0.1\ta\n10.0.0.1 b\n::1 localhost6 ip6\n"
    assert (tree / "etc/hosts").read_text() == expected


def test_nothing_is_written_if_one_is_bad(tree: Path) -> None:
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    error = fail(
        "hosts.configure",
        tree,
        env={
            "HOSTS_GOOD": "10.0.0.1 good",
            "HOSTS_EMPTY": " ",
            "HOSTS_SHORT": "10.0.0.1",
            "HOSTS_V4": "10.0.0 x",
            "HOSTS_V6": "10::0::1 x",
            "HOSTS_TWO": "10.0.0.1 x\n10.0.0.2 y",
        },
    )
    assert error.splitlines() == [
        "ERROR: HOSTS_EMPTY: line is empty: ' '",
        "HOSTS_SHORT: missing hostname: '10.0.0.1'",
        r"HOSTS_TWO: more than one line: '10.0.0.1 x\n10.0.0.2 y'",
        "HOSTS_V4: invalid ip: '10.0.0 x'",
        "HOSTS_V6: invalid ip: '10::0::1 x'",
    ]
    assert (tree / "etc/hosts").read_text() == "127.0.0.1 localhost\n"


@given(st.ip_addresses(), NAMES, st.sampled_from([" ", "\t", "  "]))
def test_every_address_is_fine(address: object, names: list[str], blank: str) -> None:
    assert find_problem(blank.join([str(address), *names])) is None
    assert find_problem(str(address)) == "missing hostname"
    assert find_problem(" ".join(names)) in ("missing hostname", "invalid ip")


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    problem = find_problem(text)
    assert problem is None or problem in (
        "line is empty",
        "missing hostname",
        "invalid ip",
        "more than one line",
    )


@pytest.mark.parametrize("address", ["localhost", "1.2.3.256", "1.2.3", "[::1]", "01.2.3.4", "1"])
def test_what_is_no_address(address: str) -> None:
    assert find_problem(f"{address} name") == "invalid ip"
