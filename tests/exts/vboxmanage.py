"""Stands in for VirtualBox's program VBoxManage: keeps state, and refuses what the real one does.

Its state is in a JSON file, which is its first argument; those of VBoxManage follow.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tests.sshd import Sshd

State = dict[str, Any]
EMPTY: State = {"version": "7.0.10r158379", "machines": {}, "interfaces": {}, "fails": ""}


def install(sshd: Sshd, state: Path) -> None:
    """Let a server have it, with a state of nothing."""
    command = shlex.join([sys.executable, __file__, str(state)])
    sshd.add_command("VBoxManage", f'exec {command} "$@"')
    state.write_text(json.dumps(EMPTY))


def refuse(message: str) -> NoReturn:
    print(f"VBoxManage: error: {message}", file=sys.stderr)
    sys.exit(1)


def options(args: list[str], known: str) -> dict[str, str]:
    """Pairs of `--name value`, all of which must be known."""
    found = {}
    while args:
        name, *args = args
        if name not in known.split():
            refuse(f"Unknown option: {name}")
        if name == "--register" or name == "--delete" or name == "--remove":
            found[name] = ""
            continue
        if not args:
            refuse(f"Missing value for {name}")
        value, *args = args
        found[name] = value
    return found


def machine(state: State, name: str, *, running: bool | None = None) -> dict[str, Any]:
    for each in state["machines"].values():
        if name in (each["uuid"], each["name"]):
            if running is not None and each["running"] != running:
                refuse(f"The machine '{name}' is {'not ' if running else 'already '}locked")
            found: dict[str, Any] = each
            return found
    refuse(f"Could not find a registered machine named '{name}'")


def create(state: State, args: list[str]) -> None:
    given = options(args, "--name --uuid --ostype --register")
    if any(each["name"] == given["--name"] for each in state["machines"].values()):
        refuse(f"Machine settings file '{given['--name']}.vbox' already exists")
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", given["--uuid"]):
        refuse("Invalid UUID")
    if "--register" not in given:
        refuse("this machine would be lost")
    state["machines"][given["--uuid"]] = {
        "name": given["--name"],
        "uuid": given["--uuid"],
        "ostype": given["--ostype"],
        "running": False,
        "settings": {},
        "controllers": {},
    }


def modify(state: State, name: str, args: list[str]) -> None:
    known = (
        "--ioapic --memory --cpus --firmware --nic1 --natnet1 --hostonlyadapter1 --nic2 --natnet2"
    )
    given = options(args, known)
    found = machine(state, name, running=False)
    if not 4 <= int(given["--memory"]) <= 2 << 20:
        refuse(f"Invalid RAM size: {given['--memory']} MB")
    adapter = given.get("--hostonlyadapter1")
    if adapter is not None and adapter not in state["interfaces"]:
        refuse(f"Nonexistent host networking interface, name '{adapter}'")
    found["settings"].update(given)


def control_storage(state: State, name: str, args: list[str]) -> None:
    major, minor = (int(part) for part in state["version"].split(".")[:2])
    count = "--portcount" if (major, minor) >= (4, 3) else "--sataportcount"
    given = options(args, f"--name --add --bootable --remove {count}")
    controllers = machine(state, name, running=False)["controllers"]
    if "--remove" in given:
        if controllers.pop(given["--name"], None) is None:
            refuse(f"Could not find a storage controller named '{given['--name']}'")
    elif given["--name"] in controllers:
        refuse(f"Storage controller named '{given['--name']}' already exists")
    else:
        controllers[given["--name"]] = {"ports": int(given[count]), "disks": {}}


def attach(state: State, name: str, args: list[str]) -> None:
    given = options(args, "--storagectl --port --device --type --medium")
    controllers = machine(state, name, running=False)["controllers"]
    if given["--storagectl"] not in controllers:
        refuse(f"Could not find a storage controller named '{given['--storagectl']}'")
    controller = controllers[given["--storagectl"]]
    if int(given["--port"]) >= controller["ports"] or given["--device"] != "0":
        refuse("The port and/or device parameter are out of range")
    path = Path(given["--medium"])
    if not path.is_file():
        refuse(f"Could not find file for the medium '{path}' (VERR_FILE_NOT_FOUND)")
    if not path.read_bytes().startswith(b"<<<"):
        refuse(f"Could not get the storage format of the medium '{path}' (VERR_NOT_SUPPORTED)")
    controller["disks"][given["--port"]] = str(path)


def convert(source: str, target: str, size: str) -> None:
    if source != "stdin":
        refuse("this reads standard input only")
    if Path(target).exists():
        refuse(f"Cannot create the disk image '{target}': VERR_ALREADY_EXISTS")
    content = sys.stdin.buffer.read(int(size))
    if len(content) != int(size):
        refuse(f"Cannot read from the source: {len(content)} bytes instead of {size}")
    Path(target).write_bytes(b"<<< Oracle VM VirtualBox Disk Image >>>\n" + content)


def unregister(state: State, name: str, args: list[str]) -> None:
    given = options(args, "--delete")
    found = machine(state, name, running=False)
    if "--delete" in given:
        for controller in found["controllers"].values():
            for path in controller["disks"].values():
                Path(path).unlink()
    del state["machines"][found["uuid"]]


def show(state: State, name: str) -> None:
    found = machine(state, name)
    print(f'name="{found["name"]}"')
    for number, controller in enumerate(found["controllers"]):
        print(f'storagecontrollername{number}="{controller}"')


def list_interfaces(state: State) -> None:
    for name, address in state["interfaces"].items():
        print(f"Name:            {name}\nDHCP:            Disabled")
        print(f"IPAddress:       {address[0]}\nNetworkMask:     {address[1]}\n")


def run(state: State, args: list[str]) -> None:
    interfaces = state["interfaces"]
    match args:
        case ["--version"]:
            print(f"WARNING: The module vboxdrv 1.2 is not loaded.\n{state['version']}")
        case ["list", "vms"]:
            for each in state["machines"].values():
                print(f'"{each["name"]}" {{{each["uuid"]}}}')
        case ["list", "hostonlyifs"]:
            list_interfaces(state)
        case ["hostonlyif", "create"]:
            name = f"vboxnet{len(interfaces)}"
            interfaces[name] = ["", ""]
            print(f"0%...100%\nInterface '{name}' was successfully created")
        case ["hostonlyif", "ipconfig", name, "--ip", address, "--netmask", mask]:
            if name not in interfaces:
                refuse(f"The host network interface named '{name}' could not be found")
            interfaces[name] = [address, mask]
        case ["hostonlyif", "remove", name]:
            del interfaces[name]
        case ["convertfromraw", source, target, size]:
            convert(source, target, size)
        case ["createvm", *rest]:
            create(state, rest)
        case ["modifyvm", name, *rest]:
            modify(state, name, rest)
        case ["storagectl", name, *rest]:
            control_storage(state, name, rest)
        case ["storageattach", name, *rest]:
            attach(state, name, rest)
        case ["startvm", name, "--type", "headless"]:
            found = machine(state, name, running=False)
            if not found["controllers"]:
                refuse("No bootable medium found")
            found["running"] = True
        case ["controlvm", name, "poweroff"]:
            machine(state, name, running=True)["running"] = False
        case ["showvminfo", name, "--machinereadable"]:
            show(state, name)
        case ["unregistervm", name, *rest]:
            unregister(state, name, rest)
        case _:
            refuse(f"Invalid command {args}")


def main() -> None:
    file, *args = sys.argv[1:]
    state = json.loads(Path(file).read_text())
    run(state, args)
    # Fails late, when it has done it: all the more is to be undone.
    Path(file).write_text(json.dumps(state))
    if state["fails"] and state["fails"] == args[0]:
        refuse("as you wish")


if __name__ == "__main__":
    main()
