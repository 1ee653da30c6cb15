"""The fast path: frames that were encoded, and deflated, once are written to the sockets as they are."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidHeader
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.waiting import Flag, Mailbox
from jararaca_ws.sockets.writing import DIRECT_FRAMES
from jararaca_ws.wire.protocol import CloseCode

__all__ = ["WebSocketProtocol"]


_SETTINGS = WebSocketSettings()
"""Of the environment. ``jararaca-ws serve`` has those of the application."""

_LAST_WORD_S = 1.0
"""What a socket has to take what is written last, its close frame for instance, before it is dropped."""

_HIGH_WATER_BYTES = 64 * 1024
"""What a transport may hold before it is written to no more. The default of plain ones; with TLS that is 512 KiB."""

_MAX_CONTROL_FRAMES = 200
_COUNTED_S = 10.0
"""More pings and pongs from a client in this time, each of which costs an answer or at least a look, end it: 4013."""

_MAX_FRAGMENTS = 4096
"""Of one message. The size says nothing of empty ones."""

_PONG = b"\x8a"
"""The first byte of a pong frame."""

_WINDOW_BITS = 12
"""4 KiB, as uvicorn has it: a larger window gains little on messages of this size and costs memory."""

_DEFLATE = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=_WINDOW_BITS,
    client_max_window_bits=_WINDOW_BITS,
    compress_settings={"memLevel": 5},
)


class _Handshaker(ServerProtocol):
    """websockets' half of a socket; where it refuses a handshake, its text would hold what the client wrote."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.debug = False  # or it would log, at that level, the heads of handshakes and frames: the tokens in them

    def reject(self, status: int, text: str) -> Response:
        refusal = self.handshake_exc
        if refusal is None:  # it is not the handshake that is wrong
            return super().reject(status, text)
        header = f": {refusal.name}" if isinstance(refusal, InvalidHeader) else ""
        response = super().reject(status, f"{HTTPStatus(status).phrase}{header}\n")
        response.headers["Sec-WebSocket-Version"] = "13"  # RFC 6455, 4.4
        return response


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O protocol, which also is the `DirectFrames` of its socket.

    Everything that a handshake, a ping, a fragmented message, an error or a close needs stays uvicorn's. Compression,
    where it is switched on, is negotiated without context takeover: then a frame means the same to every connection,
    and is deflated once for all of them (RFC 7692, 7.1.1).

    Attributes:
        drain_window_s: over how many seconds the sockets are closed when the server stops. For the whole process.
    """

    drain_window_s = _SETTINGS.drain_window.total_seconds()
    send_buffer_bytes = _SETTINGS.send_buffer_bytes

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: ServerProtocol = _Handshaker(
            extensions=[_DEFLATE] if config.ws_per_message_deflate else [],
            max_size=config.ws_max_size,
            logger=self.logger,
        )
        # uvicorn's are an asyncio.Queue and an asyncio.Event: 4 kB for each socket.
        self.queue: Any = Mailbox()
        self.writable: Any = Flag()
        self.writable.set()
        self._writing_paused = False
        self._eof = False
        # Whether the server stops: a handshake that is still open is refused as one that comes later, not as a failure.
        self._stopping = False
        # Control frames of the client, and up to when they are counted together.
        self._control_frames = 0
        self._counted_until = 0.0
        # The answer to the last ping, where it waits until the transport is writable; else empty.
        self._pong = b""
        # The deflate window that frames may be shared with; None where compression was not agreed to.
        self.window_bits: int | None = None
        # None until a connection of ours writes here.
        self._writable_again: Callable[[], None] | None = None
        self._unwritable: Callable[[], None] | None = None
        self._drain: Callable[[], None] | None = None
        self._lost: Callable[[], None] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Complete frames, as they are; what the transport does not take at once stays in its buffer.
        self.write_frames: Callable[[bytes], None] = transport.write
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None and self.send_buffer_bytes > 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._lost is not None:
            self._lost()
        # They lead to the connection and back: a circle that only the collector would find.
        self._writable_again = self._unwritable = self._drain = self._lost = None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.handshake_complete:  # then it is not refused, and the application will run
            self.window_bits = _shared_window(self.conn.extensions)
            scope = cast("dict[str, Any]", self.scope)
            scope["extensions"][DIRECT_FRAMES] = self

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing_paused = True
        self._check_writable()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writing_paused = False
        if self._pong and self._open:
            self.transport.write(self._pong)
        self._pong = b""
        if self._writable_again is not None:
            self._writable_again()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self._refuse_head()
        self._check_writable()  # it may have been a close frame, or nonsense

    def _refuse_head(self) -> None:
        """The head of the handshake is too long, or has a body: uvicorn would answer nothing, and wait for ever."""
        # websockets has answered what is too long, since 17.0.
        answer = b"".join(self.conn.data_to_send())
        self.transport.write(answer or self.conn.reject(HTTPStatus.BAD_REQUEST, "").serialize())
        self.close_sent = self.handshake_complete = True
        self.transport.close()
        self._drop_soon()

    def _check_writable(self) -> None:
        """Called after everything that may end `accepts_frames`."""
        if self._unwritable is not None and self.handshake_complete and not self.accepts_frames:
            self._unwritable()

    def shutdown(self) -> None:
        """The server stops: each socket closes at a moment of its own within the drain window, and is dropped after it.

        What is queued for it is written first. All at once, as uvicorn has it, would bring all clients to the other
        instances at once.
        """
        if self._drain is None or not self._open:
            self._stopping = True
            super().shutdown()
            return
        self.loop.call_later(random.uniform(0, self.drain_window_s), self._drain)
        self.loop.call_later(self.drain_window_s + _LAST_WORD_S, self.abort)

    def send_500_response(self) -> None:
        """Refuse a handshake: 500 where the application has failed, 503 where the server stops: another may take it."""
        if not self._stopping or self.initial_response or self.handshake_complete:
            super().send_500_response()
            return
        response = self.conn.reject(503, "Service Unavailable")
        response.headers["Retry-After"] = "1"
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))

    # --- uvicorn closes, and waits for the buffer: a peer who does not read would be kept for ever -------------------

    def _drop_soon(self) -> None:
        if self.transport.is_closing():
            self.loop.call_later(_LAST_WORD_S, self.abort)
            self._check_writable()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._drop_soon()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._drop_soon()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._drop_soon()

    def eof_received(self) -> None:
        super().eof_received()
        # The transport closes itself after this.
        self._eof = True
        self._check_writable()
        self.loop.call_later(_LAST_WORD_S, self.abort)

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._drop_soon()

    # --- what a client may send without a message ---------------------------------------------------------------------

    def _is_flooded(self) -> bool:
        """Whether this control frame is one too many; then the connection is failed."""
        now = self.loop.time()
        if now >= self._counted_until:
            self._counted_until, self._control_frames = now + _COUNTED_S, 0
        self._control_frames += 1
        if self._control_frames > _MAX_CONTROL_FRAMES:
            self._fail(CloseCode.TOO_MANY_REQUESTS, "too many control frames")
            return True
        return False

    def _fail(self, code: int, reason: str) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": int(code), "reason": reason})
        self.conn.fail(int(code), reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
        self._drop_soon()

    def send_receive_event_to_app(self) -> None:
        """As uvicorn has it; but that logs a traceback for text that is not UTF-8, so any client could fill the log."""
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        message: Any = {"type": "websocket.receive", "bytes": data}
        if self.curr_msg_data_type == "text":
            try:
                message = {"type": "websocket.receive", "text": data.decode()}
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "")
                return
        self.queue.put_nowait(message)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def handle_pong(self, event: Frame) -> None:
        if not self._is_flooded():
            super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MAX_FRAGMENTS:
            self._fail(CloseCode.TOO_BIG, "too many fragments")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._is_flooded():
            return
        if not self._writing_paused:
            super().handle_ping()
            return
        # A peer who sends pings and does not read: only the newest is answered, when it reads (RFC 6455, 5.5.3).
        for data in self.conn.data_to_send():
            if data[:1] == _PONG:
                self._pong = data
            else:
                self.transport.write(data)

    # --- DirectFrames -------------------------------------------------------------------------------------------------

    @property
    def accepts_frames(self) -> bool:
        """Whether the handshake is over, the socket is not closing, and the transport is below its high-water mark."""
        return not self._writing_paused and self._open

    @property
    def _open(self) -> bool:
        return self.handshake_complete and not self.close_sent and not self._eof and not self.transport.is_closing()

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Call back each time at which the transport becomes writable again."""
        self._writable_again = callback

    def on_unwritable(self, callback: Callable[[], None]) -> None:
        """Call back each time at which `accepts_frames` has become False."""
        self._unwritable = callback

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back when the transport has gone."""
        self._lost = callback

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call back when the server stops and it is this socket's turn to close."""
        self._drain = callback

    def close_frame(self, code: int, reason: str) -> None:
        """Begin the closing handshake, as uvicorn does for a ``websocket.close``, without waiting for the buffer."""
        if not self._open:
            self.transport.close()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # Not `close`, as uvicorn has it: that waits for a peer who does not read, for ever.
        self.close_timer = self.loop.call_later(self.close_timeout, self.abort)

    def abort(self) -> None:
        """Drop the transport and its buffer at once: a polite close would wait for a peer that does not read."""
        self.transport.abort()
        self._check_writable()


def _shared_window(extensions: list[Any]) -> int | None:
    for extension in extensions:
        if isinstance(extension, PerMessageDeflate) and extension.local_no_context_takeover:
            return int(extension.local_max_window_bits)
    return None
