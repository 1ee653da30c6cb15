"""Serving one WebSocket: between the ASGI server outside and the ASGI application inside stands the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cache

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from jararaca_ws.errors import ConnectionClosed, IllegalTransition
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.ending import End, can_refuse_by_http, end_of, failed, refuse
from jararaca_ws.sockets.flushing import TickFlusher
from jararaca_ws.sockets.pumping import pump
from jararaca_ws.sockets.socket_state import ConnectionState
from jararaca_ws.sockets.writing import DIRECT_FRAMES, DirectFrames, DirectWriter, TaskWriter, Writer
from jararaca_ws.wire.close_codes import check_close
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import CloseCode, agreed_subprotocol

__all__ = ["ServedWebSocket"]

_log = logging.getLogger("jararaca_ws")


class ServedWebSocket:
    """One WebSocket, from its handshake to its end.

    It owns the reading task (the pump) and the writer. The application inside gets our `receive` and `send`: it sees
    what the pump has read, and what it sends takes its turn with what comes from rooms.

    Attributes:
        connection: what handlers and the manager see of it.
        refused: whether it was accepted only to be closed: a browser's script learns nothing of a refused handshake.
    """

    __slots__ = (
        "__weakref__",
        "_connect",
        "_handler_deadline",
        "_handshake",
        "_receive",
        "_scope",
        "_send",
        "_writer",
        "connection",
        "refused",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        settings: WebSocketSettings | None = None,
        flusher: TickFlusher | None = None,
    ) -> None:
        self.connection = WebSocketConnection(scope, settings, flusher)
        self.connection.websocket = WebSocket(scope, self.receive, self.send)
        self.connection.on_closing = self._abandon_handshake
        self.connection.on_closed(self._limit_handler)
        self.refused = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._writer = self._make_writer()
        self.connection.wake = self._writer.wake
        # Held while something is said about the handshake: an accept and a refusal must not overtake one another.
        self._handshake = asyncio.Lock()
        # The `websocket.connect` message; None once the application inside has taken it.
        self._connect: Message | None = None
        # None before the handler runs and after it: cancels it when it outlives its client.
        self._handler_deadline: asyncio.Timeout | None = None

    def _make_writer(self) -> Writer:
        frames: DirectFrames | None = self._scope.get("extensions", {}).get(DIRECT_FRAMES)
        if frames is None:
            _say_that_frames_leave_one_by_one()
            return TaskWriter(self.connection, self._send)
        return DirectWriter(self.connection, frames)

    def _abandon_handshake(self) -> None:
        if not self.connection.accepted and not self._handshake.locked():
            # Closed from outside before the handshake was answered: the handler has nothing to go on for.
            self._cancel_handler_in(0)

    async def run(self, handler: Callable[[], Awaitable[None]]) -> None:
        """Serve the socket while the handler runs, and close it afterwards: 1000, or 1011 when the handler raised.

        A `JararacaError` has a close code of its own, as starlette's ``WebSocketException`` has. The handler runs in
        the calling task. Whatever happens, on return the connection is CLOSED and the pump, and the writer's task
        where it has one, have ended.
        """
        self._connect = await self._receive()
        connection = self.connection
        # Not a TaskGroup: this is held for each socket, and a pump that fails is the end of its connection already.
        reading = asyncio.create_task(pump(connection, self._receive), name=f"websocket-pump-{connection.id}")
        writer = self._writer.start()
        try:
            end = await self._handle(handler)
            connection.begin_close(end.code, end.reason)
            await self._refuse_unaccepted(end)
            await connection.closed.wait()
        except asyncio.CancelledError:
            connection.begin_close(CloseCode.SERVICE_RESTART, "")
            raise
        finally:
            connection.finish(CloseCode.NORMAL, "")
            await _end(reading, writer)

    # --- the application inside ---------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The ``receive`` of the application inside: what the pump has read."""
        if self._connect is not None:
            connect, self._connect = self._connect, None
            return connect
        return await self.connection.inbound.get()

    async def send(self, message: Message) -> None:
        """The ``send`` of the application inside."""
        kind = message["type"]
        if kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.send":
            text = message.get("text")
            frame = Frame(message["bytes"], binary=True) if text is None else Frame(text.encode())
            try:
                await self.connection.put(frame)
            except ConnectionClosed as error:
                raise OSError(str(error)) from error  # what the ASGI specification has for a send after the end
        elif kind == "websocket.close":
            await self._close(message)
        elif self.connection.state is ConnectionState.CONNECTING:
            await self._say(message)  # the handshake is answered as HTTP
            if kind == "websocket.http.response.body" and not message.get("more_body"):
                self.connection.finish(CloseCode.NORMAL, "")
        else:
            raise IllegalTransition("a WebSocket", self.connection.state, ConnectionState.CONNECTING)

    async def _close(self, message: Message) -> None:
        code, reason = message.get("code", CloseCode.NORMAL), message.get("reason")
        # FastAPI gives a list of what is wrong with the parameters, the client's input included.
        reason = reason if isinstance(reason, str) else ""
        if self.connection.state is not ConnectionState.CONNECTING:
            await self.connection.close(code, reason)
        elif 4000 <= code <= 4999:
            check_close(code, reason)
            async with self._handshake:  # so that this close does not count as one from outside
                self.connection.begin_close(code, reason)
                await self._accept_to_close()
            await self.connection.closed.wait()
        else:
            await self._say({"type": "websocket.close", "code": code, "reason": reason})
            self.connection.finish(code, reason)

    # --- the handshake ------------------------------------------------------------------------------------------------

    async def _accept(self, message: Message) -> None:
        connection = self.connection
        if self.connection.accepted:
            raise IllegalTransition("a WebSocket", connection.state, ConnectionState.OPEN)
        async with self._handshake:
            if connection.state is not ConnectionState.CONNECTING:
                raise connection.end()
            await self._say_accept(message)
        if not connection.alive:  # closed while the accept was under way, by us or by the client
            raise connection.end()

    async def _say_accept(self, message: Message) -> None:
        subprotocol = self._subprotocol(message)
        self.connection.speak(subprotocol)
        try:
            await self._send({**message, "subprotocol": subprotocol})
        except OSError as error:  # the client went meanwhile
            self.connection.finish(1006, "")
            raise self.connection.end() from error
        self.connection.open(subprotocol)

    def _subprotocol(self, accept: Message) -> str | None:
        chosen: str | None = accept.get("subprotocol")
        return agreed_subprotocol(self._scope.get("subprotocols", ())) if chosen is None else chosen

    async def _say(self, message: Message) -> None:
        async with self._handshake:
            await self._send(message)

    async def _refuse_unaccepted(self, end: End) -> None:
        """Answer a handshake that the handler has left unanswered."""
        connection = self.connection
        if self.connection.accepted or connection.state is ConnectionState.CLOSED:
            return
        if connection.close_code != end.code:  # it was closed from outside, not by the end of the handler
            end = End(connection.close_code or end.code, connection.close_reason)
        try:
            if end.code >= 4000 and not (end.by_http and can_refuse_by_http(self._scope)):
                await self._accept_to_close()
                return
            await refuse(end, self._scope, self._send)
        except (OSError, ConnectionClosed):
            _log.debug("connection %s has gone before it could be refused", connection.id)
        connection.finish(end.code, end.reason)

    async def _accept_to_close(self) -> None:
        """A browser learns nothing from a refused handshake, so it would try again for ever: the writer tells it."""
        self.refused = True
        await self._say_accept({"type": "websocket.accept"})

    # --- the handler --------------------------------------------------------------------------------------------------

    async def _handle(self, handler: Callable[[], Awaitable[None]]) -> End:
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                self._handler_deadline = deadline
                await handler()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something that it awaited was cancelled; nobody cancelled the handler.
            return failed(error, self.connection)
        except TimeoutError as error:
            if not deadline.expired():
                return failed(error, self.connection)
            if self.connection.accepted:
                _log.warning("the handler of connection %s outlived its client and was cancelled", self.connection.id)
        except Exception as error:
            return end_of(error, self.connection)
        finally:
            self._handler_deadline = None
        return End(CloseCode.NORMAL)

    def _limit_handler(self, connection: WebSocketConnection) -> None:
        self._cancel_handler_in(connection.settings.handler_grace.total_seconds())

    def _cancel_handler_in(self, seconds: float) -> None:
        deadline = self._handler_deadline
        if deadline is not None and not deadline.expired():
            deadline.reschedule(asyncio.get_running_loop().time() + seconds)


@cache  # once in a process
def _say_that_frames_leave_one_by_one() -> None:
    _log.info(
        "this ASGI server offers no writing of frames: they leave one by one, through its send; "
        "`jararaca-ws serve`, or uvicorn with --ws jararaca_ws.server:WebSocketProtocol, is faster"
    )


async def _end(*tasks: asyncio.Task[None] | None) -> None:
    """Cancel the tasks and wait until they have ended."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
