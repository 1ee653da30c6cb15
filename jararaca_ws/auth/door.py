"""Letting clients in: where they come from, who they are, and again while they stay."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, MutableMapping
from typing import Any

from fastapi import WebSocket
from fastapi.exceptions import WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from jararaca_ws.auth.access import LET_IN_KEY, Access, Authenticate
from jararaca_ws.auth.sources import MessageToken, checked, presented
from jararaca_ws.auth.user import PresentedToken, User
from jararaca_ws.context import provide_ws_manager
from jararaca_ws.errors import (
    AuthenticationFailed,
    AuthenticationTimeout,
    BadUserId,
    ConfigurationError,
    ConnectionClosed,
    InvalidMessage,
    TokenExpired,
    Unavailable,
)
from jararaca_ws.inbound.message_dependencies import MessageDependencies
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.rooms import check_text
from jararaca_ws.signatures import parameters_of
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.waiting import Flag
from jararaca_ws.wire.authentication import Authenticated, TokenMessage, decode_token, is_token
from jararaca_ws.wire.room_requests import answer_frame

__all__ = ["Door", "let_in_by"]

_RENEWAL_INTERVAL_S = 1.0
"""Another token is looked at, and the rooms are asked, once in that time: meanwhile nothing is read."""


class Door:
    """Lets the clients of one endpoint in.

    Args:
        where: names the endpoint in errors.
        path: where it is served, as far as that is known yet.

    Raises:
        ConfigurationError: ``authenticate`` cannot be called.
    """

    def __init__(self, access: Access, where: str, path: str = "/") -> None:
        self.access = access
        self._question = None if access.authenticate is None else _Question(access.authenticate, where, path)

    async def let_in(self, connection: WebSocketConnection, manager: WebSocketConnectionManager) -> None:
        """Let a client in, before anything else is done for it; for a `MessageToken` its handshake is accepted.

        Raises:
            OriginNotAllowed: from this page nobody may connect.
            AuthenticationFailed: nobody knows who it is.
            Unavailable: nobody knows, at the moment.
            ConnectionClosed: it has gone.
        """
        connection.scope[LET_IN_KEY] = self  # what follows takes it in
        try:
            await self._let_in(connection, manager)
        except BaseException:
            connection.scope[LET_IN_KEY] = False
            raise

    async def _let_in(self, connection: WebSocketConnection, manager: WebSocketConnectionManager) -> None:
        access = self.access
        token = presented(connection.scope, access.token_from)
        if access.origins is not None:
            access.origins.check(connection.scope, required=token is not None and token.source == "cookie")
        if access.is_public:
            return
        if token is not None:
            await self._keep(await self._user_of(token, connection, manager), connection, manager)
        elif any(isinstance(source, MessageToken) for source in access.token_from):
            await self._admit_by_message(connection, manager)
        else:
            raise AuthenticationFailed("there is no token")

    async def _keep(self, user: User, connection: WebSocketConnection, manager: WebSocketConnectionManager) -> None:
        # It has not waited since it looked at what was revoked lately; who revokes finds the connection from here on.
        await manager.add_websocket(connection)
        manager.tokens.set_user(user, connection)
        await connection.identify(user.id)
        connection.takes_token = _Renewals(self, connection, manager).take

    # --- by message ---------------------------------------------------------------------------------------------------

    async def _admit_by_message(self, connection: WebSocketConnection, manager: WebSocketConnectionManager) -> None:
        decided = connection.admitting = Flag()
        try:
            await connection.accept()
            message = await self._first(connection)
            token = PresentedToken(checked(message.token), "message")
            await self._keep(await self._user_of(token, connection, manager), connection, manager)
            _say_authenticated(connection, manager, message.ref)
        finally:
            connection.admitting = None
            connection.inbound.is_read = False  # the handler has not read yet
            decided.set()

    async def _first(self, connection: WebSocketConnection) -> TokenMessage:
        timeout_s = connection.settings.auth_timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout_s):
                message = await connection.read()
        except TimeoutError:
            raise AuthenticationTimeout from None
        if message is None:
            raise connection.end()
        try:
            return decode_token(message.get("text") or "")
        except InvalidMessage as error:
            raise AuthenticationFailed(f"the first message is {error.problem}") from None

    # --- while it stays -----------------------------------------------------------------------------------------------

    async def renew(self, text: str, connection: WebSocketConnection, manager: WebSocketConnectionManager) -> None:
        """Another token of the same user. Nothing is read meanwhile. Raises nothing but cancellation."""
        ref = None
        try:
            message = decode_token(text)
            ref = message.ref
            token = PresentedToken(checked(message.token), "message")
            user = await self._user_of(token, connection, manager)
            if connection.user is None or user.id != connection.user.id:
                raise AuthenticationFailed("the new token is another user's")
        except Exception as error:
            if not isinstance(error, ConnectionClosed):
                connection.refuse(error, ref)  # who cannot authenticate is closed
            return
        if not connection.alive:
            return  # nobody would forget it again
        manager.tokens.set_user(user, connection)
        manager.reauthorizing.ask_again([connection], strictly=True)
        _say_authenticated(connection, manager, ref)

    # --- who it is ----------------------------------------------------------------------------------------------------

    async def _user_of(
        self, token: PresentedToken, connection: WebSocketConnection, manager: WebSocketConnectionManager
    ) -> User:
        timeout_s = connection.settings.auth_timeout.total_seconds()
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                with provide_ws_manager(manager):
                    user = await self._ask(token, connection, manager)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise Unavailable(f"authenticate= takes longer than {timeout_s:g} s (auth_timeout)") from None
        _check_user(user)
        left_s = manager.tokens.expiries.left_s_of(user)
        if left_s is not None and left_s <= 0:
            raise TokenExpired
        await manager.tokens.revocations.check(user)
        manager.tokens.revocations.check_recent(user)
        return user

    async def _ask(
        self, token: PresentedToken, connection: WebSocketConnection, manager: WebSocketConnectionManager
    ) -> User:
        if self._question is None or token.source == "ticket":
            return await manager.tokens.tickets.redeem(token.value)
        try:
            user = await self._question.ask(token, connection.websocket)
        except HTTPException as error:
            if error.status_code not in (401, 403):
                raise
            raise AuthenticationFailed(f"authenticate= has answered {error.status_code}") from error
        except WebSocketRequestValidationError:  # its text holds the input
            raise AuthenticationFailed("a parameter of authenticate= does not fit") from None
        if user is None:
            raise AuthenticationFailed("authenticate= has returned None")
        return user


def let_in_by(scope: Scope) -> Door | None:
    """Who has let this client in; None: nobody yet."""
    return scope.get(LET_IN_KEY) or None


class _Renewals:
    """The other tokens of one connection."""

    __slots__ = ("_connection", "_door", "_manager", "_next_at")

    def __init__(self, door: Door, connection: WebSocketConnection, manager: WebSocketConnectionManager) -> None:
        self._door = door
        self._connection = connection
        self._manager = manager
        self._next_at = 0.0

    def take(self, message: MutableMapping[str, Any]) -> Awaitable[None] | None:
        """For the pump: what was read may be another token. None: it is something else."""
        text = message.get("text")
        return self._renew(text) if text is not None and is_token(text) else None

    async def _renew(self, text: str) -> None:
        # Who sends one after the other would have `authenticate=` and `Room.authorize` asked without end.
        await asyncio.sleep(self._next_at - time.monotonic())
        self._next_at = time.monotonic() + _RENEWAL_INTERVAL_S
        await self._door.renew(text, self._connection, self._manager)


class _Question:
    """``authenticate=``, and what it asks for."""

    def __init__(self, authenticate: Authenticate, where: str, path: str) -> None:
        # An object with an async __call__ is as good as a function.
        function: Any = authenticate if inspect.isroutine(authenticate) else type(authenticate).__call__
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{where}: authenticate= is {authenticate!r}", "give an async def function")
        parameters, _ = parameters_of(function)
        if function is not authenticate:
            parameters = parameters[1:]
        self._authenticate = authenticate
        self._tokens = [one.name for one in parameters if one.annotation is PresentedToken]
        self._sockets = [one.name for one in parameters if one.annotation is WebSocket]
        rest = [one for one in parameters if one.name not in self._tokens and one.name not in self._sockets]
        if not self._tokens:
            raise ConfigurationError(
                f"{where}: authenticate= does not ask for the token", "annotate a parameter with PresentedToken"
            )
        # None where FastAPI need not be asked.
        self._dependencies = MessageDependencies(f"{where}: authenticate=", rest, (), path) if rest else None

    async def ask(self, token: PresentedToken, websocket: WebSocket) -> User | None:
        known = dict.fromkeys(self._tokens, token) | dict.fromkeys(self._sockets, websocket)
        if self._dependencies is None:
            return await self._authenticate(**known)
        user: User | None = await self._dependencies.call(self._authenticate, websocket, known)
        return user


def _check_user(user: Any) -> None:
    if not isinstance(user, User):
        raise TypeError(f"authenticate= has returned a {type(user).__name__}: a User, or None")
    try:
        check_text(user.id, BadUserId)
    except BadUserId as error:
        raise AuthenticationFailed(f"the user's id is none: {error.problem}") from None


def _say_authenticated(connection: WebSocketConnection, manager: WebSocketConnectionManager, ref: str | None) -> None:
    if connection.user is not None and (ref is not None or connection.understands_control):
        left_s = manager.tokens.expiries.left_s_of(connection.user)
        answer = Authenticated(
            user_id=connection.user.id, expires_in_ms=None if left_s is None else max(0, round(left_s * 1000))
        )
        # Not `put`: it is said by who reads, who may not wait for a client that does not.
        connection.enqueue(answer_frame(answer, ref))
