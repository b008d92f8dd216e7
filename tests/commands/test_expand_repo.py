"""morph expand-repo, on the real program."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commandline import run_morph


def test_aliases_are_expanded(tmp_path: Path) -> None:
    ran = run_morph("--trove-host=t", "expand-repo", "upstream:zlib", home=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (
        "Original: upstream:zlib\npull: git://t/delta/zlib\npush: ssh://git@t/delta/zlib\n\n"
    )


def test_others_stay_as_they_are(tmp_path: Path) -> None:
    ran = run_morph("expand-repo", "git://h/x", home=tmp_path)
    assert ran.out == "Original: git://h/x\npull: git://h/x\npush: git://h/x\n\n"


def test_nothing_is_expanded_to_nothing(tmp_path: Path) -> None:
    ran = run_morph("expand-repo", home=tmp_path)
    assert (ran.status, ran.out) == (0, "")


def test_json(tmp_path: Path) -> None:
    ran = run_morph("expand-repo", "--json", "github:a/b", "x", home=tmp_path)
    assert json.loads(ran.out) == [
        {
            "original": "github:a/b",
            "pull": "git://github.com/a/b",
            "push": "ssh://git@github.com/a/b",
        },
        {"original": "x", "pull": "x", "push": "x"},
    ]


def test_malformed_aliases_are_told(tmp_path: Path) -> None:
    ran = run_morph("expand-repo", "x", "--repo-alias=nonsense", home=tmp_path)
    assert ran.status == 1
    assert "ERROR: Invalid repo-alias: nonsense" in ran.err
