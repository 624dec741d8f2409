"""A cluster that cannot be joined gives one clear error within 10 s; a local Ray has a token."""

import http.server
import os
import re
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from textcls.errors import InputError, RayStartError, StorageError
from textcls.on_ray import cluster, session
from textcls.on_ray.cluster import answering_head, attached, ensure_own_token


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """None: what does not answer at once does not answer."""
    monkeypatch.setattr(cluster, "_ANSWER_S", 1.0)
    monkeypatch.setattr(cluster, "_PAUSE_S", 0.6)


@contextmanager
def head(status: grpc.StatusCode | None = None) -> Iterator[str]:
    """HOST:PORT of what a driver first asks of a head, which refuses with a status."""

    class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):  # type: ignore[misc]
        def GetClusterId(self, request: Any, context: grpc.ServicerContext) -> Any:
            if status is not None:
                context.abort(status, "InvalidAuthToken")
            return gcs_service_pb2.GetClusterIdReply(cluster_id=b"1" * 28)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Head(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@contextmanager
def website() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silence() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


@contextmanager
def nothing() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, and not listened to
        yield "{}:{}".format(*free.getsockname())


@contextmanager
def nowhere() -> Iterator[str]:
    yield "no-such-machine.invalid:6379"


def refused(address: str, monkeypatch: pytest.MonkeyPatch) -> InputError:
    monkeypatch.setenv("RAY_ADDRESS", address)
    # Ray takes 127.0.0.1 for the machine's own address, on which the tests' servers do not listen.
    monkeypatch.setattr("ray._private.services.resolve_ip_for_localhost", lambda host: host)
    with pytest.raises(InputError) as error:
        answering_head()
    assert address in error.value.found
    assert "RAY_ADDRESS" in error.value.todo or "RAY_AUTH_TOKEN_PATH" in error.value.todo
    if "unset RAY_ADDRESS" in error.value.todo:
        with monkeypatch.context() as followed:
            followed.delenv("RAY_ADDRESS")
            assert not attached(), "the job then runs on this machine"
    return error.value


def test_a_head_that_answers_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.services.resolve_ip_for_localhost", lambda host: host)
    with head() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert answering_head() == address


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (nothing, "no Ray cluster answers there"),
        (nowhere, "no Ray cluster answers there"),
        (silence, "no Ray cluster answers there"),
        (website, "no Ray cluster answers there|is no head of a Ray cluster"),
        (lambda: head(grpc.StatusCode.UNIMPLEMENTED), "is no head of a Ray cluster"),
        (lambda: head(grpc.StatusCode.UNAUTHENTICATED), "asks for a token"),
    ],
    ids=["closed port", "unknown host", "silent port", "another server", "another gRPC server", "token"],
)
def test_what_is_wrong_with_an_address_is_told(place: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with place() as address:
        assert re.search(told, refused(address, monkeypatch).found)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://127.0.0.1:10001", "client port"),
        ("http://127.0.0.1:8265", "HTTP port"),
        ("nonsense", "nonsense"),
        ("127.0.0.1:port", "127.0.0.1:port"),
    ],
)
def test_an_address_that_is_no_head_s_is_told(address: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told in refused(address, monkeypatch).found


@pytest.mark.parametrize("cert", ["/nonexistent/node.pem", None])
def test_certificates_that_are_not_there_are_told(cert: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setenv("RAY_USE_TLS", "1")
    for name in ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"):
        monkeypatch.setenv(name, cert) if cert else monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"RAY_USE_TLS is set: .*(nonexistent|environment variable)"):
        answering_head()
    monkeypatch.delenv("RAY_USE_TLS")
    assert "RAY_USE_TLS is set" not in str(refused("127.0.0.1:1", monkeypatch))


def test_auto_where_no_ray_runs_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: set())
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda temp_dir: None)
    assert "no Ray runs on this machine" in refused("auto", monkeypatch).found


@pytest.mark.parametrize(("address", "joins"), [("", False), ("local", False), ("auto", True), ("10.0.0.1:6379", True)])
def test_a_job_joins_where_ray_address_names_a_cluster(
    address: str, joins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert attached() == joins


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 2.9.0"), InputError, "Ray: 2.9.0"),
        (ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"), InputError, "not joined"),
        (PermissionError(13, "Permission denied", "/tmp/ray"), StorageError, "RAY_TMPDIR"),
        (AssertionError("a bug"), None, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_ray_s_own_that_the_user_can_mend_says_how(
    error: Exception, kind: type[Exception] | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = session._refusal(error)
    assert type(found) is (kind or type(None))
    assert told in str(found)


@pytest.mark.parametrize("slow", [1, 2])
def test_ray_is_started_again_where_a_busy_machine_was_too_slow(slow: int) -> None:
    outcomes = [Exception("The current node timed out during startup.")] * slow + [None]

    def init() -> None:
        if error := outcomes.pop(0):
            raise error

    session._start(init)
    assert not outcomes


def test_a_machine_that_is_always_too_slow_is_told_and_no_other_error_is_tried_again() -> None:
    starts = 0

    def init(error: Exception) -> None:
        nonlocal starts
        starts += 1
        raise error

    with pytest.raises(RayStartError, match="3 attempts"):
        session._start(lambda: init(Exception("The current node timed out during startup.")))
    assert starts == 3
    with pytest.raises(AssertionError, match="a bug"):
        session._start(lambda: init(AssertionError("a bug")))
    assert starts == 4


# --- the token of a Ray of one's own ---------------------------------------------------------------------------------


@pytest.fixture
def without_token(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that what is set is undone
    return monkeypatch


def test_without_a_home_ray_has_a_token_that_is_saved_nowhere(
    without_token: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_token.setenv("HOME", str(tmp_path / "nonexistent"))
    ensure_own_token()
    token = os.environ["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    ensure_own_token()
    assert os.environ["RAY_AUTH_TOKEN"] == token
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_name_has_a_token_too(without_token: pytest.MonkeyPatch) -> None:
    def nameless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    without_token.setattr(Path, "home", nameless)
    ensure_own_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_in_a_home_the_token_is_ray_s_to_make(without_token: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_token.setenv("HOME", str(tmp_path))
    ensure_own_token()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    ensure_own_token()
    assert not os.environ["RAY_AUTH_TOKEN"]


def test_where_tokens_are_off_none_is_made(without_token: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_token.setenv("HOME", str(tmp_path / "nonexistent"))
    without_token.setenv("RAY_AUTH_MODE", "disabled")
    ensure_own_token()
    assert not os.environ["RAY_AUTH_TOKEN"]
