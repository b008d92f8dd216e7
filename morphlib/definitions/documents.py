"""The format of the six kinds of files, field by field.

The loader checks files against these shapes, and `definitions-schema/` is generated from them.
"""

from __future__ import annotations

import re

from morphlib.definitions.models import ARCHITECTURES, STEPS, BuildMode, Kind
from morphlib.definitions.names import problem_with_reference
from morphlib.definitions.shapes import (
    Anything,
    CommandText,
    Field,
    Integer,
    Later,
    ListOf,
    MapOf,
    Matching,
    Nullable,
    OneOf,
    Pattern,
    Record,
    Text,
    name_shape,
    suffix_shape,
)

SUPPORTED_VERSIONS = (7, 8)

#: The steps that a predefined build system can have commands for.
BUILD_SYSTEM_STEPS = ("configure", "build", "install", "strip")

_NAME = name_shape()
_COMMANDS = ListOf(CommandText())
_REFERENCE = Matching(
    lambda path: problem_with_reference(path) is None,
    "Field {field} is not a path inside the definitions repository: {value} in {what}",
    {"pattern": r"^(?!/)(?!(.*/)?\.\.(/|$))[^\x00\n]+$"},
)
_DESCRIPTION = Field(Nullable(Text()), "What this is, for people. Never changes what is built.")


def _kind(kind: Kind) -> Field:
    shape = Matching(lambda value: value == kind, "Unknown kind {value} in {what}", {"const": kind})
    return Field(shape, "Which of the four kinds of definition this file is.", required=True)


_SPLIT_RULE = Record(
    {
        "artifact": Field(_NAME, "Full name of the artifact.", required=True),
        "include": Field(
            ListOf(Pattern()),
            "Regular expressions, matched at the start of the text. What matches any of them goes "
            "into the artifact, unless an earlier rule took it.",
            required=True,
        ),
    }
)

_DEVICE = Record(
    {
        "type": Field(
            Matching(
                lambda value: value in ("c", "b"),
                "Field {field} must be c or b, not {value}, in {what}",
                {"enum": ["c", "b"]},
            ),
            "c for a character device, b for a block device.",
            required=True,
        ),
        "filename": Field(
            Matching(
                lambda value: (
                    ".." not in value.split("/")
                    and value.strip("/.") != ""
                    and not value.endswith("/")
                    and not re.search(r"[\x00\n]", value)
                ),
                "Field {field} is not the path of a file: {value} in {what}",
                {"pattern": r"^(?!(.*/)?\.\.(/|$))[^\x00\n]*[^/\x00\n]$"},
            ),
            "Where the node is, from the root of the system.",
            required=True,
        ),
        "permissions": Field(
            Matching(
                lambda value: re.fullmatch(r"[0-7]{1,4}", value) is not None,
                "Field {field} must be up to four octal digits, not {value}, in {what}",
                {"pattern": "^[0-7]{1,4}$"},
            ),
            'Octal digits, in quotes: "0666".',
            required=True,
        ),
        "major": Field(Integer(), "Major device number.", required=True),
        "minor": Field(Integer(), "Minor device number.", required=True),
        "uid": Field(Integer(), "Numeric user that owns the node.", required=True),
        "gid": Field(Integer(), "Numeric group that owns the node.", required=True),
    },
    lenient=True,
)

_WITHOUT_EFFECT = Field(
    Anything(), "Without effect in a chunk file: the stratum's chunk spec says it."
)

CHUNK = Record(
    {
        "name": Field(_NAME, "Name of the chunk, and base of its artifacts' names.", required=True),
        "kind": _kind(Kind.CHUNK),
        "description": _DESCRIPTION,
        "build-system": Field(
            Text(),
            "Where the command lists that this file leaves out come from.",
            default="manual",
        ),
        **{
            f"{step}-commands": Field(
                Nullable(_COMMANDS),
                f"Shell scripts of the {step} step, each run by a shell of its own. "
                "An empty list means none, even where the build system has some.",
            )
            for step in STEPS
        },
        "max-jobs": Field(
            Nullable(Integer(minimum=1, lax=True)), "At most so many jobs of make at once."
        ),
        "devices": Field(Nullable(ListOf(_DEVICE)), "Device nodes that this chunk has."),
        "products": Field(
            Nullable(ListOf(_SPLIT_RULE)),
            "Split rules for installed files (paths without a leading slash), before the defaults.",
        ),
        "system-integration": Field(
            Nullable(MapOf(_NAME, MapOf(_NAME, _COMMANDS))),
            "Scripts that run when a system is assembled: artifact of this chunk, then a prefix "
            'that gives an order ("00-passwd"), then a list of scripts.',
        ),
        "build-mode": _WITHOUT_EFFECT,
        "prefix": _WITHOUT_EFFECT,
        "submodules": _WITHOUT_EFFECT,
    },
    description="How one chunk, which is one upstream source tree, is built.",
)

