from __future__ import annotations

import pytest

from morphlib.definitions import load_all, load_morphology, load_systems, sanitise
from morphlib.definitions.models import BuildMode, Chunk, Cluster, SplitRule, Stratum, System
from morphlib.definitions.reader import SIZE_LIMIT
from morphlib.errors import Reason
from tests.definitions.helpers import failure, failures, ignore, repository


def chunk(text: str) -> Chunk:
    loaded = load_morphology(repository({"c.morph": text}), "c.morph")
    assert isinstance(loaded, Chunk)
    return loaded


def stratum(text: str, **files: str) -> Stratum:
    loaded = load_morphology(repository({"s.morph": text, **files}), "s.morph")
    assert isinstance(loaded, Stratum)
    return loaded


def chunk_error(lines: str) -> str:
    text = f"name: c\nkind: chunk\n{lines}"
    return str(failure(lambda: load_morphology(repository({"c.morph": text}), "c.morph")))


def spec_error(lines: str) -> str:
    head = "name: s\nkind: stratum\nbuild-depends: []\nchunks:\n- name: c\n"
    text = head + "".join(f"  {line}\n" for line in lines.splitlines())
    return str(failure(lambda: load_morphology(repository({"s.morph": text}), "s.morph")))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("foo", "foo.morph"),
        ("foo.morph", "foo.morph"),
        ("systems/foo", "systems/foo"),
        ("systems/foo.morph", "systems/foo.morph"),
    ],
)
def test_names_become_paths(name: str, path: str) -> None:
    assert sanitise(name) == path


class TestVersion:
    @pytest.mark.parametrize("version", [7, 8])
    def test_supported(self, version: int) -> None:
        files = {"VERSION": f"version: {version}\n"}
        assert load_all(repository(files), warn=ignore).version == version

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("version: 6\n", "Definitions format version 6 is not supported"),
            ("version: 9\n", "Definitions format version 9 is not supported"),
            ('version: "7"\n', 'invalid VERSION file: \'version: "7"'),
            ("version: true\n", "invalid VERSION file: 'version: true"),
            ("7\n", "invalid VERSION file: '7"),
            ("other: 7\n", "invalid VERSION file: 'other: 7"),
            ("", "invalid VERSION file: ''"),
            ("{", "VERSION:"),
            (None, "Failed to find VERSION file: is this a definitions checkout?"),
        ],
    )
    def test_refused(self, text: str | None, phrase: str) -> None:
        files = {"VERSION": text}
        assert phrase in str(failure(lambda: load_all(repository(files), warn=ignore)))


class TestDefaults:
    def test_missing_gives_a_warning_and_catch_all_rules(self) -> None:
        warnings: list[str] = []
        files = {"DEFAULTS": None, "strata/tools.morph": None, "strata/tools/zlib.morph": None}
        defaults = load_all(repository(files), warn=warnings.append).defaults
        assert warnings == ["DEFAULTS: No DEFAULTS file found."]
        assert defaults.chunk_rules == (SplitRule("", (".*",)),)
        assert defaults.stratum_rules == (SplitRule("", (".*",)),)
        assert list(defaults.build_systems) == ["manual"]

    def test_empty_lists_of_rules_are_as_good_as_none(self) -> None:
        files = {
            "DEFAULTS": "split-rules: {chunk: []}",
            "strata/tools.morph": None,
            "strata/tools/zlib.morph": None,
        }
        defaults = load_all(repository(files), warn=ignore).defaults
        assert defaults.chunk_rules == defaults.stratum_rules == (SplitRule("", (".*",)),)

    @pytest.mark.parametrize(
        "text",
        [
            "[]",
            "other: {}",
            "build-systems: {x: {pre-build-commands: [a]}}",
            "build-systems: {x: {test-commands: [a]}}",
            "build-systems: {x: {build-commands: make}}",
            "split-rules: {system: []}",
            "split-rules: {chunk: [{artifact: -x}]}",
            "split-rules: {chunk: [{artifact: -x, include: [a], other: b}]}",
            "split-rules: {chunk: [{artifact: -x, include: ['(']}]}",
            "split-rules: {chunk: [{artifact: /../x, include: [a]}]}",
            "split-rules: {stratum: [{artifact: ' x', include: [a]}]}",
            f"split-rules: {{chunk: [{{artifact: {'x' * 26}, include: [a]}}]}}",
        ],
    )
    def test_refused(self, text: str) -> None:
        files = {"DEFAULTS": text, "strata/tools.morph": None, "strata/tools/zlib.morph": None}
        error = failure(
            lambda: load_morphology(
                repository(files | {"c.morph": "name: c\nkind: chunk"}), "c.morph"
            )
        )
        assert "Invalid DEFAULTS file: " in str(error)
        assert str(error).startswith("DEFAULTS:1:")

    def test_a_mistake_in_it_is_not_reported_again_for_all_that_uses_it(self) -> None:
        files = {"DEFAULTS": "build-systems: {autotools: {build-commands: make}}"}
        error = failure(lambda: load_all(repository(files), warn=ignore))
        assert "autotools.build-commands expected type list, got string" in error.message


