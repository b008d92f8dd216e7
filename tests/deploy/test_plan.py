"""Plans: what follows from cluster, command line and environment."""

from __future__ import annotations

import ast
import mmap
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from morphlib.credentials import is_secret_name
from morphlib.definitions.models import Cluster
from morphlib.deploy.arguments import parse_arguments
from morphlib.deploy.parameters import sanitise_value
from morphlib.deploy.plan import Deployment, is_extension_name
from morphlib.deploy.planview import plan_as_data, plan_as_text
from morphlib.errors import MorphError, MorphErrors
from tests.deploy.clusters import entry, load_cluster, plan, tar


def only(cluster: Cluster, *arguments: str, **circumstances: Any) -> Deployment:
    (deployment,) = plan(cluster, *arguments, **circumstances).deployments
    return deployment


def messages(cluster: Cluster, *arguments: str, **circumstances: Any) -> list[str]:
    """All that is wrong."""
    with pytest.raises(MorphError) as caught:
        plan(cluster, *arguments, **circumstances)
    error = caught.value
    return [e.message for e in (error.errors if isinstance(error, MorphErrors) else (error,))]


THREE = load_cluster(
    entry("a", {"a2": tar("a2.tar"), "a1": tar("a1.tar")}),
    entry("b", {"b": tar()}, entry("c", {"inner": tar("/in")}, entry("d", {"d.e": tar("deep")}))),
)


# Selection


def test_everything_in_the_order_of_the_file() -> None:
    assert [each.name for each in plan(THREE).deployments] == ["a2", "a1", "b"]
    assert plan(THREE).systems == tuple(f"systems/{name}.morph" for name in "abcd")


def test_named_deployments_in_the_order_of_the_file() -> None:
    assert [each.name for each in plan(THREE, "b", "a1").deployments] == ["a1", "b"]


def test_systems_that_are_not_selected_are_not_resolved() -> None:
    assert plan(THREE, "a1").systems == ("systems/a.morph",)


def test_subsystems_stand_inside_of_what_is_around_them() -> None:
    b = plan(THREE, "b").deployments[0]
    (inner,) = b.subsystems
    assert (inner.name, inner.location, inner.type) == ("inner", "/in", "tar")
    assert [each.name for each in b.walk()] == ["b", "inner", "d.e"]
    assert inner.subsystems[0].prefix == (
        "[systems/b.morph][b][systems/c.morph][inner][systems/d.morph][d.e]"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "Variable referenced a non-existent deployment name: nowhere"),
        (["b.morph"], "b.morph sets no variable"),
        (["x.A=1"], "Variable referenced a non-existent deployment name: x.A=1"),
        (["A=1"], "Variable referenced a non-existent deployment name: A=1"),
        (
            ["inner"],
            "Cannot directly deploy subsystems. Create a top level deployment for the subsystem "
            "inner instead.",
        ),
        (["b", "b"], "Deployment b is named twice"),
        (["b.A=1", "a1"], "The deployment a1 is named behind a variable"),
        (["b.A"], "b.A sets no variable"),
        (["b.=1"], "b.=1 sets no variable"),
        (["b."], "b. sets no variable"),
        (["b.A=1", "b.A=2"], "b.A is set twice"),
        ([""], "Variable referenced a non-existent deployment name: "),
    ],
)
def test_words_that_mean_nothing(arguments: list[str], message: str) -> None:
    assert messages(THREE, *arguments) == [message]


def test_everything_wrong_is_told_at_once() -> None:
    cluster = load_cluster(
        entry("a", {"one": {"type": "tar"}, "two": {"location": "x"}, "three": None})
    )
    assert messages(cluster, "x.y=z", "word") == [
        "Variable referenced a non-existent deployment name: x.y=z",
        "Variable referenced a non-existent deployment name: word",
        '"location" is undefined for system "one"',
        '"type" is undefined for system "two"',
        '"type" is undefined for system "three"',
        '"location" is undefined for system "three"',
    ]


# Variables


def test_the_longest_name_gets_a_variable() -> None:
    cluster = load_cluster(entry("a", {"foo": tar(), "foobar": tar(), "foo.bar": tar()}))
    found = parse_arguments(cluster, ["foobar.X=1", "foo.bar.Y=2=3", "foo.Z=", "foo.barn=4"])
    assert not found.errors
    assert found.variables == {
        "foobar": {"X": "1"},
        "foo.bar": {"Y": "2=3"},
        "foo": {"Z": "", "barn": "4"},
    }


