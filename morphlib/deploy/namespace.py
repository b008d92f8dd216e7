"""The namespaces that a deployment lives in.

Everything that it mounts is its own: a mount namespace, and for an ordinary user a user namespace
in which the user is uid 0 and has subordinate ids. Network, processes and IPC stay the machine's,
for deploying is about reaching other places. Root stays real root, because extensions mount disk
images.

Programs look up who they run for by uid. In a user namespace that is 0, so a changed /etc/passwd
says that uid 0 is the calling user, who then has his own home, keys and known hosts. And ssh
refuses settings that belong to neither root nor its user: as the machine's root is nobody there,
copies take their place.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from pathlib import Path

from morphlib.build import syscalls
from morphlib.build.idmaps import own_maps, user_maps
from morphlib.build.namespace import (
    NamespaceReport,
    enter_user_namespace,
    has_overlay,
    is_user_namespace,
    keep_open_files_private,
)
from morphlib.deploy.orphans import adopt_orphans
from morphlib.errors import MorphError, Reason

_PASSWD = Path("/etc/passwd")
_SSH = Path("/etc/ssh")


def enter_deploy_namespace(scratch: Path, parent: int | None = None) -> NamespaceReport:
    """Enter the namespaces of a deployment; there is no way back.

    The process must have a single thread. Afterwards it is uid 0, is told to end (SIGTERM) when its
    parent dies (`parent` is its process id, given to notice that it died before), and adopts
    orphans. `scratch` is a directory for small files. Raises MorphError (SANDBOX) where the kernel
    does not let us.
    """
    problems: list[str] = []
    passwd = _make_passwd()
    entered, many = False, True
    if os.geteuid() != 0 or not _unshare_mounts():
        uids, gids = own_maps() if os.geteuid() == 0 else user_maps(problems)
        entered = enter_user_namespace(uids, gids, syscalls.CLONE_NEWNS)
        many = len(uids) > 1 or uids[0][2] > 1
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    # Not before: the kernel forgets it when a process changes its credentials.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
    adopt_orphans()
    keep_open_files_private()
    if is_user_namespace() and entered:
        try:
            _cover_passwd(passwd, scratch / "passwd")
            _cover_ssh(scratch / "ssh")
        except OSError as error:
            raise MorphError(
                f"Can't prepare what deployments see of this machine: {error}",
                reason=Reason.SANDBOX,
            ) from error
    overlay = has_overlay()
    if not overlay:
        problems.append("This kernel has no overlayfs: run sudo modprobe overlay.")
    return NamespaceReport(overlay, many, entered, tuple(problems))


def _unshare_mounts() -> bool:
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
    except PermissionError:
        return False  # root of a container that may make no mounts, but perhaps user namespaces
    return True


def _make_passwd() -> str:
    """The machine's /etc/passwd, with the calling user as uid 0 before everybody else."""
    user = os.getuid()
    try:
        entry = pwd.getpwuid(user)
        name, gecos, home, shell = entry.pw_name, entry.pw_gecos, entry.pw_dir, entry.pw_shell
    except KeyError:
        name, gecos, shell = f"user{user}", "", "/bin/sh"
        home = os.environ.get("HOME", "/")
    try:
        others = _PASSWD.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        others = []
    kept = [line for line in others if line.partition(":")[0] != name]
    return "\n".join([f"{name}:x:0:0:{gecos}:{home}:{shell}", *kept, ""])


def _cover_passwd(text: str, file: Path) -> None:
    if not _PASSWD.is_file():
        return
    file.write_text(text, "utf-8", "surrogateescape")
    file.chmod(0o644)
    syscalls.mount(str(file), str(_PASSWD.resolve()), None, syscalls.MS_BIND)


def _cover_ssh(copy: Path) -> None:
    """Put copies of the machine's settings for ssh clients in the place of the settings."""
    if not _SSH.is_dir():
        return
    for source in (_SSH, *_SSH.rglob("*")):
        target = copy / source.relative_to(_SSH)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif source.is_file() and os.access(source, os.R_OK):
            shutil.copyfile(source, target)
            target.chmod(0o644)
    copy.chmod(0o755)
    syscalls.mount(str(copy), str(_SSH.resolve()), None, syscalls.MS_BIND)
