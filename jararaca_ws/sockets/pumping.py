"""The pump of a WebSocket: reads the socket, and gives each message to whom it is for."""

from __future__ import annotations

import logging

from starlette.types import Message, Receive

from jararaca_ws.errors import quoted
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.waiting import Flag
from jararaca_ws.wire.packing import unpack
from jararaca_ws.wire.protocol import CloseCode

__all__ = ["pump"]

_log = logging.getLogger("jararaca_ws")


async def pump(connection: WebSocketConnection, receive: Receive) -> None:
    """Read until the client goes, and say then that it has."""
    inbound = connection.inbound
    limit, tally = connection.settings.max_message_bytes, connection.tally
    message: Message = {}
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            size = _size_of(message)
            tally.messages_in += 1
            tally.bytes_in += size
            if size > limit:
                _refuse_too_big(connection, limit)
                continue
            if connection.form.is_packed and not _unpack(connection, message):
                continue
            if connection.admitting is not None:
                await _leave_to_admission(connection, message, connection.admitting)
                continue
            if connection.takes_token is not None:
                renewal = connection.takes_token(message)
                if renewal is not None:
                    await renewal
                    continue
            if connection.recovery is not None and connection.takes(message):
                continue
            if connection.calls is not None and connection.calls.take(message):
                continue
            if connection.takes_request is not None and connection.takes_request(message):
                continue
            if inbound.offer(message):
                continue
            discarded = inbound.discarded
            await inbound.put(message)
            if inbound.discarded > discarded == 0:
                _log.warning("connection %s: its handler does not read, inbound messages are discarded", connection.id)
    except Exception as error:
        _log.error("connection %s could not be read", connection.id, exc_info=error)
        message = {"code": 1006}
    connection.finish(message.get("code", 1005), message.get("reason") or "")


def _refuse_too_big(connection: WebSocketConnection, limit: int) -> None:
    if connection.alive:
        _log.warning("connection %s sent a message of more than %d bytes", connection.id, limit)
        connection.begin_close(CloseCode.TOO_BIG, f"a message has at most {limit} bytes")


def _unpack(connection: WebSocketConnection, message: Message) -> bool:
    """Put the JSON beside the msgpack that was read, for all who read text; whether it was a binary frame.

    What is no msgpack gets an empty text, which whoever decodes refuses as it refuses what is no JSON.
    """
    data = message.get("bytes")
    if data is None:
        connection.begin_close(CloseCode.UNSUPPORTED_DATA, "binary frames only")
        return False
    try:
        message["text"] = unpack(data)
    except ValueError as error:
        _log.debug("connection %s sent a frame that is no msgpack: %s", connection.id, quoted(str(error)))
        message["text"] = ""
    return True


async def _leave_to_admission(connection: WebSocketConnection, message: Message, decided: Flag) -> None:
    """The first message of a client is to say who it is: read nothing else before that is decided."""
    await connection.inbound.put(message)
    await decided.wait()


def _size_of(message: Message) -> int:
    """How many bytes came."""
    text: str | None = message.get("text")
    if text is None:
        return len(message.get("bytes") or b"")
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