_NAMES = st.text(st.sampled_from("ab.-="), min_size=1, max_size=5)


@given(st.sets(_NAMES, min_size=1, max_size=6), st.data())
def test_a_variable_reaches_one_deployment(names: set[str], data: st.DataObject) -> None:
    cluster = load_cluster(entry("a", {name: tar() for name in sorted(names)}))
    name = data.draw(st.sampled_from(sorted(names)))
    value = data.draw(st.text(st.sampled_from("xy=. "), max_size=4))
    # A key without dots can't make a longer name of it, unless that ends where the key does.
    argument = f"{name}.KEY={value}"
    found = parse_arguments(cluster, [argument])
    longer = [each for each in names if argument.startswith(f"{each}.")]
    assert not found.errors
    assert (
        found.variables
        == {max(longer, key=len): dict([argument[len(max(longer, key=len)) + 1 :].split("=", 1)])}
        or argument in names
    )


def test_what_overrides_what() -> None:
    cluster = load_cluster(
        entry("a", {"x": tar(B="entry", C="entry", D="entry")}, A="default", B="default")
    )
    found = only(
        cluster, "x.D=line", "x.E=line", environment={"C": "env", "D": "env", "E": "env", "F": "f"}
    )
    taken = {name: found.environment[name] for name in "ABCDEF"}
    wanted = {"A": "default", "B": "entry", "C": "env", "D": "line", "E": "line"}
    assert taken == {**wanted, "F": "f"}
    own = {"UPGRADE": "no", "type": "tar", "location": "x.tar"}
    assert found.configuration == {**wanted, **own}


def test_the_environment_is_told_of_where_it_overrides_a_cluster() -> None:
    cluster = load_cluster(entry("a", {"x": tar(B="1", C="2", D="3")}))
    environment = {"B": "other", "C": "2", "D": "other"}
    assert plan(cluster, "x.D=4", environment=environment).warnings == (
        "B from the environment overrides B of deployment x in clusters/c.morph",
    )


def test_variables_of_what_is_not_deployed_are_told_of() -> None:
    found = plan(THREE, "a1", "inner.X=1", "a1.Y=2")
    assert found.warnings == ("Variables of inner are ignored: it is not deployed now",)


def test_subsystems_get_their_own_variables() -> None:
    b = only(THREE, "b", "inner.X=1", "d.e.X=2", "b.X=3")
    assert [each.environment["X"] for each in b.walk()] == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "True"),
        (False, "False"),
        (0, "0"),
        (1.5, "1.5"),
        ("a\nb ", "a\nb "),
        (["a", "b"], "['a', 'b']"),
        ([{"ip": "1.2.3.4", "weight": 100}], "[{'ip': '1.2.3.4', 'weight': 100}]"),
    ],
)
def test_values_as_text(value: object, text: str) -> None:
    assert sanitise_value(value) == text


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(_PLAIN) | st.dictionaries(st.text(), _PLAIN))
def test_lists_and_mappings_are_python_literals(value: object) -> None:
    assert ast.literal_eval(sanitise_value(value)) == value


def test_yaml_booleans_and_dates() -> None:
    cluster = load_cluster(entry("a", {"x": tar(A=yaml.safe_load("on"))}))
    assert only(cluster).environment["A"] == "True"
    cluster = load_cluster(entry("a", {"x": tar(A=yaml.safe_load("2001-02-03"))}))
    assert only(cluster).environment["A"] == "2001-02-03"


def test_names_that_no_environment_takes() -> None:
    cluster = load_cluster(entry("a", {"x": {**tar(), "A=B": 1, "C": "\0"}}))
    assert messages(cluster) == [
        "'A=B' can't be the name of a variable (deployment \"x\")",
        'the value of C has a NUL byte in it (deployment "x")',
    ]


def test_values_that_are_too_long() -> None:
    """For one variable the kernel takes 32 pages, with name, `=` and the byte at the end."""
    longest = 32 * mmap.PAGESIZE - len("LIST=") - 1
    cluster = load_cluster(entry("a", {"x": tar(LIST="x" * longest)}))
    assert len(only(cluster).environment["LIST"]) == longest
    (message,) = messages(load_cluster(entry("a", {"x": tar(LIST="x" * (longest + 1))})))
    assert message.startswith("the value of LIST is too long for an environment: ")
    assert 'deployment "x"' in message


