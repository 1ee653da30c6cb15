"""Checked by mypy and pyright, never run: what type checkers know of the public API."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from fastapi import APIRouter, FastAPI, WebSocket

from jararaca_ws import (
    AppInterceptor,
    AppTransactionContext,
    CookieToken,
    HeaderToken,
    Health,
    HealthInterceptor,
    InvalidMessage,
    JWTChecker,
    LimitingBackend,
    MemoryMessageBus,
    MemoryWebSocketConnectionBackend,
    Message,
    MessageBus,
    MessageBusInterceptor,
    MessageHandler,
    MessageOf,
    Microservice,
    PresenceBackend,
    PresenceEntry,
    PresenceSettings,
    PresentedToken,
    RabbitMQMessageBus,
    Rate,
    RateLimitingBackend,
    RateLimitInterceptor,
    Receive,
    RedisWebSocketConnectionBackend,
    ReportsHealth,
    Room,
    RoomHistory,
    StreamPosition,
    User,
    WebSocketConnection,
    WebSocketConnectionBackend,
    WebSocketConnectionManager,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketMessageBase,
    WebSocketRequest,
    WebSocketRouter,
    connection_by,
    create_http_server,
    current_connection,
    health_router,
    recoverable,
    use_ws_manager,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Said(WebSocketMessage):
    MESSAGE_ID = "typing.said"
    text: str


class Kept(WebSocketMessage):
    MESSAGE_ID = "typing.kept"
    DELIVERY = recoverable(size=10, ttl=timedelta(minutes=1))


class HowMany(WebSocketRequest[list[int]]):
    MESSAGE_ID = "typing.how_many"
    what: str


async def calls(connection: WebSocketConnection) -> None:
    assert_type(await connection.call(HowMany(what="x")), list[int])
    assert_type(await connection.call(HowMany(what="x"), timeout=timedelta(seconds=1)), list[int])
    assert_type(await use_ws_manager().call_user("ana", HowMany(what="x")), list[int])
    assert_type(await use_ws_manager().send_to_connection(connection.id, Said(text="x")), None)
    await connection.call(Said(text="x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def recovers(manager: WebSocketConnectionManager) -> None:
    await manager.send(["a"], Kept(), id="own")
    history = await manager.history("a", since=StreamPosition("epoch", 3), limit=10)
    assert_type(history, RoomHistory)
    assert_type(history.position, StreamPosition)
    assert_type([entry.message for entry in history.messages], list[WebSocketMessageBase])


class SaidRoom(Room[Said | Kept], pattern="said-{number}"):
    number: int

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return connection.user_id is not None


class KeptRoom(Room[Kept], pattern="kept"): ...


class AnyMessageRoom(Room, pattern="any"): ...


async def typed_rooms(manager: WebSocketConnectionManager, connection: WebSocketConnection) -> None:
    await Said(text="x").send(SaidRoom(number=1), AnyMessageRoom(), "a")
    await Said(text="x").send_now(SaidRoom(number=1))
    await Said(text="x").send(KeptRoom())  # type: ignore[arg-type]
    await Said(text="x").send_now(KeptRoom())  # type: ignore[arg-type]
    await manager.send([SaidRoom(number=1), "a"], Said(text="x"))
    await manager.send([KeptRoom()], Said(text="x"))  # type: ignore[misc]
    await connection.join(SaidRoom(number=1), KeptRoom(), "a")
    await connection.leave(SaidRoom(number=1))
    await connection.watch_presence(SaidRoom(number=1))
    await manager.join([SaidRoom(number=1), "a"], connection)
    assert_type(await manager.presence(SaidRoom(number=1)), list[PresenceEntry])
    assert_type(await manager.history(KeptRoom()), RoomHistory)
    assert_type(SaidRoom(number=1).number, int)
    WebSocketEndpoint("/ws", client_rooms=[SaidRoom, KeptRoom, AnyMessageRoom], client_sends=[Said])
    WebSocketEndpoint("/ws", sends=[Said, SaidRoom, KeptRoom], include_in_schema=False)
    WebSocketEndpoint("/ws", sends=[str])  # type: ignore[list-item]
    WebSocketEndpoint("/ws", client_rooms=[Said])  # type: ignore[list-item]
    WebSocketEndpoint("/ws", client_rooms=[SaidRoom], client_sends=[SaidRoom])  # type: ignore[list-item]


class Joked(Message):
    MESSAGE_TOPIC = "typing.joked"
    MESSAGE_TYPE = "task"
    joke: str


class Controller:
    @WebSocketEndpoint("/ws")
    async def listen(self, connection: WebSocketConnection, websocket: WebSocket) -> None:
        async for message in connection:
            assert_type(message, WebSocketMessageBase)
        assert_type(connection.rooms, Collection[str])
        assert_type(await connection.identify("ana"), None)
        assert_type(await connection.set_metadata({"colour": "teal"}), None)
        assert_type(await connection.watch_presence("a"), None)
        assert_type(await connection.unwatch_presence("a"), None)
        await connection.send(Said(text="typed"))

    @MessageHandler(Joked)
    async def laugh(self, message: MessageOf[Joked]) -> None:
        assert_type(message.payload(), Joked)

    @Receive(Said)
    async def said(self, message: Said, room: str) -> Said:
        return message


router = WebSocketRouter("/{room}", concurrency=2)


@router.receive(Said)
async def said(message: Said, connection: WebSocketConnection) -> Said:
    return message


@router.on_connect
async def connect(connection: WebSocketConnection, room: str) -> None: ...


@router.on_disconnect
async def disconnected(connection: WebSocketConnection, code: int, reason: str) -> None: ...


@router.on_disconnect
async def disconnected_too(code: int, room: str) -> None: ...


@router.on_fallback
async def fallback(connection: WebSocketConnection, raw: str | bytes, error: InvalidMessage) -> None: ...


class Tracing:
    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        data = app_context.transaction_data
        if data.context_type == "websocket":
            assert_type(data.websocket, WebSocket)
        elif data.context_type == "message_bus":
            assert_type(data.topic, str)
        else:
            assert_type(data.request.method, str)
        yield


async def sends(controller: Controller) -> None:
    assert_type(await Said(text="x").send("a", "b"), None)
    assert_type(use_ws_manager(), WebSocketConnectionManager)
    assert_type(await use_ws_manager().broadcast(b"{}"), None)
    assert_type(await use_ws_manager().send_to_user("ana", Said(text="x")), None)
    assert_type(await use_ws_manager().disconnect_user("ana", 4503, "bye"), None)
    assert_type(await use_ws_manager().leave_user("ana", ["a"]), None)
    assert_type(await use_ws_manager().presence("a"), list[PresenceEntry])
    assert_type(create_http_server(Microservice(controllers=[Controller], interceptors=[Tracing()])), FastAPI)
    # A decorated method keeps its type.
    assert_type(await controller.said(Said(text="x"), room="a"), Said)
    assert_type(await said(Said(text="x"), next(iter(use_ws_manager().connections))), Said)
    await controller.laugh(MessageOf(Joked(joke="x"), message_id="1", attempt=1, topic="typing.joked"))


async def hosts(app: FastAPI, websocket: WebSocket) -> None:
    assert_type(WebSocketInterceptor().install(app, interceptors=[Tracing()]), None)
    assert_type(await current_connection(websocket), WebSocketConnection)


async def by_token(token: PresentedToken, tenant: str = "") -> User | None:
    return None if token.source == "cookie" else User(id=token.value)


async def tokens(connection: WebSocketConnection, websocket: WebSocket) -> None:
    checker = JWTChecker(b"x" * 32, algorithms=["HS256"])
    WebSocketInterceptor(authenticate=checker, token_from=[HeaderToken(), CookieToken("s")], allowed_origins=["*"])
    WebSocketEndpoint("/ws", authenticate=None)
    WebSocketRouter("/ws", authenticate=by_token)
    assert_type(await connection_by(by_token)(websocket), WebSocketConnection)
    assert_type(connection.user, User | None)
    assert_type(await use_ws_manager().mint_ticket(User(id="ana")), str)


backends: list[WebSocketConnectionBackend] = [
    MemoryWebSocketConnectionBackend(),
    RedisWebSocketConnectionBackend("redis://localhost"),
]
keeping_presence: list[PresenceBackend] = [
    MemoryWebSocketConnectionBackend(),
    RedisWebSocketConnectionBackend("redis://localhost"),
]
keeping_buckets: list[RateLimitingBackend] = [
    MemoryWebSocketConnectionBackend(),
    RedisWebSocketConnectionBackend("redis://localhost"),
]
limiting: list[LimitingBackend] = [
    MemoryWebSocketConnectionBackend(),
    RedisWebSocketConnectionBackend("redis://localhost"),
]
with_presence: AppInterceptor = WebSocketInterceptor(presence=PresenceSettings())
buses: list[MessageBus] = [MemoryMessageBus(), RabbitMQMessageBus("amqp://localhost")]
interceptor: AppInterceptor = Tracing()
watching: AppInterceptor = HealthInterceptor()
parts: list[ReportsHealth] = [
    WebSocketInterceptor(),
    WebSocketConnectionManager(MemoryWebSocketConnectionBackend()),
    RedisWebSocketConnectionBackend("redis://localhost"),
    MessageBusInterceptor(MemoryMessageBus()),
    RabbitMQMessageBus("amqp://localhost"),
]
assert_type(health_router(*parts), APIRouter)
assert_type(parts[0].health(), Sequence[Health])
around: AbstractAsyncContextManager[None]


def limits() -> None:
    backend = RedisWebSocketConnectionBackend("redis://localhost")
    rate = Rate(100, timedelta(minutes=1), burst=10)
    _: AppInterceptor = RateLimitInterceptor(rate, by="user", backend=backend)
    RateLimitInterceptor(rate, by=lambda data: None if data.context_type == "http" else "all")
    RateLimitInterceptor(rate, by="room")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