class TestAnyKind:
    @pytest.mark.parametrize("path", ["VERSION", "DEFAULTS", "strata/tools/zlib.morph"])
    def test_of_endless_files_only_their_size_is_looked_at(self, path: str) -> None:
        files = {path: "#" * (SIZE_LIMIT + 1)}
        error = failure(lambda: load_all(repository(files), warn=ignore))
        assert f"{path} is larger than {SIZE_LIMIT} bytes" in str(error)

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("- a", "x.morph:1:1: Not a dictionary: morphology x.morph"),
            ("", "Not a dictionary: morphology x.morph"),
            ("name: x", "Missing field kind from morphology x.morph"),
            ("kind: chunk", "Missing field name from morphology x.morph"),
            ("name: x\nkind: rock", "x.morph:2:1: Unknown kind rock in morphology x.morph"),
            ("name: x\nkind: [a]", "Unknown kind"),
            (
                "name: x\nkind: chunk\nflavour: up",
                "x.morph:3:1: Field flavour not allowed in morphology x.morph",
            ),
            ("name: x\nkind: chunk\na: b: c", "x.morph:3:5: Syntax error in morphology x.morph"),
            (
                "name: 5\nkind: chunk",
                "x.morph:1:1: Field name expected type string, got integer in morphology x.morph",
            ),
            ("name: x\nkind: chunk\n5: a", "Field 5 not allowed"),
            ("name: x\nkind: system\narch: x86_64", "Missing field strata"),
            ("name: x\nkind: system\nstrata: [{morph: a}]", "Missing field arch"),
            ("name: x\nkind: cluster", "Missing field systems"),
        ],
    )
    def test_refused(self, text: str, phrase: str) -> None:
        error = failure(lambda: load_morphology(repository({"x.morph": text}), "x.morph"))
        assert phrase in str(error)
        assert error.reason is Reason.DEFINITION

    def test_missing(self) -> None:
        error = failure(lambda: load_morphology(repository(), "x.morph"))
        assert "Couldn't find definition file: x.morph" in str(error)

    def test_duplicate_keys_give_a_warning_and_the_last_one_counts(self) -> None:
        warnings: list[str] = []
        files = {"c.morph": "name: a\nkind: chunk\nname: b\n"}
        definitions = load_all(repository(files), warn=warnings.append)
        assert definitions.chunks["c.morph"].name == "b"
        (warning,) = warnings
        assert warning.startswith("c.morph:3:1: Key 'name' stands twice")

    @pytest.mark.parametrize(
        "name", ["a/b", "../a", ".a", "-a", "a b", '"a\\nb"', '"a\\0b"', "'a\\b'", "x" * 151, '""']
    )
    def test_unsafe_names_are_refused(self, name: str) -> None:
        files = {"x.morph": f"name: {name}\nkind: chunk"}
        error = failure(lambda: load_morphology(repository(files), "x.morph"))
        assert "unsafe name" in str(error)

    @pytest.mark.parametrize("name", ["gcc@4.9", "libstdc++", "x_1", "0ad", "NetworkManager", "é"])
    def test_ordinary_names_are_taken(self, name: str) -> None:
        assert chunk(f"name: {name}\nkind: chunk").name == name


