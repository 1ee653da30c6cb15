"""uvicorn's HTTP protocol, which waits for the head of a request a while, and takes one of a certain size."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["HTTPProtocol"]


_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


# The faster one of uvicorn's two that is there; which, a type checker cannot know.
_Protocol: Any = AutoHTTPProtocol


class HTTPProtocol(_Protocol):  # type: ignore[misc]
    """A client that opens a connection, and sends no whole request head in time, is disconnected, without an answer.

    A WebSocket begins with such a head. What a handshake or a request may take afterwards is the application's.

    Attributes:
        head_timeout_s: from the connection, and from the first byte of each later request.
        max_head_bytes: a longer head is answered with 431. That of a WebSocket has 128 lines of 8 KiB at most.
    """

    head_timeout_s = 10.0
    max_head_bytes = 64 * 1024

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # None while no head is waited for.
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._check_size(len(data))
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._head_timer is None and self.transport.get_protocol() is self and self._has_begun():
            self._wait_for_head()  # of the next request; uvicorn's keep-alive timeout ends with its first byte

    def _has_begun(self) -> bool:
        """Whether the next head has. Else it is a body that comes though the answer was given without it."""
        parser = getattr(self, "conn", None)  # None: it is the one with httptools
        if parser is None:
            return "method" not in self.scope
        return parser.their_state is h11.IDLE and bool(parser.trailing_data[0])

    def _check_size(self, count: int) -> None:
        # The one with httptools has the method when the head is whole; the one with h11 has a bound of its own.
        self._head_bytes = 0 if self.scope is not None and "method" in self.scope else self._head_bytes + count
        if self._head_bytes > self.max_head_bytes and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def handle_websocket_upgrade(self, *arguments: Any) -> None:
        self._stop_waiting()
        super().handle_websocket_upgrade(*arguments)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
