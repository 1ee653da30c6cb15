"""uvicorn's server, with an end that nothing holds up."""

from __future__ import annotations

from types import FrameType

import uvicorn

__all__ = ["DrainingServer"]


class DrainingServer(uvicorn.Server):
    """On the first signal uvicorn stops: sockets close over the drain window. On a second one, whichever, at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            for connection in tuple(self.server_state.connections):
                # We are in a signal handler: the loop is told, and does it.
                connection.loop.call_soon_threadsafe(connection.transport.abort)
        super().handle_exit(sig, frame)
