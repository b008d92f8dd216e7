"""Installs the files that every system of a definitions repository gets."""

from __future__ import annotations

from pathlib import Path

from morphlib.exts.install_files import MANIFESTS, install
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree

MANIFEST = Path("essential-files/manifest")


class InstallEssentialFiles(ConfigureExtension):
    description = f"""
Install the files that the manifest essential-files/manifest of the definitions names.
{MANIFESTS}"""

    def configure(self, tree: Tree, given: Parameters) -> None:
        install(tree, [MANIFEST], given.environment)


CONFIGURE = InstallEssentialFiles()
