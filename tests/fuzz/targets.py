"""What is written to, and what must hold whatever it was."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from urllib.parse import quote

import msgpack
from hypothesis import strategies as st

from jararaca_ws.auth.jwt_checker import JWTChecker
from jararaca_ws.auth.sources import TOKEN_SUBPROTOCOL, HeaderToken, MessageToken, SubprotocolToken
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.delivery import recoverable
from jararaca_ws.inbound.receiving import Receive
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed, connect
from jararaca_ws.typed_rooms import Room
from jararaca_ws.wire.protocol import MSGPACK_SUBPROTOCOL, SUBPROTOCOL
from jararaca_ws.wire.retained import RECOVER_SUBPROTOCOL
from tests.fuzz import inputs
from tests.server.running import UPGRADE, RawSocket, Running, raw_socket, request_head, running, until

__all__ = ["TARGETS", "Rig"]


class Said(WebSocketMessage):
    MESSAGE_ID = "fuzz.said"

    text: str = ""
    number: float = 0
    anything: Any = None


class Asked(WebSocketMessage):
    MESSAGE_ID = "fuzz.asked"


class Kept(WebSocketMessage):
    MESSAGE_ID = "fuzz.kept"
    DELIVERY = recoverable(size=5, ttl=timedelta(minutes=5))

    n: int


class Lobby(Room[Kept], pattern="fuzz:{name}"):
    name: str

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return self.name != "closed"


SOURCES = [HeaderToken(), SubprotocolToken(), MessageToken()]


class Endpoints:
    @WebSocketEndpoint("/typed", client_rooms=[Lobby], client_sends=[Kept])
    async def typed(self, connection: WebSocketConnection) -> None: ...

    @WebSocketEndpoint("/in/{room:path}")
    async def in_room(self, room: str, connection: WebSocketConnection) -> None:
        await connection.join(room)

    @WebSocketEndpoint("/kept")
    async def kept(self, connection: WebSocketConnection) -> None:
        await connection.join("a", "b")

    @WebSocketEndpoint("/private", authenticate=JWTChecker(inputs.SECRET, algorithms=["HS256"]), token_from=SOURCES)
    async def private(self, connection: WebSocketConnection) -> None:
        assert connection.user is not None

    @Receive(Asked, endpoint="private")
    async def asked_in_private(self, connection: WebSocketConnection) -> str:
        assert connection.user is not None
        return connection.user.id

    @Receive(Said, endpoint="typed")
    async def said(self, message: Said) -> None: ...

    @Receive(Asked, endpoint="typed")
    async def asked(self, connection: WebSocketConnection) -> str:
        return "answer"

    @Receive(Asked, endpoint="kept")
    async def asked_there(self) -> str:
        return "answer"

    @Receive(Asked, endpoint="in_room")
    async def asked_in_room(self, connection: WebSocketConnection) -> list[str]:
        return list(connection.rooms)


ASK = '{"MESSAGE_ID":"fuzz.asked","ref":"\x01","message":{}}'.replace("\x01", "the probe")
ERROR_CODES = {
    "bad_request",
    "bad_room",
    "unknown_type",
    "permission_denied",
    "room_limit",
    "too_many_requests",
    "rate_limited",
}
NEVER = {1006, 1011, 1012, 1013}
"""Close codes that say that something of ours went wrong."""


class Rig:
    """One server with the endpoints, in a loop of its own, and what it logs.

    Attributes:
        counts: how often each target was written to, and what came of it.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.logged: list[logging.LogRecord] = []
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._handler = logging.Handler()
        self._handler.emit = self.logged.append  # type: ignore[method-assign]
        self.server: Running

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self._handler)
        for name in ("jararaca_ws", "uvicorn.error", "asyncio"):
            logging.getLogger(name).setLevel(logging.INFO)
        settings = WebSocketSettings(handshake_rate=None)
        self.server = self._runner.run(
            self._stack.enter_async_context(running(controller=Endpoints, settings=settings, access_log=False))
        )
        self._runner.run(self._fill())
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()
        logging.getLogger().removeHandler(self._handler)

    @property
    def app(self) -> Any:
        return self.server.server.config.app

    @property
    def backend(self) -> MemoryWebSocketConnectionBackend:
        backend = self.server.manager.backend
        assert isinstance(backend, MemoryWebSocketConnectionBackend)
        return backend

    async def _fill(self) -> None:
        for n in range(10):
            await self.server.manager.send(["a"], Kept(n=n))
        self.epoch = (await self.server.manager.history("a")).position.epoch

    def write(self, name: str, value: Any) -> None:
        """Write one input to a target, and hold what came of it against the rules."""
        self.counts[name] += 1
        self.logged.clear()
        self._runner.run(TARGETS[name].write(self, value))
        for record in self.logged:
            self._check_line(record)

    def _check_line(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        assert record.levelno < logging.ERROR, line
        assert record.exc_info is None, line
        if record.name == "jararaca_ws":
            assert line.isprintable(), line
            assert len(line) < 600, line
            assert inputs.MARK not in line, line

    def check_nothing_is_left(self) -> None:
        """No socket, no connection, no room and no task of one is left."""

        async def left() -> None:
            server = self.server
            await until(lambda: not (server.protocols or server.connections or server.manager.rooms), what="sockets")
            gc.collect()
            await until(lambda: not _of_connections(asyncio.all_tasks()), what="tasks")

        self._runner.run(left())


def _of_connections(tasks: set[asyncio.Task[Any]]) -> list[str]:
    return [
        task.get_name() for task in tasks if re.match("websocket-|recovery-|room-requests-|in-loop", task.get_name())
    ]


# --- what comes back -------------------------------------------------------------------------------------------------


def _check_frame(text: str | bytes) -> Any:
    """Valid JSON, which holds no value that the client wrote; an error has a code of ours, an id, and nothing else."""
    written = text if isinstance(text, str) else json.dumps(msgpack.unpackb(text), default=repr)
    assert inputs.MARK not in written
    envelope = json.loads(written)
    if envelope["MESSAGE_ID"] == "jararaca.error":
        assert set(envelope) <= {"MESSAGE_ID", "message", "ref"}
        assert set(envelope["message"]) <= {"code", "id", "retry_after_ms"}
        assert envelope["message"]["code"] in ERROR_CODES
        assert re.fullmatch("[0-9a-f]{32}", envelope["message"]["id"])
    return envelope


def _check_close(code: int, reason: str) -> None:
    assert code not in NEVER, (code, reason)
    assert inputs.MARK not in reason


async def _ask(rig: Rig, name: str, socket: InLoopWebSocket) -> Any:
    """What the endpoint answers now; None where it has closed."""
    packs = socket.subprotocol == MSGPACK_SUBPROTOCOL
    await (socket.send_bytes(msgpack.packb(json.loads(ASK))) if packs else socket.send_text(ASK))
    try:
        while True:
            envelope = _check_frame(await socket.receive())
            rig.counts[f"{name}: {envelope['MESSAGE_ID']}"] += 1
            if envelope.get("ref") == "the probe":
                return envelope["message"]
    except WebSocketClosed as closed:
        _check_close(closed.code, closed.reason)
        rig.counts[f"{name}: closed with {closed.code}"] += 1
        return None


# --- the targets -----------------------------------------------------------------------------------------------------


async def _write_messages(rig: Rig, texts: Sequence[str]) -> None:
    async with connect(rig.app, "/typed", subprotocols=[SUBPROTOCOL]) as socket:
        for text in texts:
            await socket.send_text(text)
        assert await _ask(rig, "messages", socket) in ("answer", None)


async def _write_packs(rig: Rig, packs: Sequence[bytes]) -> None:
    async with connect(rig.app, "/typed", subprotocols=[MSGPACK_SUBPROTOCOL, SUBPROTOCOL]) as socket:
        for pack in packs:
            await socket.send_bytes(pack)
        assert await _ask(rig, "packs", socket) in ("answer", None)


async def _write_positions(rig: Rig, rooms: Any) -> None:
    text = json.dumps({"MESSAGE_ID": "jararaca.recover", "message": {"rooms": rooms}}).replace("EPOCH", rig.epoch)
    async with connect(rig.app, "/kept", subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]) as socket:
        await socket.send_text(text)
        assert await _ask(rig, "positions", socket) in ("answer", None)


