"""What `jararaca-ws serve` learns of the start and the end of the application."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jararaca_ws.errors import ConfigurationError, Unavailable

__all__ = ["WatchedLifespan"]


class WatchedLifespan:
    """An ASGI application around the user's: it keeps what the start-up was refused with.

    uvicorn would log that with its traceback, and forget it.

    Attributes:
        refusal: what the start-up was refused with; None where it was not.
        stop_failed: whether the end of the lifespan raised.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.refusal: ConfigurationError | Unavailable | None = None
        self.stop_failed = False
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        failure: Message | None = None

        async def keep_failure(message: Message) -> None:
            nonlocal started, failure
            if message["type"] == "lifespan.startup.failed":
                # starlette puts the traceback into it, and raises then.
                failure = message
                return
            started = True
            if message["type"] == "lifespan.shutdown.failed":
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    return  # a second signal has ended everything at once, as it should
                self.stop_failed = True
            await send(message)

        try:
            await self._app(scope, receive, keep_failure)
        except (ConfigurationError, Unavailable) as error:
            if started:
                raise
            self.refusal = error
            failure = {"type": "lifespan.startup.failed", "message": ""}
        finally:
            if failure is not None:
                await send(failure)
