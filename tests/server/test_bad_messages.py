"""B7-B20: what a client may write into its messages, over a real socket; the same with the fast path and without."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import Field, field_validator

from jararaca_ws.inbound.receiving import Receive
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.typed_rooms import Room
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.server.running import BINARY, FAST, PLAIN, TEXT, RawSocket, Running, frame, raw_socket, running

PATHS = pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])
SECRET = "hunter2"


class Said(WebSocketMessage):
    MESSAGE_ID = "bad.said"
    text: str = Field("", max_length=100)
    value: float = 0
    anything: Any = None

    @field_validator("text")
    @classmethod
    def _no_secret(cls, text: str) -> str:
        assert not text.startswith(SECRET), f"it is {text}"
        return text


class Lobby(Room[Said], pattern="bad:{name}"):
    name: str

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return True


class Endpoints:
    @WebSocketEndpoint("/typed", client_rooms=[Lobby], client_sends=[Said])
    async def typed(self, connection: WebSocketConnection) -> None: ...

    @Receive(Said, endpoint="typed")
    async def said(self, message: Said) -> Said:
        return message

    @WebSocketEndpoint("/iterated")
    async def iterated(self, connection: WebSocketConnection) -> None:
        async for message in connection:
            await connection.send(message)

    @WebSocketEndpoint("/binary", binary=True)
    async def binary(self, connection: WebSocketConnection) -> None: ...

    @Receive(Said, endpoint="binary")
    async def said_in_bytes(self, message: Said) -> Said:
        return message

    @WebSocketEndpoint("/in/{room}")
    async def in_room(self, room: str, connection: WebSocketConnection) -> None:
        await connection.join(room)
        await connection.send(Said(anything=list(connection.rooms)))
        await connection.closed.wait()

    @WebSocketEndpoint("/under/{room:path}")
    async def under(self, room: str, connection: WebSocketConnection) -> None:
        await self.in_room(room, connection)


def said(fields: str) -> str:
    return f'{{"MESSAGE_ID":"bad.said","message":{fields}}}'


# What is written -> the code of the error.
REFUSED: dict[str, tuple[str, str]] = {
    "B8 nothing": ("", "bad_request"),
    "B8 null": ("null", "bad_request"),
    "B8 a list": ("[]", "bad_request"),
    "B8 a number": ("5", "bad_request"),
    "B8 a batch": (f"[{said('{}')}]", "bad_request"),
    "B9 60,000 levels": ("[" * 60_000, "bad_request"),
    "B9 30,000 levels, closed, in a field": (
        said('{"anything":' + "[" * 30_000 + "]" * 30_000 + "}"),
        "bad_request",
    ),
    "B9 10,000 objects in each other": ('{"a":' * 10_000 + "1" + "}" * 10_000, "bad_request"),
    "B10 an integer of 5,000 digits": (said('{"anything":' + "9" * 5000 + "}"), "bad_request"),
    "B10 for a float": (said('{"value":' + "9" * 5000 + "}"), "bad_request"),
    "B11 NaN": (said('{"value":NaN}'), "bad_request"),
    "B11 infinity where anything goes": (said('{"anything":[-Infinity]}'), "bad_request"),
    "B11 a number too large": (said('{"value":1e999}'), "bad_request"),
    "B12 a lone surrogate": (said('{"text":"\\ud800"}'), "bad_request"),
    "B12 a lone surrogate in the id": ('{"MESSAGE_ID":"\\ud800","message":{}}', "bad_request"),
    "B14 an unknown type": ('{"MESSAGE_ID":"bad.hunter2","message":{}}', "unknown_type"),
    "B14 a message of ours": ('{"MESSAGE_ID":"jararaca.gap","message":{"room":"hunter2"}}', "unknown_type"),
    "B14 a field more": (said('{"hunter2":1}'), "bad_request"),
    "B15 a value of another type": (said('{"value":"hunter2"}'), "bad_request"),
    "B15 a value that a validator quotes": (said('{"text":"hunter2!"}'), "bad_request"),
    "B15 a value too long": (said(f'{{"text":"{"x" * 101}hunter2"}}'), "bad_request"),
    "B15 no JSON": ("hunter2", "bad_request"),
}


@asynccontextmanager
async def bad_client(protocol: Any, path: str) -> AsyncIterator[tuple[Running, RawSocket]]:
    async with running(protocol, controller=Endpoints) as server:
        async with connected(server, path) as client:
            yield server, client


def connected(server: Running, path: str) -> AbstractAsyncContextManager[RawSocket]:
    return raw_socket(server.port, path, subprotocols=SUBPROTOCOL)


async def says(client: RawSocket, text: str) -> Any:
    await client.write(frame(TEXT, text.encode()))
    return await answered(client)


async def answered(client: RawSocket) -> Any:
    first, payload = await client.frame()
    assert first == 0x80 | TEXT, payload
    return json.loads(payload)


def _all_paths(function: Any) -> Any:
    return PATHS(pytest.mark.parametrize("path", ["/typed", "/iterated"])(function))


async def _are_refused(row: str, protocol: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each gets an error without a word of it, and the client goes on; the third closes."""
    caplog.set_level(logging.INFO)
    async with running(protocol, controller=Endpoints) as server:
        for text, code in (case for name, case in REFUSED.items() if name.startswith(f"{row} ")):
            async with connected(server, path) as client:
                for _ in range(2):
                    await _is_refused(client, text, code, caplog)
                    assert (await says(client, said('{"text":"fine"}')))["message"]["text"] == "fine"
                await _is_refused(client, text, code, caplog)
                assert await client.close_code() == 4501
    _is_quiet(caplog)


