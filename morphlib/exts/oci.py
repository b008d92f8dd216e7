"""Writes a system as an image for containers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from morphlib.errors import MorphError, Reason
from morphlib.images.oci import ZSTD, Compression, Layer, OciArchive
from morphlib.images.programs import check_there
from morphlib.writeexts.aside import check_new_file, new_file
from morphlib.writeexts.difference import difference
from morphlib.writeexts.entries import Entries, read_entries, stack
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.layers import read_strata
from morphlib.writeexts.layertar import write_layer
from morphlib.writeexts.lists import command, settings
from morphlib.writeexts.machine import architecture_of
from morphlib.writeexts.parameters import Parameters, choice, parameter_error, text
from morphlib.writeexts.sourcedate import as_text, source_date
from morphlib.writeexts.tree import Tree

NAME = text(
    "OCI_NAME",
    "The name of the image and its tag, such as web:1.2, which `podman load` gives it.",
    shown="the name of the system",
)
ENTRYPOINT = command(
    "OCI_ENTRYPOINT",
    "The program that always runs, and arguments: split like a shell would, or a YAML list.",
)
CMD = command(
    "OCI_CMD",
    "The program that runs if nothing else is asked for, or arguments for OCI_ENTRYPOINT.",
    shown="/bin/sh, or /sbin/init without that; nothing with OCI_ENTRYPOINT",
)
ENV = settings(
    "OCI_ENV",
    "Environment of containers: words NAME=VALUE, split like a shell would, or a YAML mapping.",
    shown="PATH with the usual directories",
)
USER = text("OCI_USER", "The user whom programs run as, and group: USER or USER:GROUP.", shown="0")
WORKDIR = text("OCI_WORKDIR", "The directory in which programs start.", "/")
LABELS = settings(
    "OCI_LABELS",
    "Labels of the image: words NAME=VALUE, or a YAML mapping.",
    shown="org.opencontainers.image.title with the name of the system",
)
ARCHITECTURE = text(
    "OCI_ARCHITECTURE",
    "The machines that the image is for, as Go names them: amd64, arm64, arm/v7.",
    shown="that of the system's programs",
)
COMPRESSION = choice(
    "OCI_COMPRESSION", "How layers are compressed: gzip, zstd or none.", Compression.GZIP
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
)
#: Morph's names of architectures -> those of Go, with the variant.
_GO = {
    "x86_64": "amd64",
    "x86_32": "386",
    "armv8l64": "arm64",
    "armv7lhf": "arm/v7",
    "riscv64": "riscv64",
}


class WriteOci(WriteExtension):
    description = """
        Write the system as an OCI image archive, which podman, skopeo and others load.

        Each stratum is a layer, and what integration and configuration changed is one on top: so
        images of systems that share strata share these layers. If the cache has the system but not
        its chunks, all is one layer. Equal systems give equal bytes; the image's time is that of
        SOURCE_DATE_EPOCH.

        To load it: `podman load --input LOCATION`, or `skopeo copy oci-archive:LOCATION ...`.
        """
    location_help = """
        Path of the archive, relative to the definitions if not starting with /; directories on the
        way are made.
        """
    wrong_mode = "Cannot upgrade an OCI image: deploy it anew."
    parameters = (
        NAME,
        ENTRYPOINT,
        CMD,
        ENV,
        USER,
        WORKDIR,
        LABELS,
        ARCHITECTURE,
        COMPRESSION,
    )
    uses_layers = True

    def check(self, location: str, given: Parameters) -> None:
        if given[NAME] and not _REFERENCE.fullmatch(given[NAME]):
            raise parameter_error(f"OCI_NAME {given[NAME]} can't be the name of an image")
        if not given[WORKDIR].startswith("/"):
            raise parameter_error(f"OCI_WORKDIR {given[WORKDIR]} does not start with /")
        source_date(given.environment)
        check_new_file(Path(location))
        if given[COMPRESSION] is Compression.ZSTD:
            check_there([ZSTD], what="OCI_COMPRESSION zstd")

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        self.check(location, given)
        time = source_date(given.environment)
        config = image_config(tree, given, time)
        with new_file(Path(location), parents=True) as part, part.open("w+b") as out:
            archive = OciArchive(out, time)
            layers = self._write_layers(archive, tree, given[COMPRESSION], time)
            created = as_text(time)
            config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
            config["history"] = [
                {"created": created, "created_by": layer.created_by} for layer in layers
            ]
            name = given[NAME] or image_name(system_name(tree))
            archive.finish(config, layers, {"org.opencontainers.image.ref.name": name})

    def _write_layers(
        self, archive: OciArchive, tree: Tree, compression: Compression, time: int
    ) -> list[Layer]:
        strata = read_strata(self.environment, newest=time)
        layers = []

        def add(what: str, entries: Entries, removed: tuple[str, ...] = ()) -> None:
            if entries or removed:
                self.status("Writing %(what)s", what=what)
                layers.append(
                    archive.add_layer(
                        lambda out: write_layer(out, entries, removed), what, compression
                    )
                )

        for stratum in strata:
            add(f"stratum {stratum.name}", stratum.entries)
        whole = read_entries(tree.root, self.devices, newest=time)
        top = difference(whole, stack(stratum.entries for stratum in strata))
        add("integration and configuration" if strata else "system", top.entries, top.removed)
        return layers


def image_config(tree: Tree, given: Parameters, time: int) -> dict[str, Any]:
    """The configuration of an image but for its layers. Raises MorphError."""
    found = architecture_of(tree)
    architecture, _, variant = (given[ARCHITECTURE] or _GO.get(found, "")).partition("/")
    if not architecture:
        raise MorphError(
            f"no image can be for the architecture {found}",
            reason=Reason.DEPLOY,
            hint="OCI_ARCHITECTURE says what it is for",
        )
    title = system_name(tree)
    more_labels, more_environment = given[LABELS], given[ENV]
    labels = {"org.opencontainers.image.title": title} if title else {}
    labels, environment = {**labels, **more_labels}, {"PATH": _PATH, **more_environment}
    inner: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "WorkingDir": given[WORKDIR],
        "Labels": labels,
    }
    if given[USER]:
        inner["User"] = given[USER]
    entrypoint, cmd = given[ENTRYPOINT], given[CMD]
    if entrypoint is not None:
        inner["Entrypoint"] = entrypoint
    elif cmd is None:
        cmd = ("/bin/sh",) if tree.is_file("bin/sh") else ("/sbin/init",)
    if cmd is not None:
        inner["Cmd"] = cmd
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        "created": as_text(time),
        "config": inner,
    }
    if variant:
        config["variant"] = variant
    return config


def system_name(tree: Tree) -> str:
    """The name of the system, as Morph has noted it in the tree; else empty."""
    try:
        document = json.loads(tree.read("baserock/deployment.meta"))
        return str(document["system-artifact-name"]).removesuffix("-rootfs")
    except (MorphError, ValueError, KeyError, TypeError):
        return ""


def image_name(system: str) -> str:
    """A name that an image can have."""
    return re.sub(r"[^a-z0-9]+", "-", system.lower()).strip("-") or "system"


WRITE = WriteOci()