CHUNK_SPEC = Record(
    {
        "name": Field(_NAME, "Name by which this stratum speaks of the chunk.", required=True),
        "repo": Field(
            Text(solid=True),
            "Repository: a URL, or ALIAS:PATH such as upstream:zlib.",
            required=True,
        ),
        "ref": Field(
            Text(solid=True),
            "Commit to build: best a full SHA-1, in quotes where it has digits only.",
            required=True,
        ),
        "unpetrify-ref": Field(
            Anything(), "Branch or tag that `ref` was taken from. For information."
        ),
        "morph": Field(
            Nullable(_REFERENCE), "Chunk file, from the root of the repository, with its suffix."
        ),
        "build-system": Field(
            Nullable(Text()), "Predefined build system, where there is no chunk file."
        ),
        "build-mode": Field(
            Nullable(Text()),
            "staging: isolated, with the dependencies only. bootstrap: with the host's tools, left "
            "out of the stratum. test: with the host's tools.",
            default=BuildMode.STAGING.value,
        ),
        "prefix": Field(
            Nullable(Text(solid=True)),
            "Value of PREFIX. PREFIX/bin joins the PATH of what depends on this chunk.",
            default="/usr",
        ),
        "build-depends": Field(
            ListOf(Text()),
            "Chunks of this stratum that are needed to build this one.",
        ),
        "artifacts": Field(
            Nullable(MapOf(_NAME, _NAME)),
            "Artifact of the chunk -> artifact of this stratum that it goes into.",
        ),
        "submodules": Field(
            MapOf(
                Text(),
                Record(
                    {"url": Field(Text(solid=True), "Where to fetch it from.", required=True)},
                    lenient=True,
                    wrong="Not a dictionary: '{field}' in {what}",
                ),
                wrong="Not a dictionary: 'submodules' in chunk {field} of {what}",
            ),
            "Other URLs for git submodules, by the submodule's name. Format version 8.",
        ),
    },
    lenient=True,
    wrong="Not a dictionary: chunk spec {field} in {what}",
    description="Exactly one of morph and build-system is given.",
    also={
        "oneOf": [
            {
                "required": ["morph"],
                "properties": {"morph": {"type": "string"}, "build-system": {"type": "null"}},
            },
            {
                "required": ["build-system"],
                "properties": {"build-system": {"type": "string"}, "morph": {"type": "null"}},
            },
        ]
    },
)

_NO_CHUNKS = "Stratum {name} has no chunks in {what}"

STRATUM = Record(
    {
        "name": Field(
            _NAME, "Name of the stratum, and base of its artifacts' names.", required=True
        ),
        "kind": _kind(Kind.STRATUM),
        "description": _DESCRIPTION,
        "build-depends": Field(
            ListOf(
                Record(
                    {"morph": Field(_REFERENCE, "File of the stratum.", required=True)},
                    lenient=True,
                )
            ),
            "Strata that everything here is built with. May be left out only where there are "
            "bootstrap or test chunks; an empty list says that there are none.",
        ),
        "products": Field(
            Nullable(ListOf(_SPLIT_RULE)),
            "Split rules for the names of chunk artifacts, before the defaults.",
        ),
        "chunks": Field(
            ListOf(CHUNK_SPEC, empty=_NO_CHUNKS),
            "The chunks of this stratum. Their order means nothing.",
            required=True,
            missing=_NO_CHUNKS,
        ),
    },
    description="A set of chunks that belong together.",
)

_STRATUM_SPEC = Record(
    {
        "morph": Field(_REFERENCE, "File of the stratum.", required=True),
        "name": Field(Nullable(_NAME), "Name of the stratum, to be checked against its file."),
        "artifacts": Field(
            Nullable(ListOf(Text())),
            "Artifacts of the stratum to take. All, where this is left out.",
        ),
    },
    lenient=True,
    wrong="System {name} has stratum specs that are not mappings: {field} in {what}",
)

