"""Servers that machines boot from over the network: NFS exports and TFTP, below /srv/nfsboot.

    HOST/systems/LABEL/     a version of the system of a machine
    HOST/systems/default    link to the version that is its root file system
    tftp/HOST-LABEL         hard link to the kernel of a version
    tftp/HOST               link to the kernel that the machine boots

A version is made beside its place and appears when it is whole. What is done for it elsewhere is
undone if a later step fails.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.boot import KERNELS
from morphlib.writeexts.parameters import Parameter
from morphlib.writeexts.remote import Remote
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.undo import undone_on_failure

ROOT = "/srv/nfsboot"
TFTP = f"{ROOT}/tftp"
EXPORTS = "/etc/exports"
SERVICE = "nfs-server.service"
OPTIONS = "rw,no_subtree_check,no_root_squash,async"

#: What has to be installed on the server.
_NEEDED = ("rsync", "flock", "mktemp")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_MAX_HOST = 64  # that of Linux
_CLIENT = re.compile(r"@?[A-Za-z0-9.:*?/_\[\]-]+")

# Prints what is missing.
_CHECK = """
[ -e "$1" ] || echo exports
systemctl is-enabled "$2" >/dev/null || echo service
[ -d "$3" ] || echo tftp
shift 3
for each; do command -v -- "$each" >/dev/null || echo "$each"; done
"""
# Kernels and machines share a directory: web-v2 may be a machine, or the version v2 of web.
_CHECK_NAMES = """
[ ! -e "$1" ] || [ -L "$1" ] || echo "$1 is something else than a link"
[ ! -e "$2" ] && [ ! -L "$2" ] || echo "$2 exists already"
"""
# What was running there when a connection broke, such as rsync, may still be ending.
_REMOVE = """
n=0
until rm -rf -- "$1"; do
    n=$((n + 1))
    [ "$n" -lt 10 ] || exit 1
    sleep 1
done
rmdir -- "${1%/*}" "${1%/*/*}" 2>/dev/null || true
"""
# To make the directory claims the name; renaming takes the place of an empty directory only.
_PUBLISH = """
set -eu
mkdir -- "$2"
if ! mv -T -- "$1" "$2"; then
    rmdir -- "$2"
    exit 1
fi
"""
# A link that others follow meanwhile leads to the old place or to the new one. Prints the old one.
_SET_LINK = """
set -eu
old=$(readlink -- "$1") || true
part=${1%/*}/.${1##*/}.$3.morph-part
trap 'rm -f -- "$part"' EXIT
ln -s -- "$2" "$part"
mv -T -- "$part" "$1"
printf %s "$old"
"""
# Prints "added" if the file did not export that path; the lock is for others who do the same.
_ADD_EXPORT = """
set -eu
exec 9<"$1"
flock 9
file=$(readlink -f -- "$2")
while read -r path rest || [ -n "$path" ]; do
    case $path in
        "$3" | "$3/" | "\\"$3\\"" | "\\"$3/\\"") exit 0 ;;
    esac
done <"$file"
part=$(mktemp "$file.XXXXXX")
trap 'rm -f -- "$part"' EXIT
cp -p -- "$file" "$part"
[ -z "$(tail -c 1 -- "$part")" ] || echo >>"$part"
printf '%s\\n' "$4" >>"$part"
mv -T -- "$part" "$file"
echo added
"""
_REMOVE_EXPORT = """
set -eu
exec 9<"$1"
flock 9
file=$(readlink -f -- "$2")
part=$(mktemp "$file.XXXXXX")
trap 'rm -f -- "$part"' EXIT
cp -p -- "$file" "$part"
grep -vxF -e "$4" -- "$file" >"$part" || [ "$?" = 1 ]
mv -T -- "$part" "$file"
"""


def parse_host(text: str) -> str:
    """The name of a machine that boots. Raises ValueError for what can't be one."""
    name = text.strip()
    if not _HOST.fullmatch(name) or len(name) > _MAX_HOST:
        raise ValueError(f"{text!r} is no host name: letters, digits, dots and hyphens")
    if name == "tftp":
        raise ValueError(f"no machine can have the name tftp: {TFTP} has the kernels of all")
    return name


def _parse_clients(text: str) -> tuple[str, ...]:
    clients = tuple(text.split())
    for client in clients:
        if not _CLIENT.fullmatch(client):
            raise ValueError(f"NFSBOOT_CLIENTS: {client!r} is nothing that exports(5) knows")
    return clients


CLIENTS: Parameter[tuple[str, ...]] = Parameter(
    "NFSBOOT_CLIENTS",
    """Who may mount the root file system, as exports(5) has it: addresses, networks or host names,
    with blanks between them. They get all rights of root there, and by default everybody does who
    can reach the server. It counts when the machine is deployed for the first time.""",
    _parse_clients,
    ("*",),
    shown="*",
)


