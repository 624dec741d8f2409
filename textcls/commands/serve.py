"""`textcls serve`: serves a bundle over HTTP on this machine.

In: a command line, as `textcls serve --help` describes it. Out: an exit status when the service ends: 0 after Ctrl-C or
SIGTERM, 130 if interrupted before it was ready. Not here: the service itself (serving/local/service.py).
"""

import argparse
from collections.abc import Sequence

from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.keys import add_key_arguments, identity_file_of
from textcls.errors import InputError
from textcls.settings.recipe_file import parse_recipe
from textcls.settings.serve import ServeSpec


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=lambda _: "")


def _run(arguments: argparse.Namespace, started: float) -> None:
    spec = _spec(arguments.overrides)
    if arguments.allow_new_labels:
        spec = spec.model_copy(update={"allow_new_labels": True})
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise InputError(
            "--tls-cert and --tls-key are only valid together", todo="give both, or neither for plain HTTP"
        )
    # Ray takes seconds to import, so the arguments are checked first.
    from textcls.serving.local.haproxy import Tls
    from textcls.serving.local.service import run_service

    run_service(
        arguments.bundle,
        spec,
        host=arguments.host,
        port=arguments.port,
        say=say,
        identity_file=identity_file_of(arguments),
        tls=Tls(arguments.tls_cert, arguments.tls_key) if arguments.tls_cert else None,
        verbose=arguments.verbose,
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=command("serve"), description="Serve a bundle over HTTP on this machine.")
    parser.add_argument("--bundle", required=True, metavar="URI", help="the bundle of a training run: OUT/bundle")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all interfaces (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--tls-cert", metavar="FILE", help="certificate in PEM, with its intermediates; serves HTTPS only"
    )
    parser.add_argument("--tls-key", metavar="FILE", help="key of the certificate in PEM, without a password")
    parser.add_argument(
        "--allow-new-labels", action="store_true", help="accept a hot reload of a bundle with other labels"
    )
    add_key_arguments(parser, opens="a sealed bundle")
    return add_common_arguments(parser, overrides="override a setting of the service", key="serve.KEY=VALUE")


def _spec(overrides: Sequence[str]) -> ServeSpec:
    for override in overrides:
        if not override.strip().startswith("serve."):
            raise InputError(f"--set {override}", expected="serve.KEY=VALUE; all other settings come from the bundle")
    return parse_recipe("", overrides, source="--set").serve
