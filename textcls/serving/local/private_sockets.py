"""Makes replicas and Ray's proxy listen on Unix sockets in the folder of this start, where HAProxy expects them.

In: Ray's call of `listen_privately` in each process before it listens. Out: FOLDER/PORT.sock in place of a TCP port.
Not here: HAProxy's side (haproxy_settings.py).

Any process can bind a TCP port once its owner is dead: HAProxy would send requests, and the keys in them, to that
process. Only this user can open the folder, and each start has its own. Ray has no setting for this, so the names that
its functions use are replaced. If a later Ray listens in another way, HAProxy finds no replica, and the service does
not start.
"""

import os
import socket
from types import ModuleType
from typing import Any

from textcls.on_ray import internals


def listen_privately() -> list[Any]:
    """Replaces the sockets of Ray Serve in this process. Ray calls it for a list of middlewares, which is empty."""
    sockets = ModuleType("socket")
    vars(sockets).update(vars(socket), socket=_PrivateSocket)
    internals.replace_serve_sockets(sockets, _add_port)
    return []


class _PrivateSocket(socket.socket):
    """A Unix socket named after the port, which Ray assigns to one live process of this start at a time."""

    def __init__(self, *kind: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)

    def bind(self, address: Any) -> None:
        _, port = address
        path = internals.serve_folder() / f"{port}.sock"
        path.unlink(missing_ok=True)  # left by a dead process
        super().bind(str(path))


def _add_port(server: Any, address: str) -> int:
    """Binds the gRPC server between deployments, which is unused because there is one deployment."""
    return int(server.add_insecure_port(f"unix:{internals.serve_folder()}/{os.getpid()}.grpc"))
