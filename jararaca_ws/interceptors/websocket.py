"""The interceptor that brings WebSockets into a microservice: manager, routes, context, staged sends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar

from fastapi import FastAPI, WebSocket
from fastapi.routing import APIWebSocketRoute
from starlette.routing import BaseRoute

from jararaca_ws.auth.access import PUBLIC, AllowedOrigins, Authenticate, StatedAccess
from jararaca_ws.auth.door import Door
from jararaca_ws.auth.sources import TokenSource
from jararaca_ws.backends.base import Publication, WebSocketConnectionBackend
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.context import WebSocketMessageSender, provide_ws_manager, provide_ws_message_sender
from jararaca_ws.errors import ConfigurationError
from jararaca_ws.health import Health
from jararaca_ws.hosting import install
from jararaca_ws.inbound.hosts import refuse_unserved
from jararaca_ws.inbound.openapi import expand_document
from jararaca_ws.interceptors.base import (
    ENDPOINT_MARK,
    AppTransactionContext,
    Runtime,
    is_endpoint,
)
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.microservice.config import DEFAULT_NAME, Microservice
from jararaca_ws.microservice.controllers import controller_path, join_paths, rest_controller
from jararaca_ws.microservice.runtime import MicroserviceRuntime
from jararaca_ws.presence import PresenceSettings
from jararaca_ws.routing import Endpoint, check_paths, endpoint_route, endpoints_of, handshake_route
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.draining import drained_on_signals
from jararaca_ws.staging import Stage, Staged

__all__ = ["WebSocketInterceptor"]


class WebSocketInterceptor:
    """Makes WebSockets work in every unit of work of a microservice, or of a FastAPI application (`install`).

    - It serves the ``@WebSocketEndpoint`` methods of the controllers.
    - It binds the manager: `use_ws_manager` works in every unit of work.
    - In an HTTP request and in a message-bus handler, `WebSocketMessage.send` is staged. When the unit of work
      succeeds the staged messages leave in order, in one go; when it fails they are dropped. A flush that fails fails
      the unit of work: HTTP 503, a retry on the bus.
    - In a WebSocket endpoint messages leave at once. Each message that a `Receive` method handles is a unit of work
      like a request.
    - What a message-bus handler has staged gets ids that are the same when the bus message is delivered again: then it
      reaches nobody a second time, for as long as the backend remembers (five minutes, with ours).

    Interceptors nest, so those later in the list end first. List this one before a database session's: then the
    session is committed before the messages leave.

    Args:
        backend: carries messages between instances; `MemoryWebSocketConnectionBackend` where None.
        settings: what connections may take; where None, what the environment says, or the defaults.
        presence: how it is kept who is in which room; not at all where None.
        authenticate, token_from, allowed_origins: of the endpoints and routers that do not say it themselves: see
            `WebSocketEndpoint`. Of the WebSocket routes of an application of your own, those with a
            `current_connection`. Where None, everybody may connect, from everywhere.
        include_in_schema: whether the OpenAPI document has WebSockets, those of each `WebSocketRouter` included.

    Attributes:
        manager: the connection manager of this process.
        door: lets clients in where nothing else is said.
    """

    serves: ClassVar[str] = ENDPOINT_MARK

    def __init__(
        self,
        backend: WebSocketConnectionBackend | None = None,
        *,
        settings: WebSocketSettings | None = None,
        presence: PresenceSettings | None = None,
        authenticate: Authenticate | None = None,
        token_from: Sequence[TokenSource] | None = None,
        allowed_origins: AllowedOrigins | None = None,
        include_in_schema: bool = True,
    ) -> None:
        self.manager = WebSocketConnectionManager(
            backend or MemoryWebSocketConnectionBackend(), settings=settings, presence=presence
        )
        self._include_in_schema = include_in_schema
        self._service = ""
        stated = StatedAccess(authenticate, token_from, allowed_origins)
        self.door = Door(stated.over(PUBLIC, "the WebSocketInterceptor"), "the WebSocketInterceptor")

    @asynccontextmanager
    async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
        """Start the manager and its backend, and stop them; drain when the process is told to end meanwhile."""
        self._service = str(getattr(app, "name", ""))
        async with self.manager, drained_on_signals(self.manager, self.manager.settings.drain_window):
            yield

    def install(self, app: FastAPI, *, interceptors: Sequence[Any] = ()) -> None:
        """Make a FastAPI application of your own the host, in place of a `Microservice`; before it starts.

        - The manager and its backend live around the application's own lifespan.
        - `use_ws_manager` and `WebSocketMessage.send` work in every route, in dependencies, in background tasks, in the
          lifespan and in tasks started there; mounted applications included. Middlewares have `manager`.
        - What a request sends is staged. It leaves, in order, right before the response starts, and is dropped where
          the request fails: it raises, or is answered with 400 or above. A flush that fails is answered with 503.
          Background tasks, streamed bodies and what follows the ``yield`` of a dependency send at once.
        - Every WebSocket route is served as a ``@WebSocketEndpoint`` is, and sends at once:
          ``Depends(current_connection)`` gives its `WebSocketConnection`. What it raises is logged, and closes the
          socket with 1011.
        - a `JararacaError` is answered with its status, unless the application has handlers of its own.

        Args:
            app: where its routes are declared, before or after this.
            interceptors: others that come after this one, as in a `Microservice`. They live with the application, and
                go around every message that a client sends to typed handlers; not around the routes of HTTP.

        Raises:
            ConfigurationError: the application is none of FastAPI, has one already, has started, or was made of a
                `Microservice`.
        """
        given: Any = app
        if not isinstance(given, FastAPI):
            raise ConfigurationError(
                f"install makes a FastAPI application the host, not a {type(given).__name__}",
                "a Microservice has its interceptors in interceptors=[...]",
            )
        if not isinstance(interceptors, Iterable):
            raise ConfigurationError(f"interceptors={interceptors!r} is not a list", "write interceptors=[...]")
        microservice = Microservice(name=app.title or DEFAULT_NAME, interceptors=[self, *interceptors])
        install(app, self.manager, MicroserviceRuntime(microservice))

    def health(self) -> Sequence[Health]:
        """How well the manager and its backend are."""
        return self.manager.health()

    def http_routes(self, runtime: Runtime) -> Sequence[BaseRoute]:
        """The routes of all ``@WebSocketEndpoint`` methods.

        Raises:
            DuplicateEndpoint: two of them have one path.
        """
        endpoints = [
            endpoint
            for controller in runtime.controllers
            for endpoint in endpoints_of(controller, partial(join_paths, controller_path(controller)))
        ]
        check_paths(endpoints)
        access = self.door.access
        routes = [endpoint_route(one, manager=self.manager, host=runtime, access=access) for one in endpoints]
        return [*routes, *(map(_handshake, endpoints, routes) if self._include_in_schema else ())]

    async def refuse(self, websocket: WebSocket, error: Exception) -> None:
        """Refuse a handshake that a dependency has refused before anybody served the socket, as all are refused.

        Raises:
            Exception: the error, where somebody serves the socket, or has accepted it; or it is a failure.
        """
        await refuse_unserved(self.manager, websocket, error)

    def extend_openapi(self, document: dict[str, Any]) -> None:
        """Put the messages of WebSockets into the OpenAPI document."""
        expand_document(document, include=self._include_in_schema)

    def intercept(self, app_context: AppTransactionContext) -> AbstractAsyncContextManager[None]:
        """Bind the manager, and stage what is sent where the unit of work can fail as a whole."""
        manager = self.manager
        stage: Stage[Publication] | None = None
        sender: WebSocketMessageSender = manager
        if not is_endpoint(app_context.transaction_data):
            stage = Stage("a message was sent", "use `await message.send_now(...)` there")
            sender = _StagingSender(manager, stage, self._key(app_context))
        return Staged(stage, manager.publish, provide_ws_manager(manager), provide_ws_message_sender(sender))

    def _key(self, app_context: AppTransactionContext) -> str | None:
        """What a redelivery of this bus message to this handler has in common with the first; None for a request."""
        data = app_context.transaction_data
        if data.context_type != "message_bus":
            return None
        controller, handler = app_context.controller, app_context.handler
        where = f"{self._service}:{controller.__module__}.{controller.__qualname__}.{handler.__name__}"
        # A digest, because these have any length, and the other services of the fleet have handlers of the same names.
        return blake2b(f"{data.message_id}:{where}".encode(), digest_size=16).hexdigest()


def _handshake(endpoint: Endpoint, route: APIWebSocketRoute) -> BaseRoute:
    declared = rest_controller(endpoint.controller)
    options = {} if declared is None else declared.router_options
    include = options.get("include_in_schema", True)
    return handshake_route(endpoint, route, tags=options.get("tags", ()), include_in_schema=include)


class _StagingSender:
    """Checks and encodes at once, so that a bad send fails where it is written; holds the rest back."""

    __slots__ = ("_key", "_manager", "_sent", "_stage")

    def __init__(self, manager: WebSocketConnectionManager, stage: Stage[Publication], key: str | None) -> None:
        self._manager = manager
        self._stage = stage
        # None where nobody comes again with the same.
        self._key = key
        self._sent = 0

    async def send(
        self, rooms: Sequence[str], message: WebSocketMessageBase, *, exclude: WebSocketConnection | str | None = None
    ) -> None:
        own_id = None if self._key is None else f"{self._key}:{self._sent}"
        self._sent += 1
        publication = self._manager.prepare(rooms, message, id=own_id, exclude=exclude)
        self._stage.add(publication, len(publication.payload))
