"""Lets people log in as root with their keys."""

from __future__ import annotations

from pathlib import Path

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameters, words
from morphlib.writeexts.tree import Tree

SSHKEYS = words(
    "SSHKEYS",
    """Files with public keys, between blanks, relative to the root of the definitions. Without it
    nothing is changed.""",
)
_FILE = "root/.ssh/authorized_keys"


class SshKeys(ConfigureExtension):
    description = "Let the owners of ssh keys log in as root."
    parameters = (SSHKEYS,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        files = given[SSHKEYS]
        if not files:
            return
        keys = read_keys(files)
        tree.make_directory("root/.ssh")
        tree.change("root/.ssh", mode=0o700, owner=(0, 0))
        for name in files:
            self.status(msg="Adding %(name)s to the keys that root can log in with", name=name)
        mode = None if tree.is_file(_FILE) else 0o600
        before = tree.read(_FILE) if mode is None else b""
        tree.write(_FILE, _ended(before) + keys, mode=mode)


def read_keys(files: tuple[str, ...]) -> bytes:
    """The content of all files. Raises MorphError for those that can't be read, or are private."""
    keys, errors = b"", []
    for name in files:
        try:
            path = Path(name).expanduser()
            if path.exists() and not path.is_file():  # of pipes and devices, reading may not end
                errors.append(f"SSHKEYS: {name} is no file")
                continue
            content = path.read_bytes()
        except (OSError, RuntimeError) as error:  # RuntimeError: the home of nobody
            why = (error.strerror if isinstance(error, OSError) else None) or error
            errors.append(f"SSHKEYS: can't read {name}: {why}")
            continue
        if b"PRIVATE KEY-----" in content:
            errors.append(f"SSHKEYS: {name} is a private key; give the public one ({name}.pub)")
        keys += _ended(content)
    raise_all(MorphError(error, reason=Reason.DEPLOY) for error in errors)
    return keys


def _ended(content: bytes) -> bytes:
    return content + b"\n" if content and not content.endswith(b"\n") else content


CONFIGURE = SshKeys()
