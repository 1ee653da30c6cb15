"""FastAPI's parameters and dependencies in message handlers. The only module that calls FastAPI's internals for it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from copy import copy
from typing import Any

from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import FastAPIError, WebSocketRequestValidationError
from starlette.websockets import WebSocket

from jararaca_ws.errors import ConfigurationError

__all__ = ["MessageDependencies", "close_dependencies"]

_STACKS = ("fastapi_function_astack", "fastapi_inner_astack")
_BESIDE = "jararaca_ws_dependency_"


class MessageDependencies:
    """What a handler asks FastAPI for: parameters of the handshake, and ``Depends``.

    Each call solves them anew, and closes afterwards what a dependency with ``yield`` has opened.

    Args:
        name: of the handler, for errors.
        parameters: of the handler; those that FastAPI is to fill.
        beside: dependencies whose values nobody wants.
        path: where the handler is served, as far as that is known yet.

    Raises:
        ConfigurationError: FastAPI cannot fill a parameter.
    """

    __slots__ = ("_by_names", "_name", "_signature")

    def __init__(
        self, name: str, parameters: Sequence[inspect.Parameter], beside: Sequence[params.Depends], path: str
    ) -> None:
        keyword_only = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        hidden = [
            inspect.Parameter(f"{_BESIDE}{number}", inspect.Parameter.KEYWORD_ONLY, default=depends)
            for number, depends in enumerate(beside)
        ]
        self._name = name
        self._signature = inspect.Signature([*keyword_only, *hidden])
        # By the names of the path's parameters: a router may be included under several prefixes that have some.
        self._by_names: dict[frozenset[str], Dependant] = {}
        self._made(path)

    @property
    def asks(self) -> Callable[[], None]:
        """A function that asks for the same, and does nothing."""

        def asks() -> None: ...

        asks.__signature__ = self._signature  # type: ignore[attr-defined]
        return asks

    def _made(self, path: str) -> Dependant:
        try:
            dependant = get_dependant(path=path, call=self.asks)
        except (AssertionError, FastAPIError, ValueError) as error:
            raise ConfigurationError(f"{self._name} asks for what FastAPI cannot give ({error})") from error
        if dependant.body_params:
            raise ConfigurationError(
                f"{self._name}: FastAPI would read {dependant.body_params[0].name!r} from a body, and there is none",
                "annotate the message with the class that is received, and take the rest from path, query or Depends",
            )
        return dependant

    def _dependant(self, names: Mapping[str, Any]) -> Dependant:
        key = frozenset(names)
        dependant = self._by_names.get(key)
        if dependant is None:
            dependant = self._by_names[key] = self._made("".join(f"/{{{name}}}" for name in names))
        return dependant

    async def call(self, target: Callable[..., Awaitable[Any]], websocket: WebSocket, known: Mapping[str, Any]) -> Any:
        """Call the handler with what is known and what FastAPI adds.

        Raises:
            WebSocketRequestValidationError: a parameter of the handshake does not fit.
        """
        async with AsyncExitStack() as stack:
            # A socket and a scope of its own: messages that are handled at the same time have each their own stack.
            own = copy(websocket)
            own.scope = {**websocket.scope, **dict.fromkeys(_STACKS, stack)}
            solved = await solve_dependencies(
                request=own,
                dependant=self._dependant(own.scope.get("path_params", {})),
                dependency_overrides_provider=own.scope.get("app"),
                async_exit_stack=stack,
                embed_body_fields=False,
            )
            if solved.errors:
                raise WebSocketRequestValidationError(solved.errors)
            values = {name: value for name, value in solved.values.items() if not name.startswith(_BESIDE)}
            result = await target(**known, **values)
            if solved.background_tasks is not None:
                await solved.background_tasks()
            return result


async def close_dependencies(websocket: WebSocket) -> None:
    """Close what FastAPI has opened for a route: it would do so when the socket closes, which may be hours later."""
    for name in _STACKS:
        stack = websocket.scope.get(name)
        if isinstance(stack, AsyncExitStack):
            await stack.aclose()