class TestChunk:
    def test_lists_come_from_the_file_or_else_from_the_build_system(self) -> None:
        loaded = chunk(
            """\
            name: c
            kind: chunk
            build-system: autotools
            pre-build-commands: [before]
            build-commands:
            install-commands: []
            """
        )
        assert loaded.commands["configure"] == ("./configure",)
        assert loaded.commands["pre-build"] == ("before",)
        assert loaded.commands["build"] == ()
        assert loaded.commands["install"] == ()
        assert loaded.commands["strip"] == ("strip-all",)
        assert len(loaded.commands) == 15

    def test_name_and_kind_are_enough(self) -> None:
        loaded = chunk("name: c\nkind: chunk")
        assert loaded.build_system == "manual"
        assert not any(loaded.commands.values())
        assert (loaded.max_jobs, loaded.devices, loaded.products) == (None, (), ())

    def test_commands_keep_bytes_and_turn_booleans_into_words(self) -> None:
        loaded = chunk(
            "name: c\nkind: chunk\nbuild-commands: [true, no, !!binary 'ZWNobyD/', 'true']"
        )
        assert loaded.commands["build"] == ("true", "false", b"echo \xff", "true")

    @pytest.mark.parametrize("group", ["configure", "build", "test", "install", "strip"])
    @pytest.mark.parametrize("prefix", ["pre-", "", "post-"])
    def test_every_list_is_checked(self, group: str, prefix: str) -> None:
        field = f"{prefix}{group}-commands"
        assert f"Field {field} expected type list, got string" in chunk_error(f"{field}: make")
        assert f"Field {field}[1] expected type string" in chunk_error(f"{field}: [a, 5]")

    def test_a_colon_in_a_command_gets_a_hint(self) -> None:
        assert "must stand in quotes" in chunk_error("build-commands:\n- echo a: b")

    @pytest.mark.parametrize(("text", "jobs"), [("4", 4), ('"4"', 4), ("null", None), ("4.0", 4)])
    def test_max_jobs(self, text: str, jobs: int | None) -> None:
        assert chunk(f"name: c\nkind: chunk\nmax-jobs: {text}").max_jobs == jobs

    @pytest.mark.parametrize("text", ["many", "[1]", "true", ".inf", ".nan", "0", "-1"])
    def test_bad_max_jobs(self, text: str) -> None:
        assert "Field max-jobs" in chunk_error(f"max-jobs: {text}")

    def test_unknown_build_system(self) -> None:
        message = chunk_error("build-system: scons")
        assert "c.morph:3:1: Undefined build system scons in morphology c.morph" in message
        assert "autotools" in message

    @pytest.mark.parametrize("text", ["strange", "[1]", "null", "{a: b}", "5"])
    def test_fields_without_effect_may_hold_anything(self, text: str) -> None:
        loaded = chunk(
            f"name: c\nkind: chunk\nbuild-mode: {text}\nprefix: {text}\nsubmodules: {text}"
        )
        assert loaded.name == "c"

    def test_products(self) -> None:
        loaded = chunk(
            "name: c\nkind: chunk\nproducts: [{artifact: c-x, include: [a, b]}, "
            "{artifact: c-x, include: []}]"
        )
        assert loaded.products == (SplitRule("c-x", ("a", "b")), SplitRule("c-x", ()))

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("{a: b}", "Field products expected type list, got mapping"),
            ("[a]", "Field products[0] expected type mapping"),
            ("[{artifact: a}]", "Missing field products[0].include"),
            ("[{include: []}]", "Missing field products[0].artifact"),
            ("[{artifact: a, include: [], x: y}]", "Field products[0].x not allowed"),
            ("[{artifact: a, include: usr}]", "Field products[0].include expected type list"),
            ("[{artifact: a, include: {b: c}}]", "Field products[0].include expected type list"),
            ("[{artifact: a, include: ['(']}]", "bad regular expression '('"),
            ("[{artifact: a, include: ['x{1,99999999999999999999}']}]", "bad regular expression"),
            ("[{artifact: a/b, include: []}]", "unsafe name 'a/b'"),
        ],
    )
    def test_bad_products(self, text: str, phrase: str) -> None:
        assert phrase in chunk_error(f"products: {text}")

    def test_devices(self) -> None:
        (device,) = chunk(
            "name: c\nkind: chunk\ndevices:\n- {type: c, filename: /dev/null, permissions: '0666',"
            " major: 1, minor: 3, uid: 0, gid: 0}"
        ).devices
        assert (device.type, device.filename, device.permissions) == ("c", "/dev/null", "0666")
        assert (device.major, device.minor, device.uid, device.gid) == (1, 3, 0, 0)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("type", "p"),
            ("filename", "../../etc/x"),
            ("filename", "/"),
            ("filename", "dev/"),
            ("permissions", "0666"),
            ("permissions", "'888'"),
            ("major", "-1"),
            ("minor", "true"),
            ("uid", "root"),
        ],
    )
    def test_bad_devices(self, field: str, value: str) -> None:
        device = {
            "type": "c",
            "filename": "/dev/x",
            "permissions": "'0600'",
            "major": "1",
            "minor": "1",
            "uid": "0",
            "gid": "0",
        }
        text = ", ".join(f"{key}: {item}" for key, item in {**device, field: value}.items())
        assert f"Field devices[0].{field}" in chunk_error(f"devices: [{{{text}}}]")

    def test_system_integration_is_sorted(self) -> None:
        loaded = chunk(
            "name: c\nkind: chunk\nsystem-integration:\n  c-b: {01-z: [z], 00-a: [a, b]}\n  c-a: {}"
        )
        assert [item.artifact for item in loaded.system_integration] == ["c-a", "c-b"]
        assert loaded.system_integration[1].scripts == (("00-a", ("a", "b")), ("01-z", ("z",)))

    @pytest.mark.parametrize(
        "text", ["[]", "{c: []}", "{c: {00: [a]}}", "{c: {../x: [a]}}", "{c: {x: y}}"]
    )
    def test_bad_system_integration(self, text: str) -> None:
        assert "Field system-integration" in chunk_error(f"system-integration: {text}")

    def test_all_mistakes_are_told_at_once_each_with_its_place(self) -> None:
        text = "name: c\nkind: chunk\nbuild-commands: make\nmax-jobs: many\nproducts: {}\n"
        errors = failures(lambda: load_morphology(repository({"c.morph": text}), "c.morph"))
        places = [str(error.location) for error in errors]
        assert places == ["c.morph:1:1", "c.morph:3:1", "c.morph:4:1", "c.morph:5:1"]
        assert "Multiple errors when validating chunk c" in errors[0].message


