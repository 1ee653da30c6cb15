"""The OpenAPI document of an application, with what interceptors have to say in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from jararaca_ws.interceptors.base import InterceptorWithOpenApi, Runtime

__all__ = ["extend_openapi"]


def extend_openapi(app: FastAPI, runtime: Runtime) -> None:
    """Let interceptors add to what ``app.openapi()`` returns, whoever makes it.

    Called again at the start of the application: its ``openapi`` may have been replaced meanwhile.
    """
    if not isinstance(app.openapi, _Extended):
        app.openapi = _Extended(app.openapi, runtime)  # type: ignore[method-assign]


class _Extended:
    def __init__(self, generate: Callable[[], dict[str, Any]], runtime: Runtime) -> None:
        self._generate = generate
        self._runtime = runtime

    def __call__(self) -> dict[str, Any]:
        document = self._generate()
        for interceptor in self._runtime.interceptors:
            if isinstance(interceptor, InterceptorWithOpenApi):
                interceptor.extend_openapi(document)
        return document
