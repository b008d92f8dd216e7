"""A host with libvirt: the real one, for machines that QEMU emulates.

An ssh server and a libvirtd in namespaces of their own, which have a copy of this machine's /etc
and nothing of its libvirt. Needs root, for the mounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.sshd import Sshd, run_sshd

# When the server is told to end, all that runs in there ends with it.
_START = r"""
enter=$1
shift
unshare --mount --pid --fork --kill-child --mount-proc sh -euc "$enter" sh "$@" &
child=$!
trap 'kill -KILL "$child"' TERM
wait "$child"
"""
_ENTER = r"""
rm -rf "$1/etc"
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
shift
mount -t tmpfs tmpfs /run
mkdir /run/sshd
for each in cache lib log; do
    mkdir -p "/var/$each/libvirt"
    mount -t tmpfs tmpfs "/var/$each/libvirt"
done
rm -rf /etc/libvirt
mkdir /etc/libvirt
grep -q ^libvirt-qemu: /etc/passwd || echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >>/etc/passwd
grep -q ^libvirt-qemu: /etc/group || echo 'libvirt-qemu:x:64055:' >>/etc/group
cat >/etc/libvirt/qemu.conf <<'END'
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
END
echo 'auth_unix_rw = "none"' >/etc/libvirt/libvirtd.conf
[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm
/usr/sbin/libvirtd --daemon
exec "$@"
"""
_NETWORK = """<network>
<name>lan</name><forward mode="bridge"/><bridge name="morph-test0"/>
</network>"""


@contextmanager
def run_libvirt_box(directory: Path) -> Iterator[Sshd]:
    """Run a host whose libvirt has no machines, and a network `lan` that is not started."""
    start: list[str | Path] = ["sh", "-c", _START, "sh", _ENTER, directory]
    with run_sshd(directory / "sshd", start=start) as sshd:
        network = directory / "network.xml"
        network.write_text(_NETWORK)
        waiting = "until virsh list >/dev/null 2>&1; do sleep 0.1; done"
        sshd.login("timeout", "60", "sh", "-c", waiting)
        sshd.login("virsh", "net-define", network)
        yield sshd
