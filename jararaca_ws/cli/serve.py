"""``jararaca-ws serve``: HTTP and WebSockets, with uvicorn."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
from math import ceil
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from jararaca_ws.cli.application import is_asgi, load, log_to_stderr, managers_of, not_an_application
from jararaca_ws.cli.ending import CRASHED, STOPPED, UNAVAILABLE, USAGE, CannotRun
from jararaca_ws.lifespan import WatchedLifespan
from jararaca_ws.microservice import Microservice, create_http_server
from jararaca_ws.settings import WebSocketSettings

if TYPE_CHECKING:
    import uvicorn

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes; returns the exit code."""
    if arguments.drain_window is not None:  # for the interceptor, where our server cannot drain
        os.environ[WebSocketSettings.variable("drain_window")] = str(arguments.drain_window)
    app: Any = load(arguments.target, arguments.app_dir)
    settings = _settings_of(app)
    if isinstance(app, Microservice):
        app = create_http_server(app)
    elif not is_asgi(app):
        raise not_an_application(arguments.target, app)
    log_to_stderr(arguments.log_level)
    lifespan = WatchedLifespan(app)
    server = _server(lifespan, arguments, settings)
    _check_port(arguments.host, arguments.port)
    return _run_server(server, lifespan)


def _settings_of(app: object) -> WebSocketSettings:
    """Those of the application; of the environment where it does not say, or will only when it is started."""
    return next((manager.settings for manager in managers_of(app)), None) or WebSocketSettings()


def _server(app: ASGIApp, arguments: argparse.Namespace, settings: WebSocketSettings) -> uvicorn.Server:
    try:
        import uvicorn
        import websockets  # noqa: F401 - without it uvicorn refuses every WebSocket
    except ImportError as missing:
        cure = 'pip install "jararaca-ws[server]"'
        raise CannotRun(USAGE, f"serving takes {missing.name}, which is not installed: {cure}") from None
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


def _check_port(host: str, port: int) -> None:
    """Refuse a taken port before Redis and the broker are connected; uvicorn finds out when they are."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        problem = f"cannot listen on {host} port {port}: {error.strerror}: choose another --host or --port"
        raise CannotRun(UNAVAILABLE, problem) from None


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
    return STOPPED if ended_well else CRASHED
