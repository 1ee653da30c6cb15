"""Rooms that clients join and leave by themselves, and send to: where an endpoint lets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import WebSocket
from pydantic import BaseModel
from starlette.exceptions import HTTPException, WebSocketException

from jararaca_ws.errors import (
    ConfigurationError,
    ConnectionClosed,
    HandlerTimeout,
    InvalidMessage,
    LimitReached,
    NotCarried,
    PermissionDenied,
    RateLimited,
)
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import UNSET_MESSAGE_ID, WebSocketMessage, WebSocketMessageBase
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.typed_rooms import Room, authorize, room_named
from jararaca_ws.wire.close_codes import CloseCode
from jararaca_ws.wire.room_requests import (
    Joined,
    JoinedRoom,
    JoinRequest,
    LeaveRequest,
    Left,
    MalformedRequest,
    RoomRequest,
    SendRequest,
    Sent,
    answer_frame,
    decode_request,
)

__all__ = ["ClientRooms", "RoomRequests"]

_MAX_WAITING = 16
"""How many requests of one client wait while another is handled; what comes beyond is refused."""


@dataclass(frozen=True, slots=True)
class ClientRooms:
    """What an endpoint lets its clients do: nothing, unless it says more.

    Attributes:
        rooms: the classes of rooms that a client may join and leave; its `Room.authorize` is asked for each.
        sends: the types of messages that a client may send to such rooms, while it is in them.

    Raises:
        ConfigurationError: something in it is none of that.
    """

    rooms: tuple[type[Room[Any]], ...] = ()
    sends: tuple[type[WebSocketMessage], ...] = ()

    @classmethod
    def of(cls, rooms: Any, sends: Any) -> ClientRooms:
        """What stands on an endpoint, whatever it is."""
        for name, given in (("client_rooms", rooms), ("client_sends", sends)):
            if isinstance(given, str | type):
                raise ConfigurationError(f"{name}={given!r} is not a list", f"write {name}=[...]")
        return cls(tuple(rooms), tuple(sends))

    def __post_init__(self) -> None:
        rooms: tuple[Any, ...] = self.rooms  # whatever was given
        sends: tuple[Any, ...] = self.sends
        for cls in rooms:
            if not (isinstance(cls, type) and issubclass(cls, Room) and cls.__pattern__ is not None):
                raise ConfigurationError(f"client_rooms has {cls!r}", "give classes of rooms that have a pattern")
        for message in sends:
            sendable = isinstance(message, type) and issubclass(message, WebSocketMessage)
            if not sendable or message.MESSAGE_ID == UNSET_MESSAGE_ID:
                raise ConfigurationError(f"client_sends has {message!r}", "give classes of messages with a MESSAGE_ID")
        if self.sends and not self.rooms:
            raise ConfigurationError("client_sends without client_rooms", "say to which rooms clients may send")

    def room(self, name: str) -> Room[Any]:
        """The room of this name.

        Raises:
            PermissionDenied: clients have no business with it, whether there is one or not.
        """
        room = room_named(name, self.rooms)
        if room is None:
            raise PermissionDenied(name)
        return room


class _RoomLimit(LimitReached):
    """The client would be in too many rooms."""

    code = "room_limit"
    close_code = CloseCode.TOO_MANY_REQUESTS


class RoomRequests:
    """What one client asks of rooms, one after the other, in a task that lives while there is something to do.

    Each request is a unit of work of its own, with the time limit of a handler. It is handled beside what the
    endpoint's method reads, so a client that wants an order between the two waits for the answer.
    """

    __slots__ = ("_allowed", "_connection", "_manager", "_task", "_unit_of_work", "_waiting")

    def __init__(
        self,
        connection: WebSocketConnection,
        manager: WebSocketConnectionManager,
        allowed: ClientRooms,
        unit_of_work: Callable[[WebSocket, BaseModel], AbstractAsyncContextManager[None]],
    ) -> None:
        self._connection = connection
        self._manager = manager
        self._allowed = allowed
        self._unit_of_work = unit_of_work
        # Not a deque: one of these is held for each socket, and it is short.
        self._waiting: list[RoomRequest | MalformedRequest] = []
        # None while there is nothing to do.
        self._task: asyncio.Task[None] | None = None
        connection.on_closed(self._closed)

    def takes(self, message: MutableMapping[str, Any]) -> bool:
        """Whether what was read is a request for rooms; if so, it is taken care of.

        Where the endpoint allows nothing, and the client does not understand control messages, nothing is.
        """
        text = message.get("text")
        if text is None or not (self._allowed.rooms or self._connection.understands_control):
            return False
        request = decode_request(text)
        if request is None:
            return False
        if len(self._waiting) >= _MAX_WAITING:
            self._connection.refuse(RateLimited(what="requests for rooms at once"), request.ref)
            return True
        self._waiting.append(request)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"room-requests-{self._connection.id}")
        return True

    async def __aenter__(self) -> None:
        self._connection.takes_request = self.takes

    async def __aexit__(self, *_: object) -> None:
        """The socket is closed: leave no task."""
        self._connection.takes_request = None
        task = self._task
        if task is not None:
            self._closed(self._connection)
            await asyncio.gather(task, return_exceptions=True)

    def _closed(self, connection: WebSocketConnection) -> None:
        # Once: a second time would cut short what it does on its way out.
        if self._task is not None and not self._task.cancelling():
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._waiting and self._connection.alive:
                await self._handle(self._waiting.pop(0))
        finally:
            self._task = None

    async def _handle(self, request: RoomRequest | MalformedRequest) -> None:
        if isinstance(request, MalformedRequest):
            self._connection.refuse(InvalidMessage(request.problem), request.ref)
            return
        try:
            answer = await self._do(request)
        except ConnectionClosed as error:
            if error.connection_id != self._connection.id:
                self._connection.refuse(error, request.ref)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._connection.refuse(error, request.ref)  # something that it awaited was cancelled; nobody cancelled it
        except (NotCarried, HTTPException, WebSocketException) as error:
            self._connection.refuse(PermissionDenied(str(error)), request.ref)
        except Exception as error:
            self._connection.refuse(error, request.ref)
        else:
            self._say(answer, request)

    # --- the requests -------------------------------------------------------------------------------------------------

    async def _do(self, request: RoomRequest) -> WebSocketMessageBase:
        if isinstance(request, JoinRequest):
            return await self._join(request)
        if isinstance(request, LeaveRequest):
            names = [str(self._allowed.room(name)) for name in dict.fromkeys(request.message.rooms)]
            await self._manager.leave(names, self._connection)
            return Left(rooms=names)
        return await self._send(request, self._allowed.room(request.message.room))

    async def _join(self, request: JoinRequest) -> Joined:
        connection = self._connection
        rooms = [self._allowed.room(name) for name in dict.fromkeys(request.message.rooms)]
        names = [str(room) for room in rooms]
        if len({*self._manager.rooms_of(connection), *names}) > connection.settings.max_rooms:
            raise _RoomLimit("max_rooms", connection.settings.max_rooms)
        changes = -1
        while changes != connection.permission_changes:  # meanwhile, which is longer than they are asked
            changes = connection.permission_changes
            async with self._in_time(request, request):
                await authorize(rooms, connection)
        await self._manager.join(names, connection)
        position = self._manager.delivery.streams.position
        return Joined(rooms=[JoinedRoom(room=name, **position(name)._asdict()) for name in names])

    async def _send(self, request: SendRequest, room: Room[Any]) -> Sent:
        name, message = str(room), request.decoded()
        if not isinstance(message, self._allowed.sends) or name not in self._manager.rooms_of(self._connection):
            raise PermissionDenied(name)
        async with self._in_time(request, message):
            if not await room.authorize_send(self._connection, message):
                raise PermissionDenied(name)
            if name not in self._manager.rooms_of(self._connection):  # any more
                raise PermissionDenied(name)
            await message.send_now(room)  # while it is in the room
        return Sent(room=name)

    @asynccontextmanager
    async def _in_time(self, request: RoomRequest, message: BaseModel) -> AsyncIterator[None]:
        """A unit of work, cancelled when it takes longer than a handler may."""
        timeout = self._connection.settings.handler_timeout
        seconds = None if timeout is None else timeout.total_seconds()
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._unit_of_work(self._connection.websocket, message):
                yield
        except TimeoutError:
            if seconds is None or not limit.expired():
                raise
            raise HandlerTimeout(request.MESSAGE_ID, seconds) from None

    def _say(self, answer: WebSocketMessageBase, request: RoomRequest) -> None:
        """Not `put`: a client that asks and does not read the answers is a slow consumer."""
        if request.ref is not None or self._connection.understands_control:
            self._connection.enqueue(answer_frame(answer, request.ref))
