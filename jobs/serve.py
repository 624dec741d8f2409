"""Serves a bundle over HTTP on this machine: `python jobs/serve.py --bundle URI`.

Exit status: 0 ended as it was told, by Ctrl-C or SIGTERM; 2 the input is at fault, running it again will not help;
130 interrupted before it served; 1 anything else.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# `python jobs/serve.py` puts jobs/ on the path, not the checkout it lies in.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.command_line import add_common_arguments, exit_status, say
from textcls.errors import InputError
from textcls.recipe import ServeSpec
from textcls.recipe_file import parse_recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: _run(arguments), interrupted=lambda: "")


def _run(arguments: argparse.Namespace) -> None:
    spec = _spec(arguments.overrides)
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise InputError("--tls-cert and --tls-key go together", todo="name both, or neither for plain HTTP")
    # Ray takes seconds to import: only once the arguments are known to be good.
    from textcls.serving.haproxy import Tls
    from textcls.serving.local_service import run_service

    run_service(
        arguments.bundle,
        spec,
        host=arguments.host,
        port=arguments.port,
        say=say,
        tls=Tls(arguments.tls_cert, arguments.tls_key) if arguments.tls_cert else None,
        verbose=arguments.verbose,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Serve a bundle over HTTP on this machine.")
    parser.add_argument("--bundle", required=True, metavar="URI", help="what a run left in --out, under bundle")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (%(default)s)")
    parser.add_argument("--tls-cert", metavar="FILE", help="PEM: answer HTTPS with this certificate")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM: its key, without a password")
    return add_common_arguments(parser, overrides="a setting of the service", key="serve.KEY=VALUE")


def _spec(overrides: Sequence[str]) -> ServeSpec:
    for override in overrides:
        if not override.strip().startswith("serve."):
            raise InputError(f"--set {override}", expected="serve.KEY=VALUE; a bundle's other settings are its own")
    return parse_recipe("", overrides, source="--set").serve


if __name__ == "__main__":
    sys.exit(main())
