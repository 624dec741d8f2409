"""Whether the cluster that RAY_ADDRESS names can be joined, and the token of a local Ray.

In: the environment. Out: an address that answers, or an error that says what is wrong with it. Not here: connecting
(session.py).

Ray itself tries to reach a head for minutes, and then reports no more than the failure. So one request is sent before.
"""

import os
import secrets
import time
from pathlib import Path

from textcls.errors import InputError
from textcls.on_ray import internals

# How long a head may take to answer or, if nothing listens there, to restart.
_ANSWER_S = 10.0
_PAUSE_S = 1.0
_TOKEN_PLACES = "in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"
_TLS_FILES = "readable PEM files of a certificate, its key, and the authority of the cluster"
_ELSEWHERE = "unset RAY_ADDRESS to run on this machine alone"


def attached() -> bool:
    """Whether this process belongs to a running cluster (`ray job submit` and `RAY_ADDRESS=auto` say so)."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def answering_head() -> str:
    """HOST:PORT of the head that RAY_ADDRESS names, once it has answered; sends a token if there is one.

    Raises:
        InputError: not the address of a head, no answer or not a head's, or a token that the head rejects.
    """
    from ray.exceptions import AuthenticationError

    asked = os.environ["RAY_ADDRESS"]
    try:
        internals.enable_existing_token()
        address = _found(asked)
        asked = f"auto, which leads to {address}" if asked == "auto" else asked
        _ask(asked, address)
    except AuthenticationError as error:
        raise _no_entry(asked, str(error).partition(". ")[0]) from None
    return address


def ensure_own_token() -> None:
    """Gives a local Ray a token for this process alone, if no home directory exists to save one in.

    With a home directory Ray saves its token in ~/.ray, where users of the dashboard find it.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")) and not _home_has_token():
        internals.set_auth_token(secrets.token_hex(32))


def _home_has_token() -> bool:
    """Whether the home directory has a readable token, or can have one."""
    try:
        folder = Path.home() / ".ray"
        token = folder / "auth_token"
        if token.exists():
            return os.access(token, os.R_OK)
        folder.mkdir(exist_ok=True)
        return os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # RuntimeError: a user without a name
        return False


def _found(asked: str) -> str:
    """HOST:PORT of the address that a user wrote."""
    if "://" in asked:
        raise InputError(
            f"RAY_ADDRESS is {asked}: a job joins a cluster as one of its nodes, not through its "
            f"{'client' if asked.startswith('ray:') else 'HTTP'} port",
            expected="HOST:PORT of the head's own port, 6379 by default, or auto on a node of the cluster",
            todo=f"hand the job to the cluster with `ray job submit`, or {_ELSEWHERE}",
        )
    try:
        found = internals.head_address(asked)
    except ConnectionError:
        found = None
    except (ValueError, OSError) as error:
        raise InputError(
            f"RAY_ADDRESS is {asked}: {error}",
            expected="HOST:PORT of a cluster's head, or auto on a node of the cluster",
            todo=_ELSEWHERE,
        ) from None
    if found is None:
        raise InputError(
            f"RAY_ADDRESS is {asked}, and no Ray runs on this machine",
            todo=f"`ray start --head` starts one; or {_ELSEWHERE}",
        )
    return found


def _ask(asked: str, address: str) -> None:
    """Requests the cluster's id from the head, as any driver does first."""
    import grpc

    try:
        channel = internals.head_channel(address)
    except (OSError, RuntimeError) as error:
        todo = "name the files of this machine's certificate, or unset RAY_USE_TLS"
        raise InputError(f"RAY_USE_TLS is set: {error}", expected=f"RAY_TLS_*: {_TLS_FILES}", todo=todo) from None
    given_up = time.monotonic() + _ANSWER_S
    with channel:
        while True:
            left = given_up - time.monotonic()
            try:
                internals.request_cluster_id(channel, timeout_s=max(left, _PAUSE_S))
                return
            except grpc.RpcError as error:
                code, details = error.code(), error.details() or ""
            if code is not grpc.StatusCode.UNAVAILABLE or left < _PAUSE_S:
                break
            time.sleep(_PAUSE_S)  # the head may be starting, and offers no notification
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        raise _no_entry(asked, f"the cluster {'refuses this token' if _shows_token() else 'asks for a token'}")
    silent = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    what = "no Ray cluster answers there" if silent else "what answers there is no head of a Ray cluster"
    raise InputError(
        f"RAY_ADDRESS is {asked}: {what} ({details or code.name})",
        expected="HOST:PORT of a running cluster's head; RAY_USE_TLS=1 and its certificates if the cluster has them",
        todo=f"look at the address and the network between; or {_ELSEWHERE}",
    )


def _shows_token() -> bool:
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def _no_entry(asked: str, why: str) -> InputError:
    return InputError(
        f"RAY_ADDRESS is {asked}: {why}",
        expected=f"RAY_AUTH_MODE=token and the cluster's token: {_TOKEN_PLACES}",
        todo="export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE, a copy of the cluster's token",
    )