async def _write_room(rig: Rig, room: str) -> None:
    if "\n" in room:
        return  # starlette's paths have none, so there is no such route
    async with connect(rig.app, f"/in/{quote(room, safe='/')}", subprotocols=[SUBPROTOCOL]) as socket:
        assert await _ask(rig, "rooms", socket) in ([room], None)


async def _write_frames(rig: Rig, pieces: Sequence[bytes]) -> None:
    async with raw_socket(rig.server.port, "/typed", subprotocols=SUBPROTOCOL) as client:
        try:
            for piece in pieces:
                await client.write(piece)
                await asyncio.sleep(0)
        except (BrokenPipeError, ConnectionResetError):
            rig.counts["frames: the server had closed"] += 1
        client.half_close()
        await _read_frames(rig, client, b"".join(pieces))
    await until(lambda: not rig.server.protocols)


async def _read_frames(rig: Rig, client: RawSocket, written: bytes) -> None:
    try:
        while True:
            first, payload = await client.frame()
            if first == 0x81:
                _check_frame(payload.decode())
            elif first == 0x88:
                code = int.from_bytes(payload[:2])
                rig.counts[
                    f"frames: closed with {code if code < 3000 or code in (4013, 4501) else 'their own code'}"
                ] += 1
                if payload[:2] not in written:  # else it is the client's own, which is echoed
                    _check_close(code, payload[2:].decode())
            else:
                assert first == 0x8A, first  # a pong
    except (EOFError, ConnectionResetError):
        return