def test_the_path_of_modules() -> None:
    cluster = load_cluster(entry("a", {"x": {"type": "extensions/kvm", "location": "l"}}))
    assert only(cluster).environment["PYTHONPATH"] == "/defs/extensions"
    before = {"PYTHONPATH": "/mine"}
    assert only(cluster, environment=before).environment["PYTHONPATH"] == "/mine:/defs/extensions"
    assert only(THREE, "a1").environment["PYTHONPATH"] == "/defs"
    assert "PYTHONPATH" not in only(cluster, environment=before).configuration


# Upgrades, types, locations

BOTH = load_cluster(
    entry("a", {"x": tar("l", upgrade_type="ssh-rsync", upgrade_location="root@h")})
)


def target(deployment: Deployment) -> tuple[str, str, bool, str]:
    return (
        deployment.type,
        deployment.location,
        deployment.upgrade,
        deployment.environment["UPGRADE"],
    )


def test_initial_and_upgrade() -> None:
    assert target(only(BOTH)) == ("tar", "l", False, "no")
    assert target(only(BOTH, upgrade=True)) == ("ssh-rsync", "root@h", True, "yes")


@pytest.mark.parametrize(
    ("value", "upgrade"),
    [("1", True), ("True", True), ("YES", True), ("no", False), ("on", False), ("", False)],
)
def test_the_variable_upgrade_decides(value: str, upgrade: bool) -> None:
    for setting in (True, False):
        found = only(BOTH, f"x.UPGRADE={value}", upgrade=setting)
        assert found.upgrade is upgrade
        assert found.environment["UPGRADE"] == ("yes" if upgrade else "no")


def test_subsystems_are_no_upgrades_unless_told() -> None:
    b = only(THREE, "b", "d.e.UPGRADE=yes", upgrade=True)
    assert [each.upgrade for each in b.walk()] == [True, False, True]


def test_an_upgrade_without_a_place_of_its_own() -> None:
    found = plan(THREE, "a1", upgrade=True)
    assert target(found.deployments[0])[:2] == ("tar", "a1.tar")
    assert found.warnings == (
        '"upgrade-type" and "upgrade-location" were not specified for system a1, using "type" and '
        '"location"',
    )


@pytest.mark.parametrize(("given", "missing"), [("type", "location"), ("location", "type")])
def test_half_an_upgrade(given: str, missing: str) -> None:
    cluster = load_cluster(entry("a", {"x": {**tar(), f"upgrade-{given}": "u"}}))
    assert messages(cluster, upgrade=True) == [
        f'"upgrade-{given}" was set for system x, but not "upgrade-{missing}"'
    ]
    assert only(cluster).type == "tar"


def test_a_deployment_for_upgrades_alone() -> None:
    cluster = load_cluster(entry("a", {"x": {"upgrade-type": "t", "upgrade-location": "l"}}))
    assert only(cluster, upgrade=True).type == "t"
    assert messages(cluster)[0] == '"type" is undefined for system "x"'


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//b", ".git/hooks/x", "", "a/.", "a\0"])
def test_types_that_lead_out(name: str) -> None:
    assert not is_extension_name(name)
    if name and "\0" not in name:
        cluster = load_cluster(entry("a", {"x": {"type": name, "location": "l"}}))
        assert messages(cluster) == [
            f'"{name}", the type of deployment "x", can\'t name an extension'
        ]


def test_a_subsystem_stays_inside() -> None:
    cluster = load_cluster(entry("a", {"x": tar()}, entry("b", {"y": tar("/a/../../b")})))
    assert messages(cluster) == [
        'the location "/a/../../b" of subsystem "y" leads out of the system that it is deployed '
        "into"
    ]
    assert only(cluster, "y.location=a..b").subsystems[0].location == "a..b"


def test_a_cluster_without_deployments() -> None:
    assert messages(load_cluster(entry("a", {}))) == ["clusters/c.morph has no deployments"]


# Partial deployments


def partial(value: object, kind: str = "tar", *arguments: str) -> Deployment:
    parameters = {"type": kind, "location": "l", "partial-deploy-components": value}
    return only(load_cluster(entry("a", {"x": parameters})), *arguments, partial=True)