class TestStratum:
    HEAD = "name: s\nkind: stratum\nbuild-depends: []\nchunks:\n"

    def test_a_chunk_spec_with_everything(self) -> None:
        loaded = stratum(
            self.HEAD
            + """\
- name: c
  repo: upstream:c
  ref: abc
  unpetrify-ref: 1.5
  build-system: autotools
  build-mode: bootstrap
  prefix: /tools
  build-depends: [d, e]
  artifacts: {c-libs: s-runtime, c-bins: s-tools}
  submodules: {deep/er: {url: upstream:x}}
"""
        )
        (spec,) = loaded.chunks
        assert spec.unpetrify_ref == "1.5"
        assert (spec.build_mode, spec.prefix) == (BuildMode.BOOTSTRAP, "/tools")
        assert spec.build_depends == ("d", "e")
        assert spec.artifacts == (("c-bins", "s-tools"), ("c-libs", "s-runtime"))
        assert spec.submodules == (("deep/er", "upstream:x"),)
        assert spec.location.keys == ("chunks", 0)

    def test_a_chunk_spec_with_the_least(self) -> None:
        (spec,) = stratum(self.HEAD + "- {name: c, repo: r, ref: abc, build-system: manual}").chunks
        assert (spec.build_mode, spec.prefix) == (BuildMode.STAGING, "/usr")
        assert (spec.build_depends, spec.artifacts, spec.submodules) == ((), (), ())

    def test_version_7_ignores_submodules(self) -> None:
        text = self.HEAD + (
            "- {name: c, repo: r, ref: abc, build-system: manual, submodules: {a: {url: b}}}"
        )
        (spec,) = stratum(text, VERSION="version: 7").chunks
        assert spec.submodules == ()

    @pytest.mark.parametrize(
        ("lines", "phrase"),
        [
            ("ref: a\nbuild-system: manual", "Missing field c.repo"),
            ("repo: a\nbuild-system: manual", "Missing field c.ref"),
            ("repo: ' '\nref: a\nbuild-system: manual", "c.repo must be a non-empty string"),
            ("repo: a\nref: 1234567\nbuild-system: manual", "c.ref must be a non-empty string"),
            ("repo: a\nref: null\nbuild-system: manual", "c.ref must be a non-empty string"),
            ("repo: a\nref: a", "c has no build-system defined"),
            ("repo: a\nref: a\nmorph:", "c has no build-system defined"),
            (
                "repo: a\nref: a\nmorph: c.morph\nbuild-system: manual",
                "Conflicting fields 'morph' and 'build-system'",
            ),
            ("repo: a\nref: a\nbuild-system: scons", "Unknown build system for c.morph: scons"),
            (
                "repo: a\nref: a\nbuild-system: manual\nbuild-depends:",
                "Field c.build-depends expected type list, got null",
            ),
            (
                "repo: a\nref: a\nbuild-system: manual\nbuild-depends: d",
                "Field c.build-depends expected type list, got string",
            ),
            (
                "repo: a\nref: a\nbuild-system: manual\nsubmodules: [a]",
                "Not a dictionary: 'submodules' in chunk c",
            ),
            (
                "repo: a\nref: a\nbuild-system: manual\nsubmodules: {m: {}}",
                "Missing field c.submodules.m.url",
            ),
            (
                "repo: a\nref: a\nbuild-system: manual\nsubmodules: {m: {url: ''}}",
                "c.submodules.m.url must be a non-empty string",
            ),
            ("repo: a\nref: a\nmorph: ../c.morph", "not a path inside the definitions repository"),
            ("repo: a\nref: a\nmorph: /etc/passwd", "not a path inside the definitions repository"),
            ("repo: a\nref: a\nmorph: .git/config", "not a path inside the definitions repository"),
        ],
    )
    def test_bad_chunk_specs(self, lines: str, phrase: str) -> None:
        message = spec_error(lines)
        assert phrase in message
        assert message.startswith(
            ("s.morph:5:", "s.morph:6:", "s.morph:7:", "s.morph:8:", "s.morph:9:")
        )

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("build-depends: []", "Stratum s has no chunks in morphology s.morph"),
            ("build-depends: []\nchunks: []", "Stratum s has no chunks in morphology s.morph"),
            ("build-depends:\nchunks: CHUNKS", "Field build-depends expected type list, got null"),
            ("build-depends: [a]\nchunks: CHUNKS", "Field build-depends[0] expected type mapping"),
            ("build-depends: [{}]\nchunks: CHUNKS", "Missing field build-depends[0].morph"),
            ("build-depends: [{morph: s}]\nchunks: CHUNKS", "build-depends on itself"),
            ("build-depends: [{morph: ./s.morph}]\nchunks: CHUNKS", "build-depends on itself"),
            ("chunks: CHUNKS", "Stratum s has no build dependencies in morphology s.morph"),
            (
                "build-depends: []\nchunks: [CHUNK, CHUNK]",
                "Duplicate chunk c in stratum s",
            ),
            (
                "build-depends: []\nproducts: {}\nchunks: CHUNKS",
                "Field products expected type list",
            ),
            ("build-depends: []\nchunks: [{repo: r}]", "Missing field chunks[0].name"),
            ("build-depends: []\nchunks: [a]", "Not a dictionary: chunk spec chunks[0]"),
        ],
    )
    def test_bad_strata(self, text: str, phrase: str) -> None:
        spec = "{name: c, repo: r, ref: abc, build-system: manual}"
        text = text.replace("CHUNKS", f"[{spec}]").replace("CHUNK", spec)
        files = {"s.morph": f"name: s\nkind: stratum\n{text}\n"}
        errors = failures(lambda: load_morphology(repository(files), "s.morph"))
        assert any(phrase in str(error) for error in errors)

    @pytest.mark.parametrize("mode", ["bootstrap", "test"])
    def test_bootstrap_and_test_chunks_need_no_build_depends(self, mode: str) -> None:
        loaded = stratum(
            "name: s\nkind: stratum\nchunks:\n"
            f"- {{name: c, repo: r, ref: abc, build-system: manual, build-mode: {mode}}}"
        )
        assert loaded.build_depends == ()

    def test_unknown_build_modes_and_fields_give_warnings(self) -> None:
        warnings: list[str] = []
        text = self.HEAD + (
            "- {name: c, repo: r, ref: abc, build-system: manual,\n"
            "   build-mode: odd,\n   build-depend: [x]}"
        )
        definitions = load_all(repository({"s.morph": text}), warn=warnings.append)
        assert definitions.strata["s.morph"].chunks[0].build_mode is BuildMode.STAGING
        assert sorted(warnings) == [
            "s.morph:6:4: Unknown build mode odd of chunk c in morphology s.morph: taken as "
            "staging. Build modes are staging, bootstrap, test.",
            "s.morph:7:4: Field c.build-depend is unknown and has no effect in morphology "
            "s.morph. Did you mean build-depends?",
        ]


