from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.writeexts.remote import Remote, checked_remote_path, root_at
from morphlib.writeexts.transfer import data_size, place_file, tell_progress
from tests.sshd import DEAD, HOST, Sshd, run_sshd

REMOTE = Remote(HOST)


def nothing(done: int, size: int) -> None:
    pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with run_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def box(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    monkeypatch.setenv("PATH", server.env["PATH"])
    yield server
    for path in server.commands.iterdir():
        path.unlink()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(os.urandom(2_500_000))
        file.seek(8 << 20)
        file.write(b"end")
    return path


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory on the other side, with a name that needs quoting."""
    directory = tmp_path / "a 'b $(c)"
    directory.mkdir()
    return directory


def test_arrives_whole(box: Sshd, image: Path, there: Path) -> None:
    seen: list[tuple[int, int]] = []
    place_file(REMOTE, image, f"{there}/x.img", lambda *each: seen.append(each))
    assert (there / "x.img").read_bytes() == image.read_bytes()
    assert [path.name for path in there.iterdir()] == ["x.img"]
    assert (there / "x.img").stat().st_blocks * 512 < 3_000_000
    assert data_size(image) < 3_000_000
    assert seen[-1] == (image.stat().st_size,) * 2


def test_nothing_is_replaced(box: Sshd, image: Path, there: Path) -> None:
    (there / "x.img").write_text("precious")
    with pytest.raises(MorphError, match="exists"):
        place_file(REMOTE, image, f"{there}/x.img", nothing)
    assert (there / "x.img").read_text() == "precious"
    assert [path.name for path in there.iterdir()] == ["x.img"]


def test_no_such_directory(box: Sshd, image: Path, there: Path) -> None:
    with pytest.raises(MorphError, match=r"failed on testbox(.|\n)*(nonexistent|No such)"):
        place_file(REMOTE, image, f"{there}/not/x.img", nothing)


def test_bad_disks_are_noticed(box: Sshd, image: Path, there: Path) -> None:
    box.add_command("sha256sum", "cat >/dev/null; echo 0123  -")
    with pytest.raises(MorphError, match="is not what was sent"):
        place_file(REMOTE, image, f"{there}/x.img", nothing)
    assert not list(there.iterdir())


def test_the_other_end_may_fail(box: Sshd, image: Path, there: Path) -> None:
    box.add_command("dd", "echo no room >&2; exit 1")
    with pytest.raises(MorphError, match=r"failed on testbox(.|\n)*no room"):
        place_file(REMOTE, image, f"{there}/x.img", nothing)
    assert not list(there.iterdir())


def test_other_systems_have_no_sha256sum(
    box: Sshd, image: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphlib.writeexts.transfer._DIGEST", "exit 44")
    place_file(REMOTE, image, f"{there}/x.img", nothing)
    assert (there / "x.img").read_bytes() == image.read_bytes()


def test_nobody_there(box: Sshd, image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MorphError, match="deadbox"):
        place_file(Remote(DEAD), image, "/tmp/x.img", nothing)
    assert "can't remove" in capfd.readouterr().err


def test_this_end_may_fail(box: Sshd, image: Path, there: Path) -> None:
    def progress(done: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place_file(REMOTE, image, f"{there}/x.img", progress)
    assert not list(there.iterdir())


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines: list[str] = []
    progress = tell_progress(lines.append, "Sending")
    for done in range(100):
        now[0] += 1
        progress(done, 100)
    assert len(lines) == 10
    assert lines[4] == "Sending: 49%"


def test_the_other_side(box: Sshd, tmp_path: Path) -> None:
    REMOTE.check_reachable()
    assert REMOTE.has_program("sh")
    assert not REMOTE.has_program("no-such-program")
    assert REMOTE.is_directory("/")
    assert not REMOTE.exists(f"{tmp_path}/a b")
    (tmp_path / "a b").symlink_to("nowhere")
    assert REMOTE.exists(f"{tmp_path}/a b")
    assert REMOTE.free_space("/") > 0
    with REMOTE.temporary_directory() as path:
        assert Path(path).is_dir()
    assert not Path(path).exists()
    with pytest.raises(MorphError, match=r"Unable to SSH to deadbox: .*refused"):
        Remote(DEAD).run("true", check=False)
    with pytest.raises(MorphError, match=r"the thing failed on testbox .exit status 3.\n    why"):
        REMOTE.script("echo why >&2; exit 3", what="the thing")


def test_root_logs_in() -> None:
    assert root_at("box").host == "root@box"
    assert root_at("root@box").host == "root@box"
    with pytest.raises(MorphError, match="so me@box should be box"):
        root_at("me@box")
    with pytest.raises(MorphError, match="is no host"):
        root_at("-oProxyCommand=x")


def test_paths() -> None:
    assert checked_remote_path("/a b/c.img") == "/a b/c.img"
    for path in ("a", "", "/", "/a/", "/a//b", "/a/../b", "/./a", "/a\nb", "/\x1b[2J"):
        with pytest.raises(MorphError, match="is no plain absolute path"):
            checked_remote_path(path)
