from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from fastapi import HTTPException

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


class Session:
    """Stands for the session of your database."""

    log: list[str] = []  # noqa: RUF012

    async def commit(self) -> None:
        self.log.append("commit")

    async def rollback(self) -> None:
        self.log.append("rollback")


current_session: ContextVar[Session] = ContextVar("current_session")


class SessionInterceptor:
    """One session for each unit of work: committed when it succeeds, rolled back when it fails."""

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        if app_context.transaction_data.context_type == "websocket":
            yield  # a WebSocket lives for hours: nobody holds a session for that long
            return
        session = Session()
        token = current_session.set(session)
        try:
            yield
        except BaseException:
            await session.rollback()
            raise
        else:
            await session.commit()
        finally:
            current_session.reset(token)


class OrderPlaced(WebSocketMessage):
    MESSAGE_ID = "order.placed"

    number: int


@RestController("/orders")
class OrderController:
    @Post("/{number}", status_code=202)
    async def place(self, number: int) -> None:
        await OrderPlaced(number=number).send("orders")
        if number == 0:
            raise HTTPException(409, "there is no order 0")  # rolled back, and nothing is sent

    @WebSocketEndpoint("/ws")
    async def watch(self, connection: WebSocketConnection) -> None:
        await connection.join("orders")
        await connection.closed.wait()


app = Microservice(
    controllers=[OrderController],
    # The session is nested in the WebSocketInterceptor: it commits, and then the messages leave.
    interceptors=[WebSocketInterceptor(), SessionInterceptor()],
)
