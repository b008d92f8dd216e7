"""The conventions of the command line, on the real program."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from morphlib.settings import table
from tests.commandline import MORPH, run_morph


def config(tmp_path: Path, *arguments: str, text: str = "") -> dict[str, str]:
    """What --dump-config shows with a configuration file that says `text` in [config]."""
    file = tmp_path / "test.conf"
    file.write_text(f"[config]\n{text}\n")
    ran = run_morph("--config", str(file), *arguments, "--dump-config", home=tmp_path)
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "[config]"
    # Scripts take the third word onwards as the value.
    return {line.split()[0]: " ".join(line.split()[2:]) for line in lines[1:]}


def test_print_architecture_is_one_line_and_nothing_else(tmp_path: Path) -> None:
    ran = run_morph("print-architecture", home=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert re.fullmatch(r"\S+\n", ran.out)


def test_options_may_stand_anywhere(tmp_path: Path) -> None:
    assert config(tmp_path, "build", "--quiet", "x", "--max-jobs", "3")["max-jobs"] == "3"


def test_two_dashes_end_options(tmp_path: Path) -> None:
    ran = run_morph("--", "--quiet", home=tmp_path)
    assert (ran.status, ran.err.splitlines()[0]) == (1, "ERROR: unknown subcommand --quiet")


@pytest.mark.parametrize("option", ["--no-default-configs", "--no-default-config", "--no-def"])
def test_options_may_be_shortened(tmp_path: Path, option: str) -> None:
    (tmp_path / ".morph.conf").write_text("[config]\nlog = x\n")
    ran = run_morph(option, "--dump-config", home=tmp_path, configs=True)
    assert "\nlog = \n" in ran.out


def test_shortened_options_take_values(tmp_path: Path) -> None:
    assert config(tmp_path, "--max", "3")["max-jobs"] == "3"
    assert config(tmp_path, "--max=3")["max-jobs"] == "3"


def test_the_value_of_an_option_may_look_like_an_option(tmp_path: Path) -> None:
    assert config(tmp_path, "--trove-host", "--quiet")["trove-host"] == "--quiet"
    assert config(tmp_path, "--trove-host", "--quiet")["quiet"] == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "no such option: --nonsense"),
        (["--chachedir=x"], "did you mean --cachedir?"),
        (["--cache"], "ambiguous option: --cache could be --cache-server, --cachedir"),
        (["-x"], "no such option"),
        (["--max-jobs=many"], "--max-jobs must be a whole number, not 'many'"),
        (["--local-changes=some"], "--local-changes must be one of include, ignore"),
        (["--max-jobs"], "requires an argument"),
        (["--quiet=yes"], "does not take a value"),
    ],
)
def test_bad_options_show_usage_and_exit_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    ran = run_morph("print-architecture", *arguments, home=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("ERROR: ")
    assert message in ran.err
    assert "Usage: morph [options] COMMAND" in ran.err


def test_without_a_command(tmp_path: Path) -> None:
    ran = run_morph(home=tmp_path)
    assert ran.status == 1
    assert ran.err.startswith("ERROR: must give subcommand\n")


def test_unknown_commands_are_told_with_what_may_be_meant(tmp_path: Path) -> None:
    ran = run_morph("print-architectur", home=tmp_path)
    assert ran.status == 1
    assert ran.err.startswith("ERROR: unknown subcommand print-architectur\n")
    assert "Did you mean print-architecture?" in ran.err


def test_flags_have_negations(tmp_path: Path) -> None:
    assert config(tmp_path, "--no-partial", text="partial = true")["partial"] == "False"
    assert config(tmp_path, text="partial = true")["partial"] == "True"
    assert config(tmp_path, "--no-no-git-update", text="no-git-update = yes")["no-git-update"] == (
        "False"
    )
    assert config(tmp_path, "--no-no-distcc")["no-distcc"] == "False"
    assert config(tmp_path, "--quiet", "--no-quiet")["quiet"] == "False"
    assert config(tmp_path, "--no-quiet", "-q")["quiet"] == "True"


def test_letters_may_be_joined(tmp_path: Path) -> None:
    found = config(tmp_path, "-qvd")
    assert found["quiet"] == found["verbose"] == found["debug"] == "True"


def test_the_first_use_of_a_list_replaces_and_further_ones_append(tmp_path: Path) -> None:
    text = "worker = a, b"
    assert config(tmp_path, text=text)["worker"] == "a, b"
    assert config(tmp_path, "--worker=c", text=text)["worker"] == "c"
    assert config(tmp_path, "--worker=c,d", "--worker", "e", text=text)["worker"] == "c, d, e"


def test_an_empty_list_is_the_default(tmp_path: Path) -> None:
    found = config(tmp_path, "--repo-alias=", text="repo-alias = x=y#z")
    assert found["repo-alias"].startswith("freedesktop=git://anongit.freedesktop.org/#ssh://")


def test_the_command_line_overrides_files(tmp_path: Path) -> None:
    assert config(tmp_path, "--log=b", text="log = a")["log"] == "b"


def test_later_files_override_earlier_ones(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"[config]\nlog = {name}\n")
    ran = run_morph("--config=b", "--config", "a", "--dump-config", home=tmp_path)
    assert "\nlog = a\n" in ran.out


def test_bad_files_are_told_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("[config]\nlog-keep = x\nbogus = y\n")
    ran = run_morph("--config=a.conf", "print-architecture", home=tmp_path)
    assert (ran.status, ran.out) == (1, "")
    assert "ERROR: a.conf:2: log-keep must be a whole number, not 'x'" in ran.err
    assert "a.conf:3: there is no setting 'bogus'" in ran.err
    assert "Traceback" not in ran.err


def test_a_file_that_is_not_there_is_passed_over_in_silence(tmp_path: Path) -> None:
    ran = run_morph("--config=nowhere", "print-architecture", home=tmp_path)
    assert (ran.status, ran.err) == (0, "")


def test_dumped_configurations_can_be_read_back(tmp_path: Path) -> None:
    first = run_morph(
        "--cache-server=", "--repo-alias=a=b#c,d=e#f", "--dump-config", home=tmp_path
    ).out
    (tmp_path / "a.conf").write_text(first + "\n[mine]\nkey = value\n")
    second = run_morph("--config=a.conf", "--dump-config", home=tmp_path)
    assert second.out == first + "\n[mine]\nkey = value\n"
    assert second.err == ""


def test_every_setting_is_dumped_and_named(tmp_path: Path) -> None:
    names = run_morph("--dump-setting-names", home=tmp_path).out.split()
    assert names == list(config(tmp_path)) == [row.name for row in table()]


def test_information_as_json(tmp_path: Path) -> None:
    def read(option: str) -> Any:
        ran = run_morph(option, "--json", "--config=x", "--worker=a,b", home=tmp_path)
        assert (ran.status, ran.err) == (0, "")
        return json.loads(ran.out)

    config = read("--dump-config")
    assert list(config) == read("--dump-setting-names")
    assert (config["worker"], config["repo"], config["quiet"]) == (["a", "b"], None, False)
    assert config["cachedir"] == str(tmp_path / ".cache" / "morph")
    assert read("--list-config-files") == ["x"]
    assert len(read("--version")["version"]) >= 40


def test_config_files_are_listed_whether_there_or_not(tmp_path: Path) -> None:
    listed = run_morph("--list-config-files", "--config=x", home=tmp_path, configs=True).out
    assert listed.splitlines()[0] == "/etc/morph.conf"
    assert str(tmp_path / ".morph.conf") in listed.splitlines()
    assert listed.splitlines()[-1] == "x"
    assert run_morph("--list-config-files", home=tmp_path).out.split() == []


def test_the_name_that_morph_is_called_by_names_its_files(tmp_path: Path) -> None:
    link = tmp_path / "bin" / "morf"
    link.parent.mkdir()
    link.symlink_to(MORPH)
    (tmp_path / ".morf.conf").write_text("[config]\nlog = from-morf\n")
    (tmp_path / ".morph.conf").write_text("[config]\nlog = from-morph\n")
    ran = run_morph("--dump-config", home=tmp_path, configs=True, program=link)
    assert "\nlog = from-morf\n" in ran.out
    ran = run_morph("--dump-config", home=tmp_path, configs=True)
    assert "\nlog = from-morph\n" in ran.out


def test_processed_configuration(tmp_path: Path) -> None:
    env = {"MORPH_DUMP_PROCESSED_CONFIG": ""}
    ran = run_morph(
        "--trove-host=t", "--trove-id=mine", "--repo-alias=aa=b#c", home=tmp_path, env=env
    )
    assert (ran.status, ran.err) == (0, "")
    lines = dict(line.partition(" = ")[::2] for line in ran.out.splitlines())
    assert lines["cache-server"] == "http://t:8080/"
    assert lines["tarball-server"] == "http://t/tarballs/"
    assert lines["build-ref-prefix"] == "mine/builds"
    assert set(lines["repo-alias"].split(", ")) == {
        "baserock=git://t/baserock/%s#ssh://git@t/baserock/%s",
        "upstream=git://t/delta/%s#ssh://git@t/delta/%s",
        "mine=ssh://git@t/mine/%s#ssh://git@t/mine/%s",
        "aa=b#c",
    }
    assert not (tmp_path / "morph_tmp").exists()


def test_version_is_a_commit(tmp_path: Path) -> None:
    ran = run_morph("--version", home=tmp_path)
    assert re.fullmatch(r"[0-9a-f]{40}(-unreproducible)?\n", ran.out)


def test_version_ignores_the_git_environment_of_the_caller(tmp_path: Path) -> None:
    ran = run_morph("--version", home=tmp_path, env={"GIT_DIR": str(tmp_path)})
    assert re.fullmatch(r"[0-9a-f]{40}(-unreproducible)?\n", ran.out)


def test_help_lists_commands_and_settings(tmp_path: Path) -> None:
    ran = run_morph("--help", home=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("Usage: morph [options] COMMAND [arguments]\n")
    assert "print-architecture" in ran.out
    assert "Storage Options:" in ran.out
    assert "--crash-condition" not in ran.out
    assert "--dump-setting-names" not in ran.out
    assert run_morph("help", home=tmp_path).out == ran.out
    assert run_morph("-h", home=tmp_path).out == ran.out


def test_help_all_shows_hidden_options(tmp_path: Path) -> None:
    ran = run_morph("--help-all", home=tmp_path)
    for name in ("crash-condition", "dump-setting-names", "list-config-files", "no-no-distcc"):
        assert f"--{name}" in ran.out


def test_help_follows_the_width_of_the_terminal(tmp_path: Path) -> None:
    out = run_morph("--help", home=tmp_path, env={"COLUMNS": "60"}).out
    options = out[out.index("Options:") :]
    assert max(map(len, options.splitlines())) <= 60
    assert run_morph("--help", home=tmp_path, env={"COLUMNS": "nonsense"}).status == 0


def test_help_for_a_command(tmp_path: Path) -> None:
    ran = run_morph("--help", "print-architecture", home=tmp_path)
    assert ran.out.startswith("Usage: morph [options] print-architecture\n\nPrint the name of")
    assert run_morph("help", "print-architecture", home=tmp_path).out == ran.out


@pytest.mark.parametrize("topic", ["nonsense", "nonsense.write", "../nonsense.write"])
def test_help_for_what_is_not_there(tmp_path: Path, topic: str) -> None:
    ran = run_morph("help", topic, home=tmp_path)
    assert ran.status == 1
    assert f"Unknown subcommand or extension {topic}" in ran.err


def make_extensions(root: Path) -> None:
    folder = root / "extensions"
    folder.mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "hidden.write").touch()
    for name in ("mine.write", "mine.configure", "bare.write", "mine.check"):
        (folder / name).touch()
    (folder / "mine.write.help").write_text("help: |\n  How to write mine.\n")


def test_help_for_an_extension_of_the_checkout(tmp_path: Path) -> None:
    make_extensions(tmp_path)
    below = tmp_path / "systems"
    below.mkdir()
    ran = run_morph("help", "mine.write", home=tmp_path, cwd=below)
    assert (ran.status, ran.out) == (0, "How to write mine.\n")
    ran = run_morph("help", "bare.write", home=tmp_path, cwd=below)
    assert ran.status == 1
    assert "Help not available for extension bare.write" in ran.err


def test_help_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    make_extensions(tmp_path)
    for text in ("help: [", "help: 3", "- x"):
        (tmp_path / "extensions" / "mine.write.help").write_text(text)
        ran = run_morph("help", "mine.write", home=tmp_path)
        assert ran.status == 1
        assert "mine.write.help" in ran.err
        assert "Traceback" not in ran.err


def test_extensions_are_listed(tmp_path: Path) -> None:
    make_extensions(tmp_path)
    first, *names = run_morph("help-extensions", home=tmp_path).out.splitlines()
    assert first == "Extensions:"
    assert [name for name in names if "mine" in name or "bare" in name] == [
        "    mine.configure",
        "    bare.write",
        "    mine.write",
    ]
    assert "    hidden.write" not in names
    listed = json.loads(run_morph("help-extensions", "--json", home=tmp_path).out)
    assert listed["extensions"] == [name.strip() for name in names]


def test_output_goes_to_a_file(tmp_path: Path) -> None:
    ran = run_morph("--output=out", "print-architecture", home=tmp_path)
    assert (ran.status, ran.out) == (0, "")
    assert len((tmp_path / "out").read_text().split()) == 1


def test_output_to_where_nothing_can_be_written(tmp_path: Path) -> None:
    ran = run_morph("--output=no/such", "print-architecture", home=tmp_path)
    assert ran.status == 1
    assert "ERROR: can't write output file no/such: No such file or directory" in ran.err


@pytest.mark.parametrize("words", [["--help"], ["print-architecture"]])
def test_a_full_disk_is_told(tmp_path: Path, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [MORPH, "--no-default-configs", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"ERROR: No space left on device\n"


def test_an_error_that_cannot_be_written_ends_as_others_do(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [MORPH, "--no-default-configs", "no-such-command"],
            stderr=full,
            stdout=subprocess.PIPE,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, b"")


def test_passwords_in_urls_are_not_shown(tmp_path: Path) -> None:
    options = ["--trove-host=", "--repo=https://me:hunter2@127.0.0.1:1/x", "--ref=master"]
    ran = run_morph(*options, "--debug", "--log=l", "list-artifacts", "s.morph", home=tmp_path)
    assert ran.status == 1
    assert "Cannot find remote git repository: https://me:(hidden)@127.0.0.1:1/x" in ran.err
    assert "hunter2" not in ran.out + ran.err + (tmp_path / "l").read_text()


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{MORPH} --help-all | true",
        shell=True,
        capture_output=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.stderr == b""


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_output_is_utf8_in_every_locale(tmp_path: Path, locale: str) -> None:
    ran = run_morph("expand-repo", "/srv/zażółć", home=tmp_path, env={"LC_ALL": locale})
    assert (ran.status, ran.err) == (0, "")
    assert "Original: /srv/zażółć\n" in ran.out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_arguments_that_are_no_utf8_do_no_harm(tmp_path: Path, options: list[str]) -> None:
    ran = run_morph("expand-repo", b"/srv/\xff", *options, home=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "udcff" in ran.out


def test_a_home_is_not_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [MORPH, "--dump-config"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("print-architecture", 0, ""),
        ("validate", 1, "ERROR: the working directory is no longer there\n"),
    ],
)
def test_a_working_directory_that_was_removed(
    tmp_path: Path, command: str, status: int, message: str
) -> None:
    done = subprocess.run(
        f"mkdir gone && cd gone && rmdir ../gone && exec {MORPH} --no-default-configs {command}",
        shell=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    # The shell that starts Morph has its own complaint.
    told = "".join(line for line in done.stderr.splitlines(True) if "getcwd" not in line)
    assert (done.returncode, told) == (status, message)


@pytest.mark.parametrize("way", ["bin/morf", "./bin/morf", "../{name}/bin/morf", "morf"])
def test_morph_finds_itself_through_links_and_the_path(tmp_path: Path, way: str) -> None:
    (tmp_path / "real").symlink_to(MORPH)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "morf").symlink_to("../real")
    done = subprocess.run(
        f"{way.format(name=tmp_path.name)} print-architecture",
        shell=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_python_environment_of_the_caller_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "morphlib").mkdir()
    (tmp_path / "morphlib" / "__init__.py").write_text("raise SystemExit('wrong one')")
    (tmp_path / "click.py").write_text("raise SystemExit('wrong one')")
    env = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nonexistent"}
    # Without a .venv the libraries may come from PYTHONPATH, so there only the first half holds.
    if not (MORPH.parent / ".venv").exists():
        env = {}
    ran = run_morph("print-architecture", home=tmp_path, env=env)
    assert (ran.status, ran.err) == (0, "")


def test_messages_cannot_drive_the_terminal(tmp_path: Path) -> None:
    ran = run_morph("\x1b[2Jcommand", home=tmp_path)
    assert ran.err.startswith("ERROR: unknown subcommand \\x1b[2Jcommand\n")