SYSTEM = Record(
    {
        "name": Field(_NAME, "Name of the system; its artifact is NAME-rootfs.", required=True),
        "kind": _kind(Kind.SYSTEM),
        "description": _DESCRIPTION,
        "arch": Field(
            Matching(
                lambda value: value in ARCHITECTURES,
                "Unknown architecture {value} in {what}",
                {"enum": list(ARCHITECTURES)},
            ),
            "Architecture that this system is for.",
            required=True,
        ),
        "strata": Field(
            ListOf(
                _STRATUM_SPEC,
                empty="System {name} has no strata in {what}",
                wrong="System {name} has the wrong type for its strata in {what}: not a list",
            ),
            "The strata of this system.",
            required=True,
        ),
        "configuration-extensions": Field(
            Nullable(ListOf(Text(solid=True))),
            "Configuration extensions that run when this system is deployed.",
        ),
    },
    description="A set of strata for one architecture: one root filesystem.",
)

_ANY_NAME = Text(solid=True)
_PARAMETERS = Record(
    {
        "type": Field(Nullable(Text()), "Write extension that deploys it."),
        "location": Field(Anything(), "Where it is deployed to."),
        "upgrade-type": Field(Nullable(Text()), "Write extension for upgrades."),
        "upgrade-location": Field(Anything(), "What upgrades are written to."),
        "partial-deploy-components": Field(
            Anything(), "Files of the strata or chunks that a partial deployment takes."
        ),
    },
    free=True,
    description="Anything else is a variable for the extensions.",
)

CLUSTER_SYSTEM: Record = Record(
    {
        "morph": Field(_REFERENCE, "File of the system.", required=True),
        "deploy": Field(
            MapOf(_ANY_NAME, Nullable(_PARAMETERS)),
            "Deployments of this system: a name that is unique in this file, then parameters.",
            required=True,
        ),
        "deploy-defaults": Field(
            Nullable(MapOf(_ANY_NAME, Anything())), "Parameters that all these deployments share."
        ),
        "subsystems": Field(
            Nullable(ListOf(Later("system", lambda: CLUSTER_SYSTEM))),
            "Systems deployed inside this one.",
        ),
    },
    lenient=True,
)

CLUSTER = Record(
    {
        "name": Field(Text(), "Name of the cluster.", required=True),
        "kind": _kind(Kind.CLUSTER),
        "description": _DESCRIPTION,
        "systems": Field(
            ListOf(Later("system", lambda: CLUSTER_SYSTEM)),
            "The systems, and the ways to deploy each.",
            required=True,
        ),
    },
    description="Systems and the ways of deploying them.",
)

KINDS: dict[Kind, Record] = {
    Kind.CHUNK: CHUNK,
    Kind.STRATUM: STRATUM,
    Kind.SYSTEM: SYSTEM,
    Kind.CLUSTER: CLUSTER,
}


_PREDEFINED = Record(
    {
        f"{step}-commands": Field(_COMMANDS, f"Shell scripts of the {step} step.")
        for step in BUILD_SYSTEM_STEPS
    }
)

_DEFAULT_RULES = ListOf(
    Record(
        {
            "artifact": Field(
                suffix_shape(), "Suffix of the artifact's name, such as -devel.", required=True
            ),
            "include": Field(
                ListOf(Pattern()), "Regular expressions, matched at the start.", required=True
            ),
        }
    )
)

DEFAULTS = Record(
    {
        "build-systems": Field(
            MapOf(Text(solid=True), _PREDEFINED), "Predefined build systems, by name."
        ),
        "split-rules": Field(
            Record(
                {
                    "chunk": Field(_DEFAULT_RULES, "Rules for the files of every chunk."),
                    "stratum": Field(_DEFAULT_RULES, "Rules for the artifacts in every stratum."),
                }
            ),
            "Split rules that follow those of each definition.",
        ),
    },
    description="Predefined build systems and split rules.",
)

VERSION = Record(
    {"version": Field(OneOf(SUPPORTED_VERSIONS), "Format of the definitions.", required=True)},
    free=True,
    description="Which format the definitions of this repository have.",
)
