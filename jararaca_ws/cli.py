"""The command line: ``jararaca-ws serve module:app`` and ``jararaca-ws worker module:app``."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import importlib
import inspect
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.metadata import version
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.types import ASGIApp

from jararaca_ws.configuring import unknown_variables
from jararaca_ws.errors import ConfigurationError, Unavailable
from jararaca_ws.lifespan import WatchedLifespan
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messagebus.worker import MessageBusWorker
from jararaca_ws.microservice import Microservice, create_http_server
from jararaca_ws.settings import WebSocketSettings

if TYPE_CHECKING:
    import uvicorn

__all__ = ["main"]

_STOPPED, _CRASHED, _USAGE, _REFUSED, _UNAVAILABLE = range(5)

_AN_APPLICATION = "a Microservice, or a FastAPI application"
_UNTIL = ", until SIGTERM or SIGINT"
_EXIT_CODES = """\
exit codes:
  0  stopped as asked, by SIGTERM or SIGINT (Ctrl-C)
  1  crashed while running
  2  wrong arguments, or nothing to run there: no such module, no such attribute, not an application
  3  the application's configuration was refused
  4  something that it needs at start-up cannot be had: Redis, the broker, or the port to listen on
"""


class _CannotRun(Exception):
    """What is said in one line, without a traceback, before the process ends with ``code``."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code


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
    except _CannotRun as problem:
        return _tell(problem, problem.code)
    except ConfigurationError as refusal:
        return _tell(refusal, _REFUSED)
    except Unavailable as outage:
        return _tell(outage, _UNAVAILABLE)
    except KeyboardInterrupt:
        return _tell("interrupted before everything was stopped in order", _CRASHED)


