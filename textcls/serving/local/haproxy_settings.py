"""Ray's settings of HAProxy, corrected for the service of one machine. Runs in place of HAProxy, then becomes it.

In: `python haproxy_settings.py WANTED.json -db -f SETTINGS ...`: a `Wanted` as JSON, and HAProxy's own arguments.
Out: SETTINGS corrected, and HAProxy in this process; or exit status 1, and the reason on stderr and in `Wanted.failed`.
Not here: who writes SETTINGS (Ray, at each change of replicas) and WANTED (haproxy.py).

HAProxy is started at every change, beside replicas that need the CPUs: standard library only, and no site-packages
(0.04 s of a CPU, where `sed` took 0.003).

Ray's template binds statistics to every network, knows no TLS, and reaches replicas by TCP ports that another process
can hold as soon as a replica is dead. Here everything but the public address is a Unix socket in a folder of this
start, which nobody else can open.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Wanted(NamedTuple):
    """What the service wants of HAProxy.

    Attributes:
        haproxy: path of the program.
        folder: for the sockets.
        host: public address.
        port: public port.
        tls: what follows the public address, to answer HTTPS; empty for HTTP.
        rules: rules of each backend of replicas.
        refusal: `http-request return` and `http-response return` take these words to say that no replica can answer.
        error: file with that answer as it goes over the wire.
        served: a file that exists once a replica has answered.
        failed: file for the reason why HAProxy was not started: {"kind": "settings" or "address", "found": ...}.
    """

    haproxy: str
    folder: str
    host: str
    port: int
    tls: str
    rules: list[str]
    refusal: str
    error: str
    served: str
    failed: str


class Unmatched(Exception):
    """Ray's settings are not those that the corrections are made for."""


class Correction(NamedTuple):
    """New lines in place of some of a section's.

    Attributes:
        lines: pattern of the lines that it is for, each of which must match `pattern`.
        pattern: of a whole line.
        new: from a match to the lines that replace it.
        times: how many lines there have to be; None for any number.
    """

    lines: str
    pattern: str
    new: Callable[[re.Match[str]], list[str]]
    times: int | None = 1


def corrected(settings: str, wanted: Wanted) -> str:
    """Ray's settings, corrected.

    Raises:
        Unmatched: a correction does not fit, or there is a section that is not known.
    """
    out: list[str] = []
    seen = set()
    for title, lines in _sections(settings):
        kind = title.rstrip("0123456789") if title in ("global", "defaults") else title
        known = [name for name in _TITLES if re.fullmatch(name, kind)]
        if not known:
            raise Unmatched(f"a section {title!r}, which is not known")
        seen.add(known[0])
        out += [title, *_corrected_section(title, lines, _corrections(known[0], wanted))]
        if known[0] == "global" and os.path.exists(wanted.served):
            out.append("    set-var proc.served bool(true)")
        if known[0] == _REPLICAS:
            out += _until_served(title.split()[1], out, wanted)
    missing = [name for name in _TITLES if name not in seen and name != _REPLICAS]
    if missing:
        raise Unmatched(f"no section {missing[0]!r}")
    return "\n".join(out) + "\n"


_REPLICAS = r"backend http-\S+"
_TITLES = (
    "global",
    "defaults",
    "frontend prometheus",
    "frontend http_frontend",
    "backend default_backend",
    _REPLICAS,
    "listen stats",
)


