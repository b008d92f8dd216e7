"""What happens on full, read-only and limited disks."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
from tests.cache.conftest import Told, key_for, publish
from tests.cache.small_disk import SCENARIOS
from tests.ordinary import ordinary_user

ROOT = Path(__file__).parents[2]
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-Urm"]


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    """The command that enters a mount namespace in which disks can be mounted."""
    command = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs a mount namespace (unprivileged ones for users): {tried.stderr}")
    return UNSHARE


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_small_disk(namespace: list[str], tmp_path: Path, scenario: str) -> None:
    command = [*namespace, sys.executable, "-m", "tests.cache.small_disk", str(tmp_path), scenario]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_cache_that_can_only_be_read_serves(namespace: list[str], tmp_path: Path) -> None:
    """A real read-only mount, for permissions mean nothing to root."""
    with ArtifactStore(tmp_path / "artifacts") as store:
        names = publish(store, key_for("a"), bins=b"one")
        os.utime(store.path(names[0]), (1, 1))
    script = f"""
import sys
from pathlib import Path
from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
store = ArtifactStore(Path({str(tmp_path / "artifacts")!r}))
key, names = {key_for("a")!r}, {names!r}
assert store.check(key, names) and store.check(key, names)
store.touch([key])
try:
    store.write_log(key, b"log")
except MorphError as error:
    assert error.reason is Reason.CACHE and "--cachedir" in (error.hint or ""), error
else:
    sys.exit("written")
"""
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    command = [*namespace, "sh", "-ec", mount, str(tmp_path), sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_directory_without_write_permission_is_an_error_with_advice() -> None:
    with ordinary_user() as directory:
        (directory / "artifacts").mkdir(mode=0o500)
        with pytest.raises(MorphError) as caught:
            ArtifactStore(directory / "artifacts").write_log(key_for("a"), b"log")
    assert caught.value.reason is Reason.CACHE
    assert caught.value.hint is not None and "--cachedir" in caught.value.hint


def _store_with_small_files(directory: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with ArtifactStore(directory, Told()) as store:
        try:
            store.write_log(key_for("a"), b"x" * 5000)
        except MorphError as error:
            assert error.reason is Reason.SPACE
            assert error.hint is not None and "ulimit" in error.hint
        else:
            raise AssertionError("written beyond the limit")
    assert os.listdir(directory) == []


def test_files_beyond_the_limit_of_the_process_are_refused(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=_store_with_small_files, args=(tmp_path / "artifacts",)
    )
    child.start()
    child.join(30)
    assert child.exitcode == 0