_STATUSES = {101, 307, 400, 401, 403, 404, 405, 408, 413, 414, 417, 426, 429, 431, 501, 503, 505}
_ANSWERED = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_HEADERS = (
    "date server connection upgrade content-length content-type location allow retry-after transfer-encoding "
    "sec-websocket-accept sec-websocket-protocol sec-websocket-version sec-websocket-extensions"
)


async def _write_handshake(rig: Rig, handshake: tuple[str, Sequence[tuple[str, str]], bool]) -> None:
    path, headers, is_whole = handshake
    lines = [f"{name}: {value}\r\n".encode("utf-8", "replace").decode("latin-1") for name, value in headers]
    written = request_head(f"GET {path} HTTP/1.1", *(UPGRADE if is_whole else ()), *lines)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.server.port)
    try:
        writer.write(written)
        writer.write_eof()
        async with asyncio.timeout(5):
            answer = await reader.read()
    except ConnectionResetError:
        rig.counts["handshakes: reset"] += 1
        return
    finally:
        writer.transport.abort()
    answered = _ANSWERED.match(answer)
    if answered is None:
        assert answer == b"", answer
        rig.counts["handshakes: no answer"] += 1
        return
    rig.counts[f"handshakes: {int(answered[1])}"] += 1
    assert int(answered[1]) in _STATUSES, answer
    assert inputs.MARK.encode() not in answer or int(answered[1]) == 307, answer
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
    assert {line.partition(":")[0] for line in head.split("\r\n")[1:]} <= set(_HEADERS.split()), head


async def _write_token(rig: Rig, value: tuple[tuple[str, bool], str]) -> None:
    (token, may_count), where = value
    headers, offered, first = {}, [SUBPROTOCOL], None
    if where == "header":
        headers = {"authorization": f"Bearer {token}"}
    elif where == "subprotocol":
        offered.append(TOKEN_SUBPROTOCOL + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode())
    else:
        first = json.dumps({"MESSAGE_ID": "jararaca.authenticate", "message": {"token": token}})
    try:
        async with connect(rig.app, "/private", subprotocols=offered, headers=headers) as socket:
            if first is not None:
                await socket.send_text(first)
            who = await _ask(rig, "tokens", socket)
    except WebSocketClosed as refused:
        who = None
        rig.counts[f"tokens: {refused.status}"] += 1
        if refused.status != 401:
            raise
    assert who is None or may_count, (token, who)


@dataclass(frozen=True, slots=True)
class Target:
    """What is written, and how."""

    strategy: st.SearchStrategy[Any]
    write: Callable[[Rig, Any], Awaitable[None]]


TARGETS: dict[str, Target] = {
    "messages": Target(inputs.conversations, _write_messages),
    "packs": Target(inputs.packs, _write_packs),
    "positions": Target(inputs.recovered_rooms, _write_positions),
    "rooms": Target(inputs.rooms, _write_room),
    "tokens": Target(st.tuples(inputs.tokens, st.sampled_from(["header", "subprotocol", "message"])), _write_token),
    "frames": Target(inputs.frames, _write_frames),
    "handshakes": Target(inputs.handshakes, _write_handshake),
}