class TestSystem:
    HEAD = "name: x\nkind: system\narch: x86_64\n"

    def load(self, text: str) -> System:
        loaded = load_morphology(repository({"x.morph": text}), "x.morph")
        assert isinstance(loaded, System)
        return loaded

    def test_artifacts_absent_null_and_given(self) -> None:
        loaded = self.load(
            self.HEAD
            + "strata: [{morph: a}, {morph: b, artifacts: null}, {morph: c, artifacts: [d]}]"
        )
        assert [spec.artifacts for spec in loaded.strata] == [None, None, ("d",)]
        assert [spec.morph for spec in loaded.strata] == ["a.morph", "b.morph", "c.morph"]
        assert [spec.name for spec in loaded.strata] == [None, None, None]

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("strata: []", "System x has no strata"),
            ("strata: {a: b}", "System x has the wrong type for its strata"),
            ("strata: 5", "wrong type for its strata"),
            ("strata:", "wrong type for its strata"),
            ("strata: [a]", "stratum specs that are not mappings"),
            ("strata: [{name: a}]", "Missing field strata[0].morph"),
            ("strata: [{morph: a}, {morph: a.morph}]", "Duplicate stratum a.morph in system x"),
            ("strata: [{morph: a, artifacts: b}]", "Field strata[0].artifacts expected type list"),
            ("strata: [{morph: ../a}]", "not a path inside the definitions repository"),
        ],
    )
    def test_refused(self, text: str, phrase: str) -> None:
        error = failure(lambda: self.load(self.HEAD + text))
        assert phrase in str(error)
        assert str(error).startswith("x.morph:4:")

    def test_unknown_architecture(self) -> None:
        text = "name: x\nkind: system\narch: z80\nstrata: [{morph: a}]"
        message = str(failure(lambda: self.load(text)))
        assert message == "x.morph:3:1: Unknown architecture z80 in morphology x.morph"


