"""Clients that speak msgpack, and what an application sees of them: JSON, as of all others."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

import msgpack
import pytest
from fastapi import FastAPI, WebSocket
from pydantic import BaseModel

from jararaca_ws import (
    CloseCode,
    Receive,
    RestController,
    Room,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRequest,
    WebSocketRouter,
    use_ws_manager,
)
from jararaca_ws.backends.base import StreamPosition
from jararaca_ws.testing import InLoopWebSocket, connect, lifespan
from jararaca_ws.wire import frames, packing
from jararaca_ws.wire.protocol import MSGPACK_SUBPROTOCOL, SUBPROTOCOL, Gap, encode
from jararaca_ws.wire.retained import RECOVER_SUBPROTOCOL
from tests.unit.apps import running
from tests.unit.histories import Kept, fleet, recover_frame, settled
from tests.unit.played import errors_in, serving, turns, until, until_closed
from tests.unit.wire.test_packing import VECTORS

PACKED = [MSGPACK_SUBPROTOCOL]


class Note(WebSocketMessage):
    MESSAGE_ID = "test_msgpack.note"

    text: str
    price: float = 0.5


class Confirmed(BaseModel):
    yes: bool


class Confirm(WebSocketRequest[Confirmed]):
    MESSAGE_ID = "test_msgpack.confirm"


class PackedRoom(Room[Note], pattern="packed-{number}"):
    number: int

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return self.number < 100


@RestController("/ws")
class Controller:
    @WebSocketEndpoint("/typed")
    async def typed(self, connection: WebSocketConnection) -> None:
        await connection.join("lobby")

    @Receive(Note, endpoint="typed")
    async def note(self, message: Note) -> Note:
        return Note(text=message.text.upper(), price=message.price)

    @WebSocketEndpoint("/reads")
    async def reads(self, connection: WebSocketConnection) -> None:
        await connection.join("lobby")
        async for message in connection:
            await connection.send(message)

    @WebSocketEndpoint("/text")
    async def text(self, connection: WebSocketConnection) -> None:
        async for text in connection.iter_text():
            await connection.websocket.send_text(text)

    @WebSocketEndpoint("/json")
    async def json(self, connection: WebSocketConnection) -> None:
        async for value in connection.iter_json():
            await connection.websocket.send_json(value)

    @WebSocketEndpoint("/bytes")
    async def bytes(self, connection: WebSocketConnection) -> None:
        async for data in connection.iter_bytes():
            await connection.websocket.send_bytes(data)

    @WebSocketEndpoint("/asks")
    async def asks(self, connection: WebSocketConnection) -> None:
        confirmed = await connection.call(Confirm())
        await connection.send(Note(text=str(confirmed.yes)))

    @WebSocketEndpoint("/rooms", client_rooms=[PackedRoom], client_sends=[Note])
    async def rooms(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()

    @WebSocketEndpoint("/binary", binary=True)
    async def binary(self, connection: WebSocketConnection) -> None: ...

    @Receive(Note, endpoint="binary")
    async def binary_note(self, message: Note) -> Note:
        return message

    @WebSocketEndpoint("/chosen", accept=False)
    async def chosen(self, connection: WebSocketConnection) -> None:
        await connection.websocket.accept(subprotocol=MSGPACK_SUBPROTOCOL)
        await connection.send(Note(text="chosen"))
        await connection.closed.wait()


def envelope(message: WebSocketMessage, **more: Any) -> dict[str, Any]:
    return {"MESSAGE_ID": message.MESSAGE_ID, "message": message.model_dump(), **more}


async def received(socket: InLoopWebSocket) -> Any:
    """The next frame, which is a binary one."""
    frame = await socket.receive()
    assert isinstance(frame, bytes), frame
    return msgpack.unpackb(frame)


async def sent(socket: InLoopWebSocket, value: Any) -> None:
    await socket.send_bytes(msgpack.packb(value))


class TestHandshake:
    @pytest.mark.parametrize(
        ("offered", "agreed"),
        [
            ([MSGPACK_SUBPROTOCOL], MSGPACK_SUBPROTOCOL),
            ([MSGPACK_SUBPROTOCOL, SUBPROTOCOL], MSGPACK_SUBPROTOCOL),
            ([SUBPROTOCOL, MSGPACK_SUBPROTOCOL], SUBPROTOCOL),
            (["mine"], None),
            ([], None),
        ],
    )
    async def test_the_first_that_the_client_offers_says_the_frames(self, offered: list[str], agreed: str | None):
        async with running(Controller) as app, connect(app.asgi, "/ws/reads", subprotocols=offered) as socket:
            assert socket.subprotocol == agreed
            await app.manager.send(["lobby"], Note(text="hello"))
            frame = await socket.receive()
            assert isinstance(frame, bytes) is (agreed == MSGPACK_SUBPROTOCOL)
            assert (msgpack.unpackb(frame) if isinstance(frame, bytes) else json.loads(frame)) == envelope(
                Note(text="hello")
            )

    async def test_without_the_extra_json_is_agreed_to_where_it_is_offered(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(packing, "msgpack", None)
        async with running(Controller) as app:
            async with connect(app.asgi, "/ws/reads", subprotocols=[MSGPACK_SUBPROTOCOL, SUBPROTOCOL]) as socket:
                assert socket.subprotocol == SUBPROTOCOL
            async with connect(app.asgi, "/ws/reads", subprotocols=PACKED) as socket:
                assert socket.subprotocol is None
                await app.manager.send(["lobby"], Note(text="hello"))
                assert await socket.receive_json() == envelope(Note(text="hello"))

    async def test_an_application_may_choose_it(self):
        async with running(Controller) as app, connect(app.asgi, "/ws/chosen") as socket:
            assert await received(socket) == envelope(Note(text="chosen"))

    async def test_an_application_that_chooses_it_without_the_extra_is_told(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        monkeypatch.setattr(packing, "msgpack", None)
        async with running(Controller) as app:
            with pytest.raises(Exception, match="500"):
                async with connect(app.asgi, "/ws/chosen"):
                    pytest.fail("it was accepted")
        (record,) = errors_in(caplog)
        assert record.exc_info is not None
        assert 'pip install "jararaca-ws[msgpack]"' in str(record.exc_info[1])

    async def test_what_answers_the_accept_at_once_is_read_as_msgpack(self):
        """A server whose ``send`` of the accept takes long: the client is faster."""
        texts: list[str] = []

        async def handler(connection: WebSocketConnection) -> None:
            await connection.accept()
            texts.extend([text async for text in connection.iter_text()])

        async with serving(handler, subprotocols=PACKED, accept=False) as socket:
            socket.server.taking.clear()
            await until(lambda: socket.server.in_send)
            socket.server.binary(msgpack.packb({"a": 1}))
            await turns()
            socket.server.taking.set()
            await until(lambda: texts or not socket.connection.alive or not socket.server.to_app.qsize())
            socket.server.disconnect()
            await socket.ended()
            assert (texts, socket.server.close) == (['{"a":1}'], None)


class TestMessages:
    async def test_one_room_json_and_msgpack_packed_once_and_from_everywhere(self, monkeypatch: pytest.MonkeyPatch):
        packed: list[bytes] = []
        pack = frames.pack
        monkeypatch.setattr(frames, "pack", lambda data: packed.append(data) or pack(data))
        async with running(Controller) as app:
            async with (
                connect(app.asgi, "/ws/reads") as plain,
                connect(app.asgi, "/ws/reads", subprotocols=PACKED) as one,
                connect(app.asgi, "/ws/typed", subprotocols=PACKED) as other,
            ):
                await until(lambda: len(app.manager.members("lobby")) == 3)
                await app.manager.send(["lobby"], Note(text="größe"))
                await app.manager.broadcast(b'{"by":"bytes"}')
                await app.manager.broadcast(b"no JSON")
                for socket in (one, other):
                    assert await received(socket) == envelope(Note(text="größe"))
                    assert await received(socket) == {"by": "bytes"}
                    assert await socket.receive() == "no JSON"
                assert [await plain.receive() for _ in range(3)] == [
                    json.dumps(envelope(Note(text="größe")), ensure_ascii=False, separators=(",", ":")),
                    '{"by":"bytes"}',
                    "no JSON",
                ]
        assert [data for data in packed if b"jararaca." not in data] == [
            json.dumps(envelope(Note(text="größe")), ensure_ascii=False, separators=(",", ":")).encode(),
            b'{"by":"bytes"}',
            b"no JSON",
        ]

    async def test_typed_handlers_replies_and_errors(self):
        async with running(Controller) as app, connect(app.asgi, "/ws/typed", subprotocols=PACKED) as socket:
            await sent(socket, envelope(Note(text="a", price=1.5)))
            assert await received(socket) == envelope(Note(text="A", price=1.5))
            await sent(socket, envelope(Note(text="b"), ref="7"))
            assert await received(socket) == {
                "MESSAGE_ID": "jararaca.reply",
                "ref": "7",
                "message": {"text": "B", "price": 0.5},
            }
            await sent(socket, {"MESSAGE_ID": "test_msgpack.nothing", "message": {}, "ref": "8"})
            refused = await received(socket)
            assert (refused["MESSAGE_ID"], refused["ref"]) == ("jararaca.error", "8")
            assert refused["message"]["code"] == "unknown_type"
            await sent(socket, {**envelope(Note(text="c"), ref="9"), "message": {"text": "c", "price": float("nan")}})
            refused = await received(socket)
            assert (refused["ref"], refused["message"]["code"]) == ("9", "bad_request")

    @pytest.mark.parametrize(
        "vector", [one for one in VECTORS["decode"] if "error" in one], ids=lambda vector: str(vector["why"])
    )
    @pytest.mark.parametrize("path", ["/ws/reads", "/ws/typed", "/ws/json"])
    async def test_what_is_bad_is_refused_and_the_third_time_closed(self, vector: dict[str, Any], path: str):
        # What is JSON, if no envelope, is for `iter_json` to give.
        if path == "/ws/json" and vector["why"] in ("nil", "an empty array", "a number"):
            return
        async with running(Controller) as app, connect(app.asgi, path, subprotocols=PACKED) as socket:
            for _ in range(3):
                await socket.send_bytes(bytes.fromhex(vector["msgpack"]))
                refused = await received(socket)
                assert (refused["MESSAGE_ID"], refused["message"]["code"]) == ("jararaca.error", "bad_request")
            assert (await socket.closed()).code == CloseCode.BAD_REQUEST

    async def test_a_secret_in_what_is_bad_is_not_logged(self, caplog: pytest.LogCaptureFixture):
        caplog.set_level(logging.DEBUG, "jararaca_ws")
        async with running(Controller) as app, connect(app.asgi, "/ws/reads", subprotocols=PACKED) as socket:
            for bad in (b"\xa6secret", b"\xa7secret\xff", b"\x81\xa6secret\x01", b"\x81\xc4\x06secret\x01"):
                await socket.send_bytes(bad)
            await socket.closed()
        assert "no msgpack" in caplog.text
        assert "secret" not in caplog.text

    @pytest.mark.parametrize("path", ["/ws/reads", "/ws/typed", "/ws/bytes", "/ws/binary", "/ws/rooms"])
    async def test_a_text_frame_closes(self, path: str):
        async with running(Controller) as app, connect(app.asgi, path, subprotocols=PACKED) as socket:
            await socket.send_text(json.dumps(envelope(Note(text="a"))))
            assert (await socket.closed()).code == CloseCode.UNSUPPORTED_DATA

    @pytest.mark.parametrize("path", ["/ws/reads", "/ws/typed"])
    async def test_a_binary_frame_of_a_client_that_speaks_json_closes(self, path: str):
        async with running(Controller) as app, connect(app.asgi, path, subprotocols=[SUBPROTOCOL]) as socket:
            await sent(socket, envelope(Note(text="a")))
            assert (await socket.closed()).code == CloseCode.UNSUPPORTED_DATA

    async def test_readers_of_text_get_json_and_readers_of_bytes_what_came(self):
        async with running(Controller) as app:
            async with connect(app.asgi, "/ws/text", subprotocols=PACKED) as socket:
                await sent(socket, {"a": [1, "é"]})
                assert await received(socket) == {"a": [1, "é"]}
                await socket.send_bytes(b"\xc1")
                assert await socket.receive() == "", "what is no msgpack is an empty text"
            async with connect(app.asgi, "/ws/json", subprotocols=PACKED) as socket:
                await socket.send_json({"a": [1, "é"], "many": [0] * 60_000})
                assert await socket.receive_json() == {"a": [1, "é"], "many": [0] * 60_000}
            async with connect(app.asgi, "/ws/bytes", subprotocols=PACKED) as socket:
                for data in (msgpack.packb({"a": 1}), b"\xc1"):
                    await socket.send_bytes(data)
                    assert await socket.receive() == data

    async def test_an_endpoint_of_binary_frames_reads_msgpack_of_it(self):
        async with running(Controller) as app:
            async with connect(app.asgi, "/ws/binary", subprotocols=PACKED) as socket:
                await sent(socket, envelope(Note(text="a")))
                assert await received(socket) == envelope(Note(text="a"))
            async with connect(app.asgi, "/ws/binary", subprotocols=[SUBPROTOCOL]) as socket:
                await socket.send_bytes(json.dumps(envelope(Note(text="a"))).encode())
                assert json.loads(await socket.receive()) == envelope(Note(text="a"))

    async def test_an_integer_beyond_64_bits_comes_as_json(self):
        class Huge(WebSocketMessage):
            MESSAGE_ID = "test_msgpack.huge"

            n: int

        async with running(Controller) as app, connect(app.asgi, "/ws/reads", subprotocols=PACKED) as socket:
            await until(lambda: app.manager.members("lobby"))
            await app.manager.send(["lobby"], Huge(n=2**64))
            await app.manager.send(["lobby"], Huge(n=2**64 - 1))
            assert await socket.receive_json() == envelope(Huge(n=2**64))
            assert await received(socket) == envelope(Huge(n=2**64 - 1))


class TestRouter:
    async def routed(self, *, binary: bool) -> tuple[FastAPI, WebSocketInterceptor]:
        router = WebSocketRouter("/ws", dispatcher=self.dispatch, binary=binary)
        app = FastAPI()
        app.include_router(router)
        interceptor = WebSocketInterceptor()
        interceptor.install(app)
        return app, interceptor

    async def dispatch(self, connection: WebSocketConnection, handlers: Any, raw: Any) -> Any:
        return {"was": type(raw).__name__, "hex": raw.hex() if isinstance(raw, bytes) else raw}

    @pytest.mark.parametrize(("binary", "was"), [(False, {"was": "str", "hex": '{"a":1}'}), (True, {"was": "bytes"})])
    async def test_a_dispatcher_gets_json_or_where_it_wants_bytes_what_came(self, binary: bool, was: dict[str, str]):
        app, _ = await self.routed(binary=binary)
        async with lifespan(app), connect(app, "/ws", subprotocols=PACKED) as socket:
            data = msgpack.packb({"a": 1})
            await socket.send_bytes(data)
            assert await received(socket) == {"hex": data.hex(), **was}


class TestControl:
    async def test_a_call_is_asked_and_answered(self):
        async with running(Controller) as app, connect(app.asgi, "/ws/asks", subprotocols=PACKED) as socket:
            asked = await received(socket)
            assert asked["MESSAGE_ID"] == Confirm.MESSAGE_ID
            await sent(socket, {"MESSAGE_ID": "jararaca.reply", "ref": asked["ref"], "message": {"yes": True}})
            assert (await received(socket))["message"]["text"] == "True"

    async def test_a_user_is_asked_from_anywhere(self):
        async with running(Controller) as app, connect(app.asgi, "/ws/reads", subprotocols=PACKED) as socket:
            await until(lambda: app.manager.connections)
            (connection,) = app.manager.connections
            await connection.identify("ana")
            asking = asyncio.create_task(app.manager.call_user("ana", Confirm(), timeout=timedelta(seconds=5)))
            asked = await received(socket)
            await sent(socket, {"MESSAGE_ID": "jararaca.reply", "ref": asked["ref"], "message": {"yes": False}})
            assert (await asking).yes is False

    async def test_rooms_that_a_client_joins(self):
        async with running(Controller) as app, connect(app.asgi, "/ws/rooms", subprotocols=PACKED) as socket:
            await sent(socket, {"MESSAGE_ID": "jararaca.join", "ref": "1", "message": {"rooms": ["packed-7"]}})
            joined = await received(socket)
            assert (joined["MESSAGE_ID"], joined["ref"]) == ("jararaca.joined", "1")
            request = {"room": "packed-7", **envelope(Note(text="a"))}
            await sent(socket, {"MESSAGE_ID": "jararaca.send", "ref": "2", "message": request})
            came = [await received(socket) for _ in range(2)]
            assert sorted(one["MESSAGE_ID"] for one in came) == ["jararaca.sent", Note.MESSAGE_ID]
            await sent(socket, {"MESSAGE_ID": "jararaca.join", "ref": "3", "message": {"rooms": ["packed-100"]}})
            assert (await received(socket))["message"]["code"] == "permission_denied"

    async def test_the_end_of_the_instance_is_told(self):
        async with serving(until_closed, subprotocols=PACKED) as socket:
            socket.connection.begin_shutdown()
            await socket.ended()
            (frame,) = socket.server.frames
            assert isinstance(frame, bytes)
            assert msgpack.unpackb(frame)["MESSAGE_ID"] == "jararaca.shutdown"
            assert socket.server.close == (4001, "shutdown")

    async def test_what_was_told_before_the_accept_follows_it(self):
        async def handler(connection: WebSocketConnection) -> None:
            assert connection.may_be_told
            connection.enqueue(encode(Gap(room="a")))
            await connection.accept()
            await connection.closed.wait()

        async with serving(handler, subprotocols=PACKED, accept=False) as socket:
            await until(lambda: socket.server.frames)
            assert [msgpack.unpackb(frame) for frame in socket.server.frames] == [
                {"MESSAGE_ID": "jararaca.gap", "message": {"room": "a"}}
            ]

    async def test_one_that_comes_back_gets_what_it_has_missed(self):
        async with fleet() as (instance,):
            before = await instance.connect("a")
            for n in range(3):
                await instance.manager.send(["a"], Kept(n=n))
            await settled(instance)
            first = json.loads(before.server.frames[-3])
            assert first["message"]["n"] == 0
            came = await _come_back(instance, StreamPosition(first["epoch"], first["offset"]))
            assert [one["MESSAGE_ID"] for one in came] == ["jararaca.recovered", Kept.MESSAGE_ID, Kept.MESSAGE_ID]
            assert came[0]["message"]["recovered"] is True
            assert [(one["message"]["n"], one["offset"]) for one in came[1:]] == [(1, 2), (2, 3)]


async def _come_back(instance: Any, position: StreamPosition) -> list[Any]:
    offered = [MSGPACK_SUBPROTOCOL, RECOVER_SUBPROTOCOL]
    manager = instance.manager
    async with serving(until_closed, manager=manager, settings=manager.settings, subprotocols=offered) as socket:
        socket.server.binary(msgpack.packb(json.loads(recover_frame({"a": position}))))
        await until(lambda: socket.connection in manager.connections)
        await manager.join(["a"], socket.connection)
        await settled(instance)
        return [msgpack.unpackb(frame) for frame in socket.server.frames]


async def test_fastapi_s_own_websocket_reads_and_writes_json():
    app = FastAPI()
    interceptor = WebSocketInterceptor()
    router = WebSocketRouter("/ws")

    @router.on_connect
    async def connected(websocket: WebSocket, connection: WebSocketConnection) -> None:
        await websocket.accept()
        await connection.join("all")
        await use_ws_manager().send(["all"], Note(text=await websocket.receive_text()))
        await websocket.send_json(await websocket.receive_json())

    app.include_router(router)
    interceptor.install(app)
    async with lifespan(app), connect(app, "/ws", subprotocols=PACKED) as socket:
        await sent(socket, {"a": 1})
        assert (await received(socket))["message"]["text"] == '{"a":1}'
        await sent(socket, {"b": 2})
        assert await received(socket) == {"b": 2}