def find_kernel(tree: Tree) -> str:
    """The kernel of a system, relative to its tree, no link in it. Raises MorphError."""
    name = tree.first_file(KERNELS)
    if name is None:
        known = ", ".join(f"/{each}" for each in KERNELS)
        raise MorphError(f"Could not find a kernel in the system: {known}", reason=Reason.DEPLOY)
    return str(tree.resolve(name).relative_to(tree.root))


def versions_of(host: str) -> str:
    """The directory that has a machine's versions."""
    return f"{ROOT}/{host}/systems"


@dataclass(frozen=True, slots=True)
class NfsServer:
    """A server that `remote` logs in to as root. Methods that end in an error raise MorphError."""

    remote: Remote

    def check(self) -> None:
        """Refuse a machine that is no such server."""
        remote = self.remote
        remote.check_reachable()
        done = remote.script(_CHECK, EXPORTS, SERVICE, TFTP, *_NEEDED, check=False, what="checks")
        missing = done.stdout.decode("utf-8", "replace").split()
        if "exports" in missing:
            raise _error(f"{remote} is not an nfs server: it has no {EXPORTS}")
        if "service" in missing:
            raise _error(f"{remote} does not control its nfs server by systemd ({SERVICE})")
        if "tftp" in missing:
            raise _error(f"{remote} does not export {TFTP}: it has no such directory")
        if missing:
            raise _error(f"{remote} does not have {', '.join(missing)}")

    def check_names(self, host: str, label: str) -> None:
        """Refuse what would take the place of another machine's kernel."""
        link, kernel = f"{TFTP}/{host}", f"{TFTP}/{host}-{label}"
        done = self.remote.script(_CHECK_NAMES, link, kernel, what=f"looking into {TFTP}")
        if found := done.stdout.decode("utf-8", "replace").strip():
            raise _error(
                f"On {self.remote}, {found}",
                "It is another machine's, or was left when a version was removed",
            )

    @contextmanager
    def partial_version(self, host: str) -> Iterator[str]:
        """A new directory beside a machine's versions, which is removed if the block fails."""
        part = f"{versions_of(host)}/.{secrets.token_hex(6)}.morph-part"
        with self._removed_on_failure(part):
            self.remote.run("mkdir", "-p", "--", part)
            yield part

    @contextmanager
    def published(self, part: str, host: str, label: str) -> Iterator[str]:
        """Give a directory the name of a version. It is removed if the block fails."""
        place = f"{versions_of(host)}/{label}"
        self.remote.script(_PUBLISH, part, place, what=f"renaming {part} to {place}")
        with self._removed_on_failure(place):
            yield place

    @contextmanager
    def kernel_linked(self, kernel: str, host: str, label: str) -> Iterator[str]:
        """Have a kernel served by TFTP as that of a version, no more if the block fails."""
        link = f"{TFTP}/{host}-{label}"
        self.remote.run("ln", "--", kernel, link)
        with undone_on_failure(f"remove {link}", lambda: self.remote.run("rm", "-f", "--", link)):
            yield link

    @contextmanager
    def exported(self, hosts: Sequence[str], clients: tuple[str, ...]) -> Iterator[None]:
        """Let the machines mount what is theirs. What is exported already stays as it is."""
        added = [host for host in hosts if self._edit_exports(_ADD_EXPORT, host, clients)]

        def undo() -> None:
            for host in added:
                self._edit_exports(_REMOVE_EXPORT, host, clients)
            if added:
                self._read_exports()

        with undone_on_failure(f"clean up {EXPORTS}", undo):
            if added:
                self._read_exports()
            yield

    @contextmanager
    def link_set(self, link: str, target: str) -> Iterator[None]:
        """Let a link lead somewhere, and where it led before if the block fails."""
        old = self._set_link(link, target)
        with undone_on_failure(f"restore {link}", lambda: self._set_link(link, old)):
            yield

    def _set_link(self, link: str, target: str) -> str:
        """Returns where it led before; empty for no link."""
        if not target:
            self.remote.run("rm", "-f", "--", link)
            return ""
        done = self.remote.script(
            _SET_LINK, link, target, secrets.token_hex(6), what=f"linking {link} to {target}"
        )
        return done.stdout.decode("utf-8", "surrogateescape")

    def _edit_exports(self, script: str, host: str, clients: tuple[str, ...]) -> bool:
        path = f"{ROOT}/{host}"
        line = " ".join([path, *(f"{client}({OPTIONS})" for client in clients)])
        done = self.remote.script(script, ROOT, EXPORTS, path, line, what=f"editing {EXPORTS}")
        return done.stdout.strip() == b"added"

    def _read_exports(self) -> None:
        """A server that can take up new exports as it runs does: machines hang when it restarts."""
        self.remote.run("systemctl", "reload-or-restart", SERVICE)

    @contextmanager
    def _removed_on_failure(self, path: str) -> Iterator[None]:
        with undone_on_failure(
            f"remove {path}",
            lambda: self.remote.script(_REMOVE, path, what=f"removing {path}"),
        ):
            yield


def _error(message: str, hint: str | None = None) -> MorphError:
    return MorphError(message, reason=Reason.DEPLOY, hint=hint)
