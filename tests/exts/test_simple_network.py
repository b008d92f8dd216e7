from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphlib.writeexts.network import (
    Kind,
    Stanza,
    format_interfaces,
    format_networkd,
    parse_interface,
    parse_network_config,
)
from tests.exts.programs import fail, succeed

NAMES = st.from_regex(r"[a-z*][a-z0-9.*_-]{0,14}", fullmatch=True)
VALUES = st.from_regex(r"[a-zA-Z0-9.$()=-]{0,12}", fullmatch=True)
ARGUMENTS = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda x: x not in ("address", "netmask")),
    VALUES,
    max_size=4,
)


def test_static_and_dhcp(tree: Path) -> None:
    config = (
        "eth1:static,address=10.0.0.2,netmask=255.255.240.0,gateway=10.0.0.1,dns=10.0.0.3;"
        "lo:loopback;eth0:dhcp,hostname=$(hostname);"
    )
    said = succeed("simple-network.configure", tree, env={"NETWORK_CONFIG": config})
    assert f"Processing NETWORK_CONFIG={config}\n" in said
    assert (tree / "etc/network/interfaces").read_text() == (
        "auto lo\niface lo inet loopback\n\n"
        "auto eth0\niface eth0 inet dhcp\n    hostname $(hostname)\n\n"
        "auto eth1\niface eth1 inet static\n    address 10.0.0.2\n    netmask 255.255.240.0\n"
        "    gateway 10.0.0.1\n    dns 10.0.0.3\n"
    )
    networkd = tree / "etc/systemd/network"
    assert sorted(path.name for path in networkd.iterdir()) == [
        "50-eth1.network",
        "52-eth0.network",
    ]
    assert (networkd / "50-eth1.network").read_text() == (
        "[Match]\nName=eth1\n\n[Network]\nAddress=10.0.0.2/20\nGateway=10.0.0.1\nDNS=10.0.0.3\n"
    )
    assert (networkd / "52-eth0.network").read_text() == (
        "[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n"
    )


def test_without_a_word_all_wired_interfaces_use_dhcp(tree: Path) -> None:
    networkd = tree / "etc/systemd/network"
    networkd.mkdir(parents=True)
    (networkd / "10-dhcp.network").write_text("old")
    succeed("simple-network.configure", tree)
    assert (tree / "etc/network/interfaces").read_text() == (
        "auto lo\niface lo inet loopback\n\n"
        "auto eth0\niface eth0 inet dhcp\n    hostname $(hostname)\n"
    )
    assert {path.name: path.read_text() for path in networkd.iterdir()} == {
        "10-dhcp.network.morph": "old",
        "50-e*.network": "[Match]\nName=e*\n\n[Network]\nDHCP=yes\n",
    }


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("", "is missing its type"),
        ("eth0", "is missing its type"),
        ("eth0:", "is missing its type"),
        ("lo:loopback;;eth0:dhcp", "is missing its type"),
        ("eth0:bootp", "has unknown interface type"),
        ("eth0:dhcp,x", "has bad argument"),
        ("eth0:dhcp,=x", "has bad argument"),
        ("eth0:dhcp,a=b\n    up rm -rf /", "has bad argument"),
        ("eth0:dhcp,a=b,a=c", "has repeated argument"),
        ("eth0:static,address=10.0.0.1", "address and netmask must be specified together"),
        ("eth0:static,netmask=255.0.0.0", "address and netmask must be specified together"),
        ("eth0:static,address=<my ip>,netmask=255.0.0.0", "has bad argument"),
        ("eth0:static,address=10.0.0.1,netmask=255.0.255.0", "is no netmask"),
        ("eth0:static,address=10.0.0.1,netmask=0.0.0.255", "is no netmask"),
        ("eth0:static,address=10.0.0.1,netmask=33", "is no netmask"),
        ("../../x:dhcp", "is no name of an interface"),
        ("a b:dhcp", "is no name of an interface"),
    ],
)
def test_mistakes(tree: Path, config: str, problem: str) -> None:
    (tree / "etc/systemd/network").mkdir(parents=True)
    (tree / "etc/systemd/network/10-dhcp.network").write_text("old")
    assert problem in fail("simple-network.configure", tree, env={"NETWORK_CONFIG": config})
    assert not (tree / "etc/network").exists()
    assert (tree / "etc/systemd/network/10-dhcp.network").exists()


def test_what_is_in_the_way_is_told(tree: Path) -> None:
    (tree / "etc/systemd").write_text("")
    assert "Unable to create directory /etc/systemd/network" in fail(
        "simple-network.configure", tree
    )


def test_links_do_not_lead_out(tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (tree / "etc/network").symlink_to(outside)
    (tree / "etc/systemd").symlink_to("../../outside")
    succeed("simple-network.configure", tree)
    assert not list(outside.iterdir())
    assert (tree / str(outside).lstrip("/") / "interfaces").is_file()
    assert (tree / "outside/network/50-e*.network").is_file()


@given(st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_masks(bits: int, number: int) -> None:
    address = str(ipaddress.IPv4Address(number))
    mask = str(ipaddress.IPv4Network((0, bits)).netmask)
    assert str(parse_interface(address, mask)) == f"{address}/{bits}"
    assert str(parse_interface(address, str(bits))) == f"{address}/{bits}"


@given(st.lists(st.builds(Stanza, NAMES, st.sampled_from(Kind), ARGUMENTS), min_size=1, max_size=5))
def test_what_is_written_is_read(stanzas: list[Stanza]) -> None:
    text = ";".join(
        ",".join([f"{each.name}:{each.kind}", *(f"{k}={v}" for k, v in each.arguments.items())])
        for each in stanzas
    )
    assert parse_network_config(text) == tuple(stanzas)
    written = format_interfaces(stanzas)
    assert written.count("iface ") == len(stanzas)
    files = format_networkd(stanzas)
    assert len(files) == sum(each.kind is not Kind.LOOPBACK for each in stanzas)


@given(st.text(alphabet="ab:;,=/ \n.1") | st.text())
def test_any_text_is_judged(text: str) -> None:
    try:
        stanzas = parse_network_config(text)
    except ValueError as error:
        assert str(error).startswith("NETWORK_CONFIG: ")
    else:
        assert stanzas
        assert all("/" not in name for name in format_networkd(stanzas))
        for content in format_networkd(stanzas).values():
            assert content.startswith("[Match]\nName=")
