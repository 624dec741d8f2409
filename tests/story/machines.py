"""Machines for tests: network namespaces of this one, on a switch.

Each has an address of its own, a loopback and all ports to itself, and reaches of the others only what listens on
their addresses. No rights are needed where the kernel lets anybody make user namespaces. Nothing of this machine's own
network is changed.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_NETWORK = "10.77.0."
# Opens a port and hands it over: a socket stays in the namespace that it was made in.
_LISTEN = """
import socket, sys
port = socket.create_server((sys.argv[1], int(sys.argv[2])))
socket.send_fds(socket.socket(fileno=0), [b"-"], [port.fileno()])
"""


class Machine:
    """A network namespace; it lives as long as the process that holds it.

    Args:
        host: number of its address in the network.
        create: what runs a command in a new namespace.
    """

    def __init__(self, host: int, create: list[str]) -> None:
        self.address = f"{_NETWORK}{host}"
        self._holder = subprocess.Popen([*create, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        with suppress(BrokenPipeError):
            self._holder.stdin.write(b"there?\n")
            self._holder.stdin.flush()
        assert self._holder.stdout.readline(), f"no network namespace: {' '.join(create)}"
        self.pid = self._holder.pid

    def inside(self, *command: Any) -> list[str]:
        """The command line that runs a command on this machine."""
        enter = ["nsenter", f"--target={self.pid}", "--user", "--net", "--preserve-credentials", "--"]
        return [*enter, *map(str, command)]

    def configure(self, *commands: str) -> None:
        """Runs commands of `ip`."""
        script = "set -e; " + "; ".join(f"ip {command}" for command in commands)
        subprocess.run(self.inside("sh", "-c", script), check=True, timeout=60)

    def listens(self, port: int) -> socket.socket:
        """A socket of this process that listens on this machine's address."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = self.inside(sys.executable, "-c", _LISTEN, self.address, port)
            subprocess.run(command, stdin=theirs, check=True, timeout=60)
            _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=descriptor)

    def processes(self) -> list[int]:
        """Pids of all that runs on it."""

        def network(pid: int | str) -> str:
            with suppress(OSError):
                return os.readlink(f"/proc/{pid}/ns/net")
            return ""

        mine = network(self.pid)
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mine and network(entry.name) == mine]
        return [pid for pid in pids if pid != self.pid]

    def kill(self) -> None:
        """Ends all that runs on it, as a power cut does, and the machine itself."""
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._holder.communicate()


class Network:
    """A switch, itself a machine for whatever is no node, and machines on it."""

    def __init__(self, machines: int) -> None:
        self.outside = Machine(1, ["unshare", "--user", "--map-root-user", "--net"])
        self.machines: list[Machine] = []
        try:
            self.outside.configure(
                "link set lo up",
                "link add switch type bridge",
                f"address add {self.outside.address}/24 dev switch",
                "link set switch up",
            )
            for _ in range(machines):
                self._plug_in(len(self.machines) + 2)
        except BaseException:
            self.kill()
            raise

    def _plug_in(self, host: int) -> None:
        machine = Machine(host, self.outside.inside("unshare", "--net"))
        self.machines.append(machine)
        self.outside.configure(
            f"link add port{host} type veth peer name eth0 netns {machine.pid}",
            f"link set port{host} master switch up",
        )
        machine.configure(
            "link set lo up",
            f"address add {machine.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.outside.address}",
        )

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Ends all machines and all that runs on them."""
        for machine in [*self.machines, self.outside]:
            machine.kill()
