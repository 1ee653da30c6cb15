"""The application that a command is given as ``module:app``, and what there is in it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from starlette.applications import Starlette

from jararaca_ws.cli.ending import USAGE, CannotRun
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.microservice import Microservice

__all__ = ["AN_APPLICATION", "is_asgi", "load", "log_to_stderr", "managers_of", "microservice_of", "not_an_application"]

AN_APPLICATION = "a Microservice, or a FastAPI application"


def load(target: str, app_dir: str) -> object:
    """Import what ``module:attribute`` names."""
    name, _, attribute = target.partition(":")
    if not name or not attribute:
        raise CannotRun(USAGE, f"{target!r} is not of the form module:attribute, for example server:app")
    module = _import(name, Path(app_dir).resolve())
    if not hasattr(module, attribute):
        applications = [name for name, value in vars(module).items() if microservice_of(value) or is_asgi(value)]
        meant = difflib.get_close_matches(attribute, applications) or applications
        hint = f": did you mean {' or '.join(meant)}?" if meant else ""
        raise CannotRun(USAGE, f"the module {name!r} has no attribute {attribute!r}{hint}")
    return getattr(module, attribute)


def _import(name: str, app_dir: Path) -> ModuleType:
    if not app_dir.is_dir():
        raise CannotRun(USAGE, f"--app-dir {app_dir} is not a directory")
    sys.path.insert(0, str(app_dir))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        # Anything but the module itself, or a package above it, is missed by the module's own code.
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise
        raise CannotRun(USAGE, f"no module named {missing.name!r} in {app_dir}: see --app-dir") from None


def microservice_of(app: object) -> Microservice | None:
    """The microservice behind either kind of application; None where there is none."""
    runtime = getattr(getattr(app, "state", None), "jararaca_ws_runtime", None)
    found = app if runtime is None else runtime.microservice
    return found if isinstance(found, Microservice) else None


def is_asgi(app: Any) -> bool:
    """Whether it can be served as it is. A middleware around what `create_http_server` made can, say."""
    call = app if inspect.isfunction(app) else getattr(app, "__call__", None)  # noqa: B004 - it is inspected
    return isinstance(app, Starlette) or (not isinstance(app, type) and inspect.iscoroutinefunction(call))


def managers_of(app: object) -> list[WebSocketConnectionManager]:
    microservice = microservice_of(app)
    interceptors = () if microservice is None else microservice.interceptors
    managers = (getattr(interceptor, "manager", None) for interceptor in interceptors)
    return [manager for manager in managers if isinstance(manager, WebSocketConnectionManager)]


def not_an_application(target: str, app: object) -> CannotRun:
    what = f"a class, {app.__qualname__}" if isinstance(app, type) else f"of type {type(app).__qualname__}"
    return CannotRun(USAGE, f"{target} is {what}, not an application: give {AN_APPLICATION}")


def log_to_stderr(level: str) -> None:
    """Show the logs, unless the user's module has set up logging itself. uvicorn's loggers have their own way."""
    logging.basicConfig(level=level.upper(), format="%(levelname)s:     %(name)s: %(message)s")
    # It writes a traceback for each lost connection; we write a line.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
