import asyncio
from collections.abc import AsyncIterator
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
    """Owns the tasks that outlive their requests: it waits for them when the application stops."""

    tasks: asyncio.TaskGroup

    @asynccontextmanager
    async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as Background.tasks:
            yield

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        yield


async def import_everything(room: str) -> None:
    for percent in (0, 50, 100):
        # `send` would raise UnitOfWorkOver here: the request is over, nothing would flush it.
        await Progress(percent=percent).send_now(room)


@RestController("/imports")
class ImportController:
    @Post("/{room}", status_code=202)
    async def start(self, room: str) -> None:
        Background.tasks.create_task(import_everything(room))

    @WebSocketEndpoint("/ws/{room}")
    async def watch(self, connection: WebSocketConnection, room: str) -> None:
        await connection.join(room)
        await connection.closed.wait()


app = Microservice(controllers=[ImportController], interceptors=[WebSocketInterceptor(), Background()])