class TestCluster:
    HEAD = "name: x\nkind: cluster\nsystems:\n"

    def load(self, text: str) -> Cluster:
        loaded = load_morphology(repository({"x.morph": self.HEAD + text}), "x.morph")
        assert isinstance(loaded, Cluster)
        return loaded

    def test_nested_systems(self) -> None:
        loaded = self.load(
            """\
- morph: systems/base
  deploy-defaults: {A: 1}
  deploy: {one: {type: tar, location: x.tar, NOTHING: null}, two: null}
  subsystems:
  - {morph: inner, deploy: {three: {type: tar}}}
"""
        )
        (system,) = loaded.systems
        assert system.morph == "systems/base"
        assert system.deploy["one"]["NOTHING"] is None
        assert system.deploy["two"] == {}
        assert system.deploy_defaults == {"A": 1}
        assert [inner.morph for inner in system.subsystems] == ["inner.morph"]

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("- deploy: {a: {}}", "Missing field systems[0].morph"),
            ("- morph:\n  deploy: {a: {}}", "Field systems[0].morph expected type string"),
            ("- morph: a", "Missing field systems[0].deploy"),
            ("- {morph: a, deploy: [b]}", "Field systems[0].deploy expected type mapping"),
            ("- {morph: a, deploy: {b: c}}", "Field systems[0].deploy.b expected type mapping"),
            (
                "- {morph: a, deploy: {d: {}}, subsystems: [{morph: b, deploy: {d: {}}}]}",
                "duplicate deployment names in morphology x.morph:\n    d",
            ),
            (
                '- {morph: a, deploy: {"a\\nb": {}}}',
                "'a\\nb' can't name a deployment: it has control characters",
            ),
            (
                '- {morph: a, deploy: {d: {}}, subsystems: [{morph: b, deploy: {"\\e[2J": {}}}]}',
                "'\\x1b[2J' can't name a deployment: it has control characters",
            ),
        ],
    )
    def test_refused(self, text: str, phrase: str) -> None:
        assert phrase in str(failure(lambda: self.load(text)))


