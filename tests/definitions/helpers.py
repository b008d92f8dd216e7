"""Small definitions repositories in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import dedent

import pytest

from morphlib.definitions import MappingReader
from morphlib.errors import MorphError, MorphErrors

DEFAULTS = """\
    build-systems:
      manual: {}
      autotools:
        configure-commands: [./configure]
        build-commands: [make]
        install-commands: [make install]
        strip-commands: [strip-all]
    split-rules:
      chunk:
      - artifact: -devel
        include: [usr/include/.*]
      - artifact: -runtime
        include: [.*]
      stratum:
      - artifact: -devel
        include: [.*-devel]
      - artifact: -runtime
        include: [.*]
    """

BASE = {
    "VERSION": "version: 8\n",
    "DEFAULTS": DEFAULTS,
    "systems/base.morph": """\
        name: base
        kind: system
        arch: x86_64
        strata:
        - name: tools
          morph: strata/tools.morph
        """,
    "strata/tools.morph": """\
        name: tools
        kind: stratum
        build-depends: []
        chunks:
        - name: zlib
          morph: strata/tools/zlib.morph
          repo: upstream:zlib
          ref: abc
        - name: lua
          repo: upstream:lua
          ref: def
          build-system: autotools
          build-depends: [zlib]
        """,
    "strata/tools/zlib.morph": """\
        name: zlib
        kind: chunk
        build-system: autotools
        build-commands:
        - make all
        """,
}


def repository(files: Mapping[str, str | bytes | None] | None = None) -> MappingReader:
    """BASE with some files replaced, added, or (None) taken away."""
    merged: dict[str, str | bytes | None] = {**BASE, **(files or {})}
    return MappingReader(
        {
            path: text if isinstance(text, bytes) else dedent(text).encode()
            for path, text in merged.items()
            if text is not None
        }
    )


def failures(call: Callable[[], object]) -> list[MorphError]:
    """The errors that a call raises."""
    with pytest.raises(MorphError) as caught:
        call()
    error = caught.value
    return list(error.errors) if isinstance(error, MorphErrors) else [error]


def failure(call: Callable[[], object]) -> MorphError:
    """The one error that a call raises."""
    (error,) = failures(call)
    return error


def ignore(text: str) -> None:
    """Take a warning that a test is not about."""