async def _is_refused(client: RawSocket, text: str, code: str, caplog: pytest.LogCaptureFixture) -> None:
    error = await says(client, text)
    assert error["MESSAGE_ID"] == "jararaca.error", text[:100]
    assert error["message"]["code"] == code, text[:100]
    assert error["message"]["id"] in caplog.text
    assert SECRET not in json.dumps(error)


def _is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Each line of ours is short, holds nothing but printable characters, and no value that the client wrote."""
    ours = [record for record in caplog.records if record.name == "jararaca_ws"]
    assert all(record.levelno <= logging.WARNING and record.exc_info is None for record in ours)
    lines = [record.getMessage() for record in ours]
    assert all(line.isprintable() and len(line) < 500 for line in lines), lines
    # A key may be in the log, as the place of what is wrong, and so may the id of a message: quoted, and cut.
    assert all(SECRET not in line for line in lines if "bad.hunter2" not in line and "at message.hunter2" not in line)


@_all_paths
async def test_b8_no_envelope(protocol: Any, path: str, caplog: pytest.LogCaptureFixture):
    await _are_refused("B8", protocol, path, caplog)


@_all_paths
async def test_b9_too_deep(protocol: Any, path: str, caplog: pytest.LogCaptureFixture):
    await _are_refused("B9", protocol, path, caplog)


@_all_paths
async def test_b10_too_many_digits(protocol: Any, path: str, caplog: pytest.LogCaptureFixture):
    await _are_refused("B10", protocol, path, caplog)


@_all_paths
async def test_b11_not_finite(protocol: Any, path: str, caplog: pytest.LogCaptureFixture):
    await _are_refused("B11", protocol, path, caplog)


@_all_paths
async def test_b12_lone_surrogates(protocol: Any, path: str, caplog: pytest.LogCaptureFixture):
    await _are_refused("B12", protocol, path, caplog)


@_all_paths
async def test_b14_unknown_types_and_fields(protocol: Any, path: str, caplog: pytest.LogCaptureFixture):
    await _are_refused("B14", protocol, path, caplog)


@_all_paths
async def test_b15_values_that_are_secrets(protocol: Any, path: str, caplog: pytest.LogCaptureFixture):
    await _are_refused("B15", protocol, path, caplog)


@_all_paths
async def test_b7_a_binary_frame_where_texts_are_read(protocol: Any, path: str):
    async with bad_client(protocol, path) as (_, client):
        await client.write(frame(BINARY, said("{}").encode()))
        assert await client.close_code() == 1003


@PATHS
async def test_b7_a_text_where_binary_frames_are_read(protocol: Any):
    async with bad_client(protocol, "/binary") as (_, client):
        await client.write(frame(BINARY, said("{}").encode()))
        assert (await client.frame())[0] == 0x80 | BINARY
        await client.write(frame(TEXT, said("{}").encode()))
        assert await client.close_code() == 1003


@_all_paths
async def test_b13_the_last_of_two_keys_is_the_one_that_is_checked_and_used(protocol: Any, path: str):
    async with bad_client(protocol, path) as (_, client):
        told = await says(client, said('{"text":"hunter2","text":"last"}'))
        assert told["message"]["text"] == "last"
        error = await says(client, said('{"text":"first","text":"hunter2"}'))
        assert error["message"]["code"] == "bad_request"


@PATHS
async def test_b13_a_client_joins_the_room_that_was_authorised(protocol: Any):
    async with bad_client(protocol, "/typed") as (server, client):
        told = await says(
            client,
            '{"MESSAGE_ID":"jararaca.join","ref":"1","message":{"rooms":["secret"]},"message":{"rooms":["bad:a"]}}',
        )
        assert [room["room"] for room in told["message"]["rooms"]] == ["bad:a"]
        assert server.manager.rooms == ("bad:a",)


# The names of rooms that are literal: one room each, with just this name.
LITERAL = ["a,b", "*", "?", "[x]", "{tag}", "../", "__keyspace@0__", "bad:x,bad:y", "%2C"]
NO_ROOMS = {
    "B17 NUL": "\x00",
    "B18 CR LF": "\r\n",
    "B19 empty": "",
    "B20 256 bytes": "x" * 256,
    "B20 1 kB": "é" * 512,
    "B20 not NFC": "e\u0301",
    "B20 zero-width": "a\u200bb",
    "B20 bidirectional": "a\u202eb",
}


def _join(*rooms: str) -> str:
    return json.dumps({"MESSAGE_ID": "jararaca.join", "ref": "1", "message": {"rooms": rooms}})


@pytest.mark.parametrize("name", LITERAL)
async def test_b16_b18_a_room_is_one_room_and_literal(name: str):
    room = str(Lobby(name=name))
    async with bad_client(FAST, "/typed") as (server, client):
        joined = await says(client, _join(room))
        assert [one["room"] for one in joined["message"]["rooms"]] == [room]
        assert server.manager.rooms == (room,)
        assert (await says(client, _join(name)))["message"]["code"] == "permission_denied"
        assert server.manager.rooms == (room,)


@PATHS
@pytest.mark.parametrize("name", LITERAL)
async def test_b16_b18_b40_a_room_of_the_path_is_one_room_and_literal(name: str, protocol: Any):
    async with bad_client(protocol, f"/under/{quote(name, safe='')}") as (server, client):
        assert (await answered(client))["message"]["anything"] == [name]
        assert server.manager.rooms == (name,)


@pytest.mark.parametrize("name", NO_ROOMS.values(), ids=NO_ROOMS.keys())
async def test_b17_b18_b19_b20_what_is_no_room_is_joined_by_nobody(name: str, caplog: pytest.LogCaptureFixture):
    async with bad_client(FAST, "/typed") as (server, client):
        for room in (name, f"bad:{name}"):
            error = await says(client, _join("bad:a", room))
            assert error["MESSAGE_ID"] == "jararaca.error"
            assert error["message"]["code"] in ("bad_request", "bad_room", "permission_denied")
        assert server.manager.rooms == ()
    _is_quiet(caplog)


async def test_b19_no_room_at_all_is_an_error():
    async with bad_client(FAST, "/typed") as (server, client):
        assert (await says(client, _join()))["message"]["code"] == "bad_request"
        assert server.manager.rooms == ()


@PATHS
@pytest.mark.parametrize("path", ["%00", "a%00b", "a%0D%0Ab", "e%CC%81", "a%E2%80%AEb", "x" * 256, "%ff", "%ED%A0%80"])
async def test_b40_a_path_that_is_no_room_is_refused(path: str, protocol: Any, caplog: pytest.LogCaptureFixture):
    async with bad_client(protocol, f"/in/{path}") as (server, client):
        if path in ("%ff", "%ED%A0%80"):  # the server has put the replacement character there
            assert (await answered(client))["message"]["anything"] == ["\ufffd" * (1 if path == "%ff" else 3)]
            return
        assert await client.close_code() == 4501
        assert server.manager.rooms == ()
    _is_quiet(caplog)
