"""The service over HTTPS: what a client can trust, and what the rest of the machine's network can reach."""

import os
import signal
import socket
import ssl
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import CHECKOUT, Command, Running, certificates, free_port


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """(address, port) of each TCP socket that processes listen on; an IPv6 address stays in hexadecimal."""
    own = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                own.add(os.readlink(entry))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                number = bytes.fromhex(address)[::-1]
                found.add((socket.inet_ntoa(number) if table == "tcp" else address, int(port, 16)))
    return found


def test_the_service_answers_https_with_its_certificate_and_no_http(
    tiny_bundle: Path, tmp_path: Path, shell: dict[str, str]
) -> None:
    made, port = certificates(tmp_path), free_port()
    key = os.urandom(16).hex()
    command = [sys.executable, CHECKOUT / "jobs" / "serve.py", "--bundle", tiny_bundle, "--port", port]
    tls = ["--tls-cert", made.cert, "--tls-key", made.key, "--set", "serve.api_key_from=env:SERVE_KEY"]
    said = tmp_path / "said"
    with said.open("wb") as out:
        running = Running([*command, *tls], cwd=tmp_path, env=shell | {"SERVE_KEY": key}, stdout=out)
    trusted = ssl.create_default_context(cafile=str(made.authority))

    def ask(path: str, body: bytes | None = None, context: ssl.SSLContext | None = trusted) -> int:
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        scheme = "https" if context else "http"
        request = urllib.request.Request(f"{scheme}://localhost:{port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return int(answer.status)

    try:
        # A service that is told to end before it has said so ends with another status.
        running.until(lambda: "serving" in said.read_text())
        assert ask("/predict", b'{"inputs": "a great film"}') == 200
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ask("/ready", context=ssl.create_default_context())
        with pytest.raises(OSError, match=r"reset|closed|Bad Request|BadStatusLine"):
            ask("/ready", context=None)

        proxies = [pid for pid, name in running.relatives().items() if name == "haproxy"]
        assert proxies
        assert listening(proxies) == {("127.0.0.1", port)}
        # Ray's own servers, too, listen where no other machine can reach them. IPv6 writes it in another way.
        loopback = {"127.0.0.1", "0000000000000000FFFF00000100007F"}
        assert {host for host, _ in listening(list(running.relatives()))} <= loopback
        running.signal(signal.SIGTERM)
        assert running.ended().status == 0
    finally:
        running.kill()


@pytest.mark.parametrize("spoilt", ["missing", "no key", "another key"])
def test_a_certificate_that_cannot_be_used_is_told_at_once(
    spoilt: str, tiny_bundle: Path, tmp_path: Path, without_ray: Command
) -> None:
    made = certificates(tmp_path)
    (tmp_path / "other").mkdir()
    tls = {
        "missing": ["--tls-cert", tmp_path / "nowhere.pem", "--tls-key", made.key],
        "no key": ["--tls-cert", made.cert],
        "another key": ["--tls-cert", made.cert, "--tls-key", certificates(tmp_path / "other").key],
    }[spoilt]
    refused = without_ray("serve", tmp_path, "--bundle", tiny_bundle, "--port", free_port(), *tls).calmly(2)
    assert "--tls-cert" in refused.err