def test_components() -> None:
    assert partial(["strata/a.morph", "b"]).components == ("strata/a.morph", "b")
    assert partial("a, b").components == ("a", "b")
    assert partial(None, "extensions/tar", "x.partial-deploy-components=c").components == ("c",)
    assert not only(THREE, "b").partial


def test_components_in_the_defaults() -> None:
    cluster = load_cluster(entry("a", {"x": tar()}, **{"partial-deploy-components": ["s"]}))
    assert only(cluster, partial=True).components == ("s",)


def test_no_components() -> None:
    assert messages(THREE, "a1", partial=True)[0].startswith(
        "Deployment failed as no components were specified for deployment and --partial was set."
    )
    with pytest.raises(MorphError, match="not a list of paths"):
        partial([1])


def test_types_of_partial_deployments() -> None:
    with pytest.raises(MorphError) as caught:
        partial(["a"], "rawdisk")
    assert caught.value.message == (
        "Not deploying systems/a.morph, --partial was set and partial deployment only supports "
        "tar, sysroot deployments."
    )


# Showing


def test_secrets_are_not_shown() -> None:
    cluster = load_cluster(
        entry(
            "a",
            {"x": {"type": "t", "location": "https://u:hidden-a@h/", "MY_PASSWORD": "hidden-b"}},
            entry("b", {"y": tar(API_TOKEN="hidden-c", SSHKEYS="shown")}),
        )
    )
    found = plan(cluster, "y.GIT_SECRET=hidden-d", environment={"PATH": "not-shown"})
    for text in (plan_as_text(found), str(plan_as_data(found))):
        assert "shown" in text
        assert "hidden-" not in text
        assert "not-shown" not in text


def test_a_plan_does_not_drive_the_terminal() -> None:
    found = plan(load_cluster(entry("a", {"x\u202e": tar("\x1b]0;y\a", NOTE="\x9bz")})))
    assert plan_as_text(found).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("OPENSTACK_PASSWORD", True),
        ("ROOTPASSWORDHASH", True),
        ("password", True),
        ("GITHUB_TOKEN", True),
        ("token", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("apiKey", True),
        ("WORKER_SSH_KEY", True),
        ("CLITOKEN", True),
        ("HOSTKEY", True),
        ("GITHUB_PAT", True),
        ("WIFI_PSK", True),
        ("BEARER", True),
        ("MYSQL_PWD", True),
        ("SSHPASS", True),
        ("ROOT_PW", True),
        ("SESSION_COOKIE", True),
        ("CI_JOB_JWT", True),
        ("AWS_CREDS", True),
        ("HTTP_AUTHORIZATION", True),
        ("TS_AUTHKEY", True),
        ("ENCRYPTIONKEY", True),
        ("PWD", False),
        ("OLDPWD", False),
        ("PATH", False),
        ("SSHKEYS", False),
        ("LORRY_SSH_PUBLIC_KEY", False),
        ("KEYBOARD", False),
        ("MONKEY", False),
        ("TROVE_HOSTNAME", False),
        ("COMPASS", False),
        ("UPGRADE", False),
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_deployments_that_would_write_over_each_other() -> None:
    cluster = load_cluster(
        entry("a", {"one": tar("x/y.tar"), "two": tar("x//z/../y.tar"), "three": tar("y.tar")}),
        entry("b", {"four": {"type": "extensions/rawdisk", "location": "/defs/x/y.tar"}}),
    )
    with pytest.raises(MorphError) as caught:
        plan(cluster)
    for name in ("two", "four"):
        assert f"deployments one and {name} have the same location" in str(caught.value)
    assert "three" not in str(caught.value)
    plan(cluster, "two", "three")
    plan(cluster, "one.location=1", "two.location=2")
    plan(
        load_cluster(
            entry("a", {name: {"type": "sysroot", "location": "x"} for name in ("a", "b")}),
            entry(
                "a", {name: {"type": "openstack", "location": "http://h"} for name in ("c", "d")}
            ),
            entry("a", {"e": tar("/x")}, entry("b", {"e1": tar("x")})),
            entry("a", {"f": tar("/y")}, entry("b", {"f1": tar("x")})),
        )
    )
    nested = load_cluster(
        entry("a", {"e": tar("/x")}, entry("b", {"e1": tar("x"), "e2": tar("/x")}))
    )
    with pytest.raises(MorphError, match="deployments e1 and e2 have the same location"):
        plan(nested)
