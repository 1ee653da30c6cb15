import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from jararaca_ws import (
    AppTransactionContext,
    Microservice,
    Post,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)


class Progress(WebSocketMessage):
    MESSAGE_ID = "import.progress"

    percent: int


class Background:
    """Owns the tasks that outlive their requests: none is lost, none survives the application."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logging.error("a background task failed", exc_info=task.exception())

    @asynccontextmanager
    async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        yield


background = Background()


async def import_everything(room: str) -> None:
    await asyncio.sleep(0.1)  # by now the request is over
    for percent in (50, 100):
        await Progress(percent=percent).send_now(room)


@RestController("/imports")
class ImportController:
    @Post("/{room}", status_code=202)
    async def start(self, room: str) -> None:
        await Progress(percent=0).send(room)
        background.run(import_everything(room))

    @WebSocketEndpoint("/ws/{room}")
    async def watch(self, connection: WebSocketConnection, room: str) -> None:
        await connection.join(room)
        await connection.closed.wait()


# Started after the WebSocketInterceptor and stopped before it: while a task runs, the manager is there.
app = Microservice(controllers=[ImportController], interceptors=[WebSocketInterceptor(), background])