def _corrections(title: str, wanted: Wanted) -> list[Correction]:
    """Those of a section."""
    bind = r"^\s*bind "

    def private(name: str) -> Correction:
        return Correction(bind, r"(\s*bind) \S+", lambda found: [f"{found[1]} {_socket(wanted, name)}"])

    def public(found: re.Match[str]) -> list[str]:
        return [f"{found[0]} {wanted.tls}".rstrip(), f"{found[1]}bind {_socket(wanted, 'front')}"]

    def server(found: re.Match[str]) -> list[str]:
        return [f"{found[1]} {_socket(wanted, found[2])} {found[3]}"]

    def refused(found: re.Match[str]) -> list[str]:
        return ["    option httpclose", f"    http-request return {wanted.refusal}"]

    def ruled(found: re.Match[str]) -> list[str]:
        # An answer without this header is not a replica's own, but Ray's.
        own = [
            "http-response set-var(proc.served) bool(true) if { status 200 }",
            f"http-response return {wanted.refusal} if !{{ res.hdr(x-content-type-options) -m found }}",
        ]
        return [found[0], *(f"    {rule}" for rule in (*wanted.rules, *own))]

    return {
        # Another process could hold the port of the log, too.
        "global": [Correction(r"^\s*log ", r"\s*log \S+ local0 info", lambda found: [])],
        "defaults": [
            Correction(
                r"^\s*errorfile ", r"(\s*errorfile 50[234]) \S+", lambda found: [f"{found[1]} {wanted.error}"], 3
            )
        ],
        "frontend prometheus": [private("prometheus")],
        "frontend http_frontend": [Correction(bind, rf"(\s*)bind \S+:{wanted.port}", public)],
        "backend default_backend": [Correction(r"^\s*\S", r"\s*http-request return status 404 .*", refused)],
        _REPLICAS: [
            Correction(r"http-reuse", r"\s*http-reuse always", ruled),
            Correction(r"^\s*server ", r"(\s*server \S+) \S+:(\d+) (check.*)", server, None),
        ],
        "listen stats": [private("statistics")],
    }[title]


def _socket(wanted: Wanted, name: str) -> str:
    return f"unix@{wanted.folder}/{name}.sock"


def _until_served(backend: str, lines: list[str], wanted: Wanted) -> list[str]:
    """Rules by which nobody waits for the first replica: Ray's proxy, the backup, would keep requests for minutes."""
    names = [found[1] for line in lines if (found := re.match(r"\s*server (\S+) (?!.* backup$)", line))]
    up = ["always_false", *(f"srv_is_up({backend}/{name})" for name in names)]
    acls = [f"    acl a_replica_is_up {test}" for test in up]
    return [*acls, f"    http-request return {wanted.refusal} if !{{ var(proc.served) -m bool }} !a_replica_is_up"]


def _sections(settings: str) -> list[tuple[str, list[str]]]:
    """(title, lines) of each."""
    found: list[tuple[str, list[str]]] = []
    for line in settings.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            found.append((line.rstrip(), []))
        elif found:
            found[-1][1].append(line)
    return found


def _corrected_section(title: str, lines: list[str], corrections: list[Correction]) -> list[str]:
    counts = [0] * len(corrections)
    out = []
    for line in lines:
        new = [line]
        for place, correction in enumerate(corrections):
            if line.lstrip().startswith("#") or not re.search(correction.lines, line):
                continue
            found = re.fullmatch(correction.pattern, line.rstrip())
            if found is None:
                raise Unmatched(f"in the section {title!r} the line {line.strip()!r}, not {correction.pattern!r}")
            counts[place] += 1
            new = correction.new(found)
        out += new
    for correction, count in zip(corrections, counts, strict=True):
        if correction.times is not None and count != correction.times:
            expected = f"{correction.times} lines {correction.pattern!r}"
            raise Unmatched(f"in the section {title!r} {count} of {expected}")
    return out


def main(argv: list[str]) -> None:
    """Corrects the settings, and becomes HAProxy."""
    with open(argv[0], encoding="utf-8") as file:
        wanted = Wanted(**json.load(file))
    arguments = argv[1:]
    path = arguments[arguments.index("-f") + 1]
    try:
        with open(path, encoding="utf-8") as file:
            settings = corrected(file.read(), wanted)
    except Unmatched as error:
        sys.exit(_failed(wanted, kind="settings", found=str(error)))
    if "-sf" not in arguments:  # the first of this start: nobody may hold the address yet
        import socket

        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((wanted.host, wanted.port))
        except OSError as error:
            sys.exit(_failed(wanted, kind="address", found=error.strerror or str(error)))
    with open(path, "w", encoding="utf-8") as file:
        file.write(settings)
    os.execv(wanted.haproxy, [wanted.haproxy, *arguments])


def _failed(wanted: Wanted, **why: Any) -> str:
    """Leaves the reason for the service; returns it for people."""
    new = f"{wanted.failed}.new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(why, file)
    os.replace(new, wanted.failed)
    return f"{why['kind']}: {why['found']}"


if __name__ == "__main__":
    main(sys.argv[1:])
