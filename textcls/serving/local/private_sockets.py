"""Replicas and Ray's proxy listen on Unix sockets in the folder of this start, where HAProxy looks for them.

In: Ray's call of `listen_privately` in each process that is about to listen. Out: FOLDER/PORT.sock in place of a TCP
port. Not here: HAProxy's side (haproxy_settings.py).

A port is free for anyone as soon as its process is dead: HAProxy would send requests, and the keys in them, to whoever
takes it. The folder can be entered by this user alone, and each start has another one. Ray has no setting for it, so
what its functions use is replaced; if Ray listens in another way one day, HAProxy finds no replica, and the service
does not start.
"""

import os
import socket
from types import ModuleType
from typing import Any

from textcls.on_ray import internals


def listen_privately() -> list[Any]:
    """Replaces that by which Ray Serve listens in this process; no middlewares, which Ray calls it for."""
    sockets = ModuleType("socket")
    vars(sockets).update(vars(socket), socket=_PrivateSocket)
    internals.replace_serve_sockets(sockets, _add_port)
    return []


class _PrivateSocket(socket.socket):
    """A Unix socket that is named by the port, which Ray gives to one living process of this start at a time."""

    def __init__(self, *kind: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)

    def bind(self, address: Any) -> None:
        _, port = address
        path = internals.serve_folder() / f"{port}.sock"
        path.unlink(missing_ok=True)  # of a process that is dead
        super().bind(str(path))


def _add_port(server: Any, address: str) -> int:
    """Of the gRPC server between deployments, which nobody asks here: there is one deployment."""
    return int(server.add_insecure_port(f"unix:{internals.serve_folder()}/{os.getpid()}.grpc"))