def _tell(problem: object, code: int) -> int:
    print("jararaca-ws:", " ".join(str(problem).splitlines()), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jararaca-ws",
        description="Run a jararaca_ws microservice.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("jararaca-ws"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_worker(commands)
    _command(commands, "settings", _print_settings, "print the settings that are in force, secrets masked")
    return parser


def _add_serve(commands: Any) -> None:
    serve = _command(commands, "serve", _serve, "serve HTTP and WebSockets, with uvicorn", _UNTIL)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument(
        "--port", type=_whole(0, 65535), default=8000, metavar="PORT", help="port to listen on (default: %(default)s)"
    )
    serve.add_argument(
        "--graceful-timeout",
        type=_whole(1),
        default=10,
        metavar="SECONDS",
        help="how long requests and connections may take to end after SIGTERM (default: %(default)s)",
    )
    serve.add_argument(
        "--drain-window",
        type=_whole(0),
        metavar="SECONDS",
        help="over how long the WebSockets are closed after SIGTERM, each at a moment of its own; "
        "a second signal ends everything at once (default: drain_window of the application)",
    )
    serve.add_argument(
        "--ws-max-size",
        type=_whole(1),
        metavar="BYTES",
        help="a longer inbound WebSocket message closes its connection with 1009, before it is read "
        "(default: max_message_bytes of the application)",
    )
    serve.add_argument(
        "--ws-per-message-deflate",
        action="store_true",
        help="compress for the clients that offer it; off by default, because a small frame may inflate to megabytes, "
        "and because of what the size of a frame tells about the secrets in it (CRIME)",
    )


def _add_worker(commands: Any) -> None:
    worker = _command(commands, "worker", _worker, "handle the messages of the message bus", _UNTIL)
    worker.add_argument(
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
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("target", metavar="module:app", help=f"{_AN_APPLICATION}, in that module")
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


def _load(target: str, app_dir: str) -> object:
    """Import what ``module:attribute`` names."""
    name, _, attribute = target.partition(":")
    if not name or not attribute:
        raise _CannotRun(_USAGE, f"{target!r} is not of the form module:attribute, for example server:app")
    module = _import(name, Path(app_dir).resolve())
    if not hasattr(module, attribute):
        applications = [name for name, value in vars(module).items() if _microservice(value) or _is_asgi(value)]
        meant = difflib.get_close_matches(attribute, applications) or applications
        hint = f": did you mean {' or '.join(meant)}?" if meant else ""
        raise _CannotRun(_USAGE, f"the module {name!r} has no attribute {attribute!r}{hint}")
    return getattr(module, attribute)


def _import(name: str, app_dir: Path) -> ModuleType:
    if not app_dir.is_dir():
        raise _CannotRun(_USAGE, f"--app-dir {app_dir} is not a directory")
    sys.path.insert(0, str(app_dir))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        # Anything but the module itself, or a package above it, is missed by the module's own code.
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise
        raise _CannotRun(_USAGE, f"no module named {missing.name!r} in {app_dir}: see --app-dir") from None


def _microservice(app: object) -> Microservice | None:
    """The microservice behind either kind of application; None where there is none."""
    runtime = getattr(getattr(app, "state", None), "jararaca_ws_runtime", None)
    found = app if runtime is None else runtime.microservice
    return found if isinstance(found, Microservice) else None


def _is_asgi(app: Any) -> bool:
    """Whether it can be served as it is. A middleware around what `create_http_server` made can, say."""
    call = app if inspect.isfunction(app) else getattr(app, "__call__", None)  # noqa: B004 - it is inspected
    return isinstance(app, Starlette) or (not isinstance(app, type) and inspect.iscoroutinefunction(call))


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.drain_window is not None:  # for the interceptor, where our server cannot drain
        os.environ[WebSocketSettings.variable("drain_window")] = str(arguments.drain_window)
    app: Any = _load(arguments.target, arguments.app_dir)
    settings = _settings_of(app)
    if isinstance(app, Microservice):
        app = create_http_server(app)
    elif not _is_asgi(app):
        raise _not_an_application(arguments.target, app)
    _log_to_stderr(arguments.log_level)
    lifespan = WatchedLifespan(app)
    server = _server(lifespan, arguments, settings)
    _check_port(arguments.host, arguments.port)
    return _run_server(server, lifespan)


def _managers(app: object) -> list[WebSocketConnectionManager]:
    microservice = _microservice(app)
    interceptors = () if microservice is None else microservice.interceptors
    managers = (getattr(interceptor, "manager", None) for interceptor in interceptors)
    return [manager for manager in managers if isinstance(manager, WebSocketConnectionManager)]


def _settings_of(app: object) -> WebSocketSettings:
    """Those of the application; of the environment where it does not say, or will only when it is started."""
    return next((manager.settings for manager in _managers(app)), None) or WebSocketSettings()


def _server(app: ASGIApp, arguments: argparse.Namespace, settings: WebSocketSettings) -> uvicorn.Server:
    try:
        import uvicorn
        import websockets  # noqa: F401 - without it uvicorn refuses every WebSocket
    except ImportError as missing:
        cure = 'pip install "jararaca-ws[server]"'
        raise _CannotRun(_USAGE, f"serving takes {missing.name}, which is not installed: {cure}") from None
    window_s = settings.drain_window.total_seconds() if arguments.drain_window is None else arguments.drain_window
    make_server, protocols = _fastest(window_s, settings)
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        log_level=arguments.log_level,
        # uvicorn's own default waits without limit.
        timeout_graceful_shutdown=max(arguments.graceful_timeout, ceil(window_s) + 2),
        ws_max_size=arguments.ws_max_size or settings.max_message_bytes,
        ws_per_message_deflate=arguments.ws_per_message_deflate,
        **protocols,
    )
    return make_server(config)


def _fastest(drain_window_s: float, settings: WebSocketSettings) -> tuple[type[uvicorn.Server], dict[str, Any]]:
    """The server and the protocols with the fast path; where they cannot work, what this uvicorn has."""
    try:
        from jararaca_ws.server import DrainingServer, HTTPProtocol, WebSocketProtocol
    except ImportError as unsuitable:
        import uvicorn

        logging.getLogger("jararaca_ws").warning("WebSockets are served the slow way: %s", unsuitable)
        return uvicorn.Server, {}  # and the interceptor drains
    WebSocketProtocol.drain_window_s = drain_window_s
    WebSocketProtocol.send_buffer_bytes = settings.send_buffer_bytes
    return DrainingServer, {"ws": WebSocketProtocol, "http": HTTPProtocol}


def _print_settings(arguments: argparse.Namespace) -> int:
    app = _load(arguments.target, arguments.app_dir)
    managers = _managers(app)
    if not managers:
        raise _CannotRun(_USAGE, f"{arguments.target} has no WebSocketInterceptor, or makes it only when it is started")
    for manager in managers:
        for what, settings in manager.effective_settings().items():
            print(what)
            for name, value, source in settings:
                print(f"  {name} = {value}  ({source})")
    for problem in unknown_variables(os.environ):
        print(f"jararaca-ws: the environment variable {problem}", file=sys.stderr)
    return _STOPPED


def _check_port(host: str, port: int) -> None:
    """Refuse a taken port before Redis and the broker are connected; uvicorn finds out when they are."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        problem = f"cannot listen on {host} port {port}: {error.strerror}: choose another --host or --port"
        raise _CannotRun(_UNAVAILABLE, problem) from None


def _run_server(server: uvicorn.Server, lifespan: WatchedLifespan) -> int:
    # Once it has stopped, uvicorn raises the signal that stopped it again, for the handler that it found here.
    before = {signum: signal.signal(signum, server.handle_exit) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run()
        ended_well = server.started and not lifespan.stop_failed
    except SystemExit:
        # The start-up has failed, and uvicorn has logged it; or the user's code ends the process.
        ended_well = False
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if lifespan.refusal is not None:
        raise lifespan.refusal
    return _STOPPED if ended_well else _CRASHED


def _worker(arguments: argparse.Namespace) -> int:
    app = _load(arguments.target, arguments.app_dir)
    microservice = _microservice(app)
    if microservice is None:
        raise _not_an_application(arguments.target, app)
    _log_to_stderr(arguments.log_level)
    asyncio.run(_work(MessageBusWorker(microservice, grace=timedelta(seconds=arguments.grace))))
    return _STOPPED


async def _work(worker: MessageBusWorker) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_on_first(signum: int) -> None:
        stop.set()
        # A second one ends the process at once.
        loop.remove_signal_handler(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop_on_first, signum)
    await worker.run(stop)


def _not_an_application(target: str, app: object) -> _CannotRun:
    what = f"a class, {app.__qualname__}" if isinstance(app, type) else f"of type {type(app).__qualname__}"
    return _CannotRun(_USAGE, f"{target} is {what}, not an application: give {_AN_APPLICATION}")


def _log_to_stderr(level: str) -> None:
    """Show the logs, unless the user's module has set up logging itself. uvicorn's loggers have their own way."""
    logging.basicConfig(level=level.upper(), format="%(levelname)s:     %(name)s: %(message)s")
    # It writes a traceback for each lost connection; we write a line.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
