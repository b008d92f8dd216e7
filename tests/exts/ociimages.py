"""Reading OCI image archives, and what their layers come to."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Type, mode, uid, gid, and content, target or device number; names of the same file share it.
Seen = tuple[str, int, int, int, object]

KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
}


@dataclass(frozen=True)
class Image:
    """An image. `layers` are tar files, uncompressed, the lowest first."""

    annotations: dict[str, str]
    manifest: dict[str, Any]
    config: dict[str, Any]
    layers: tuple[bytes, ...]

    @property
    def steps(self) -> list[str]:
        return [step["created_by"] for step in self.config["history"]]

    @property
    def digests(self) -> list[str]:
        return [layer["digest"] for layer in self.manifest["layers"]]

    def names(self, layer: int) -> set[str]:
        with tarfile.open(fileobj=io.BytesIO(self.layers[layer])) as archive:
            return set(archive.getnames())


def read_image(path: Path) -> Image:
    """Read an archive, checking digests, sizes and that nothing is in it that is not named."""
    with tarfile.open(path) as archive:
        files: dict[str, bytes] = {}
        for member in archive:
            assert member.name not in files
            file = archive.extractfile(member)
            assert file is not None
            files[member.name] = file.read()
    used = {"index.json", "oci-layout"}

    def blob(descriptor: dict[str, Any]) -> bytes:
        kind, _, digest = descriptor["digest"].partition(":")
        name = f"blobs/{kind}/{digest}"
        used.add(name)
        content = files[name]
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) == descriptor["size"]
        return content

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (found,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(found))
    config = json.loads(blob(manifest["config"]))
    layers = tuple(_unpacked(blob(layer), layer["mediaType"]) for layer in manifest["layers"])
    wanted = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert config["rootfs"] == {"type": "layers", "diff_ids": wanted}
    assert used == files.keys()
    return Image(found.get("annotations", {}), manifest, config, layers)


def _unpacked(content: bytes, media_type: str) -> bytes:
    match media_type.rpartition(".")[2]:
        case "tar":
            return content
        case "tar+gzip":
            return gzip.decompress(content)
        case "tar+zstd":
            argv = ["zstd", "--decompress", "--stdout"]
            return subprocess.run(argv, input=content, capture_output=True, check=True).stdout
    raise AssertionError(media_type)


def apply_layers(image: Image) -> dict[str, Seen]:
    """Path -> what is there when all layers are unpacked, by the rules of the specification."""
    found: dict[str, Seen] = {}

    def remove(path: str) -> None:
        for each in [each for each in found if each == path or each.startswith(f"{path}/")]:
            del found[each]

    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            members = list(archive)
            for member in members:
                directory, _, name = member.name.rpartition("/")
                if name.startswith(".wh."):
                    gone = f"{directory}/{name[4:]}".lstrip("/")
                    assert gone in found, f"{gone} is removed, but was not there"
                    remove(gone)
            for member in members:
                if member.name.rpartition("/")[2].startswith(".wh."):
                    continue
                path = member.name.rstrip("/")
                if member.islnk():
                    found[path] = found[member.linkname]
                    continue
                content: object = None
                if member.isreg():
                    file = archive.extractfile(member)
                    assert file is not None
                    content = file.read()
                elif member.issym():
                    content = member.linkname
                elif member.isdev() and not member.isfifo():
                    content = os.makedev(member.devmajor, member.devminor)
                if not (member.isdir() and found.get(path, ("",))[0] == "directory"):
                    remove(path)
                kind = KINDS[member.type]
                found[path] = (kind, member.mode, member.uid, member.gid, content)
    return found
