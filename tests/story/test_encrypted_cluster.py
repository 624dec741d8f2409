"""A cluster whose nodes and drivers talk under TLS, as .github/SECURITY.md says: a job runs, a stranger is refused."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import ray.util

from .conftest import CHECKOUT, Running, User, as_csv, certificates, free_port, reviews, write_recipe

JOIN = """
import sys, ray
try:
    ray.init(logging_level="CRITICAL", log_to_driver=False)
except BaseException as error:
    sys.exit(f"refused: {type(error).__name__}")
print("joined", ray.get(ray.remote(lambda: 42).remote()))
"""

# What a job does before it joins.
ASK = f"""
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from textcls.command_line import exit_status
from textcls.on_ray.cluster import answering_head
sys.exit(exit_status(answering_head, interrupted=lambda: ""))
"""


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, shell: dict[str, str]) -> Iterator[User]:
    """A user with certificate and token, and 300 reviews, on a running cluster."""
    home = tmp_path_factory.mktemp("encrypted")
    # The address by which Ray calls this machine's nodes, which is never 127.0.0.1.
    address = ray.util.get_node_ip_address()
    made, port, agent = certificates(home, address), free_port(), free_port()
    (home / "token").write_text(os.urandom(32).hex())
    os.chmod(home / "token", 0o600)
    tls = {"RAY_TLS_SERVER_CERT": made.cert, "RAY_TLS_SERVER_KEY": made.key, "RAY_TLS_CA_CERT": made.authority}
    env = shell | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home / "token"), "RAY_USE_TLS": "1"}
    env |= {name: str(path) for name, path in tls.items()}
    # How long a driver tries to reach a cluster that does not let it in.
    env |= {"RAY_gcs_rpc_server_connect_timeout_s": "5", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
        *(f"--port={port}", f"--node-ip-address={address}", f"--dashboard-agent-listen-port={agent}"),
        *("--include-dashboard=false", "--object-store-memory=200000000", "--disable-usage-stats"),
    ]
    log = home / "node.log"
    with open(log, "wb") as output:
        node = Running(command, cwd=home, env=env, stdout=output, stderr=output)
    try:
        node.until(lambda: b"Ray runtime started" in log.read_bytes())
        write_recipe(home, tiny_model_dir, csv="reviews.csv")
        user = User(home, env | {"RAY_ADDRESS": f"{address}:{port}"})
        user.csv("reviews.csv", as_csv(reviews(300)))
        yield user
    finally:
        node.kill()


def _joins(user: User, *scripts: str, **changed: str | None) -> list[tuple[int, str]]:
    """(exit status, output) of each script in a driver of its own, all at the same time."""
    env = {name: value for name, value in (user.shell | changed).items() if value is not None}
    drivers = [Running([sys.executable, "-c", script], cwd=user.home, env=env) for script in scripts]
    try:
        ended = [driver.ended() for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    return [(one.status, one.out + one.err) for one in ended]


def test_a_job_with_certificate_and_token_runs(member: User) -> None:
    assert _joins(member, JOIN) == [(0, "joined 42\n")]


def test_a_token_in_the_home_directory_is_used(member: User, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text((member.home / "token").read_text())
    env = {name: value for name, value in member.shell.items() if not name.startswith("RAY_AUTH")}
    ended = User(member.home, env | {"HOME": str(tmp_path)}).trains("--dry-run")
    assert ended.status == 0, ended
    assert "300 = train 210 + val 30 + test 60" in ended.out


@pytest.mark.parametrize("without", ["certificate", "token"])
def test_a_driver_without_certificate_or_token_is_refused(without: str, member: User, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(os.urandom(32).hex())
    changed = {"certificate": {"RAY_USE_TLS": None}, "token": {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}}
    (joined, output), (asked, told) = _joins(member, JOIN, ASK, **changed[without])
    assert joined != 0
    assert "joined" not in output
    why = {"certificate": "no Ray cluster answers", "token": "refuses this token"}
    assert (asked, why[without] in told) == (2, True), told


def test_a_driver_with_another_authority_s_certificate_is_refused(member: User, tmp_path: Path) -> None:
    other = certificates(tmp_path, ray.util.get_node_ip_address())
    cert = {"RAY_TLS_SERVER_CERT": str(other.cert), "RAY_TLS_SERVER_KEY": str(other.key)}
    ((status, told),) = _joins(member, JOIN, **cert)
    assert status != 0
    assert "joined" not in told
