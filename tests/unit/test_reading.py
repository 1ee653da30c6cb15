"""Reading without typed messages: text, binary, JSON; and what an application keeps of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.played import serving, until, until_closed

Read = Callable[[WebSocketConnection], AsyncIterator[Any]]


class Reader:
    """A handler that keeps what it reads."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self.seen: list[Any] = []

    async def __call__(self, connection: WebSocketConnection) -> None:
        async for one in self.read(connection):
            self.seen.append(one)


async def test_text_as_it_is():
    reader = Reader(WebSocketConnection.iter_text)
    async with serving(reader) as socket:
        for text in ("", "größe", '{"a":NaN}', "\0"):
            socket.server.text(text)
        socket.server.disconnect()
        await socket.ended()
    assert reader.seen == ["", "größe", '{"a":NaN}', "\0"]


async def test_binary_as_it_is():
    reader = Reader(WebSocketConnection.iter_bytes)
    async with serving(reader) as socket:
        for data in (b"", b"\xff\x00"):
            socket.server.binary(data)
        socket.server.disconnect()
        await socket.ended()
    assert reader.seen == [b"", b"\xff\x00"]


async def test_json_of_any_shape():
    reader = Reader(WebSocketConnection.iter_json)
    async with serving(reader) as socket:
        for text in ("1", "null", '{"a":[1.5,"x"]}'):
            socket.server.text(text)
        socket.server.disconnect()
        await socket.ended()
    assert reader.seen == [1, None, {"a": [1.5, "x"]}]


@pytest.mark.parametrize("text", ["", "{", "NaN", "Infinity", '{"a":NaN}', "[" * 60_000])
async def test_what_is_no_json_is_refused_and_the_third_closes(text: str):
    reader = Reader(WebSocketConnection.iter_json)
    async with serving(reader, subprotocols=[SUBPROTOCOL]) as socket:
        socket.server.text(text)
        socket.server.text("1")
        await until(lambda: reader.seen)
        assert socket.connection.alive
        for _ in range(2):
            socket.server.text(text)
        await socket.ended()
        assert socket.server.close is not None
        assert socket.server.close[0] == 4501
        assert len(socket.server.frames) == 3
    assert reader.seen == [1]


@pytest.mark.parametrize("read", [WebSocketConnection.iter_text, WebSocketConnection.iter_json, None])
async def test_a_binary_frame_where_text_is_meant_closes(read: Read | None):
    reader = Reader(read or WebSocketConnection.__aiter__)
    async with serving(reader) as socket:
        socket.server.binary(b"1")
        await socket.ended()
        assert socket.server.close == (1003, "text frames only")


async def test_a_text_frame_where_binary_is_meant_closes():
    reader = Reader(WebSocketConnection.iter_bytes)
    async with serving(reader) as socket:
        socket.server.text("1")
        await socket.ended()
        assert socket.server.close == (1003, "binary frames only")
    assert reader.seen == []


async def test_once_we_close_nothing_is_read_any_more():
    async def closing(connection: WebSocketConnection) -> AsyncIterator[str]:
        async for text in connection.iter_text():
            yield text
            connection.begin_close(4503, "enough")

    reader = Reader(closing)
    async with serving(reader) as socket:
        socket.server.text("a")
        socket.server.text("b")
        await socket.ended()
    assert reader.seen == ["a"]


async def test_each_connection_has_data_of_its_own():
    async with serving(until_closed) as one, serving(until_closed) as other:
        one.connection.data.cart = ["apple"]
        assert one.connection.data.cart == ["apple"]
        assert not hasattr(other.connection.data, "cart")
