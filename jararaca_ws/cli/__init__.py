"""The command line: ``jararaca-ws serve module:app`` and ``jararaca-ws worker module:app``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from jararaca_ws.cli import serve, settings, worker
from jararaca_ws.cli.application import AN_APPLICATION
from jararaca_ws.cli.ending import CRASHED, EXIT_CODES, REFUSED, UNAVAILABLE, CannotRun
from jararaca_ws.errors import ConfigurationError, Unavailable

__all__ = ["main"]

_UNTIL = ", until SIGTERM or SIGINT"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    An error inside the user's own module is not ours to hide: it goes on to the caller, with its traceback.

    Raises:
        SystemExit: argparse has refused the arguments (2) or has printed a help text (0).
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except CannotRun as problem:
        return _tell(problem, problem.code)
    except ConfigurationError as refusal:
        return _tell(refusal, REFUSED)
    except Unavailable as outage:
        return _tell(outage, UNAVAILABLE)
    except KeyboardInterrupt:
        return _tell("interrupted before everything was stopped in order", CRASHED)


def _tell(problem: object, code: int) -> int:
    print("jararaca-ws:", " ".join(str(problem).splitlines()), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jararaca-ws",
        description="Run a jararaca_ws microservice.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("jararaca-ws"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_worker(commands)
    _command(commands, "settings", settings.run, "print the settings that are in force, secrets masked")
    return parser


def _add_serve(commands: Any) -> None:
    command = _command(commands, "serve", serve.run, "serve HTTP and WebSockets, with uvicorn", _UNTIL)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    command.add_argument(
        "--port", type=_whole(0, 65535), default=8000, metavar="PORT", help="port to listen on (default: %(default)s)"
    )
    command.add_argument(
        "--graceful-timeout",
        type=_whole(1),
        default=10,
        metavar="SECONDS",
        help="how long requests and connections may take to end after SIGTERM (default: %(default)s)",
    )
    command.add_argument(
        "--drain-window",
        type=_whole(0),
        metavar="SECONDS",
        help="over how long the WebSockets are closed after SIGTERM, each at a moment of its own; "
        "a second signal ends everything at once (default: drain_window of the application)",
    )
    command.add_argument(
        "--ws-max-size",
        type=_whole(1),
        metavar="BYTES",
        help="a longer inbound WebSocket message closes its connection with 1009, before it is read "
        "(default: max_message_bytes of the application)",
    )
    command.add_argument(
        "--ws-per-message-deflate",
        action="store_true",
        help="compress for the clients that offer it; off by default, because a small frame may inflate to megabytes, "
        "and because of what the size of a frame tells about the secrets in it (CRIME)",
    )


def _add_worker(commands: Any) -> None:
    command = _command(commands, "worker", worker.run, "handle the messages of the message bus", _UNTIL)
    command.add_argument(
        "--grace",
        type=_whole(0),
        default=30,
        metavar="SECONDS",
        help="how long running handlers may take to end after SIGTERM; "
        "what is not done by then goes back to its queue (default: %(default)s)",
    )


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, end: str = ""
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}{end}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("target", metavar="module:app", help=f"{AN_APPLICATION}, in that module")
    command.add_argument("--app-dir", default=".", metavar="DIR", help="where the module is (default: here)")
    command.add_argument(
        "--log-level",
        choices=("critical", "error", "warning", "info", "debug"),
        default="info",
        metavar="LEVEL",
        help="critical, error, warning, info or debug (default: %(default)s)",
    )
    return command


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else least - 1
        if number < least or (most is not None and number > most):
            bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return number

    return whole_number