class TestLoadSystems:
    def test_reads_only_what_the_systems_reach(self) -> None:
        files = {"other.morph": "kind: broken", "strata/other/x.morph": "{"}
        definitions = load_systems(repository(files), ["systems/base.morph"], warn=ignore)
        assert list(definitions.systems) == ["systems/base.morph"]
        assert list(definitions.strata) == ["strata/tools.morph"]
        assert list(definitions.chunks) == ["strata/tools/zlib.morph"]
        specs = definitions.strata["strata/tools.morph"].chunks
        assert [definitions.chunk_of(spec).commands["build"] for spec in specs] == [
            ("make all",),
            ("make",),
        ]

    @pytest.mark.parametrize(
        ("path", "phrase"),
        [
            ("systems/no.morph", "Couldn't find definition file to build: systems/no.morph"),
            ("strata/tools.morph", "In order to build this stratum directly"),
            ("strata/tools/zlib.morph", "In order to build this chunk directly"),
            ("cluster.morph", "Cannot build a morphology of type 'cluster'"),
        ],
    )
    def test_roots_that_are_no_systems(self, path: str, phrase: str) -> None:
        files = {"cluster.morph": "name: c\nkind: cluster\nsystems: []"}
        error = failure(lambda: load_systems(repository(files), [path], warn=ignore))
        assert phrase in str(error)

    def test_missing_files_are_told_where_they_are_referred_to(self) -> None:
        files = {"strata/tools/zlib.morph": None}
        error = failure(
            lambda: load_systems(repository(files), ["systems/base.morph"], warn=ignore)
        )
        assert (
            "strata/tools.morph:6:3: Couldn't find morphology: strata/tools/zlib.morph referenced "
            "in strata/tools.morph" in str(error)
        )

    def test_mistakes_in_several_files_are_told_at_once(self) -> None:
        files = {
            "systems/base.morph": "name: base\nkind: system\narch: x86_64\nstrata:\n"
            "- {morph: strata/tools.morph}\n- {morph: strata/none.morph}",
            "strata/tools/zlib.morph": "name: zlib\nkind: chunk\nbuild-commands: make",
        }
        errors = failures(
            lambda: load_systems(repository(files), ["systems/base.morph"], warn=ignore)
        )
        assert [str(error.location) for error in errors] == [
            "strata/tools/zlib.morph:3:1",
            "systems/base.morph:6:4",
        ]

    def test_a_stratum_of_another_name_is_refused(self) -> None:
        files = {
            "systems/base.morph": "name: base\nkind: system\narch: x86_64\nstrata:\n"
            "- {name: tool, morph: strata/tools.morph}"
        }
        error = failure(
            lambda: load_systems(repository(files), ["systems/base.morph"], warn=ignore)
        )
        assert "'tool' doesn't match the name 'tools' in strata/tools.morph" in str(error)
        assert str(error.location) == "systems/base.morph:5:4"

    def test_a_chunk_of_another_name_gives_a_warning(self) -> None:
        warnings: list[str] = []
        files = {"strata/tools/zlib.morph": "name: zlib-ng\nkind: chunk"}
        load_systems(repository(files), ["systems/base.morph"], warn=warnings.append)
        (warning,) = warnings
        assert warning.startswith("strata/tools.morph:5:3: Chunk zlib of stratum tools is called")

    def test_unknown_artifacts_give_a_warning(self) -> None:
        warnings: list[str] = []
        files = {
            "systems/base.morph": "name: base\nkind: system\narch: x86_64\nstrata:\n"
            "- morph: strata/tools.morph\n  artifacts: [tools-runtime, tools-odd]"
        }
        load_systems(repository(files), ["systems/base.morph"], warn=warnings.append)
        (warning,) = warnings
        assert "No rule of stratum tools produces the artifact 'tools-odd'" in warning

    def test_strata_in_a_circle_end(self) -> None:
        text = (
            "name: {0}\nkind: stratum\nbuild-depends: [{{morph: {1}}}]\n"
            "chunks: [{{name: c{0}, repo: r, ref: a, build-system: manual}}]"
        )
        files = {
            "a.morph": text.format("a", "b"),
            "b.morph": text.format("b", "a"),
            "x.morph": "name: x\nkind: system\narch: x86_64\nstrata: [{morph: a}]",
        }
        definitions = load_systems(repository(files), ["x.morph"], warn=ignore)
        assert sorted(definitions.strata) == ["a.morph", "b.morph"]
