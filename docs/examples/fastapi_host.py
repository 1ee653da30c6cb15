from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException

from jararaca_ws import WebSocketConnection, WebSocketInterceptor, WebSocketMessage, current_connection, health_router


class OrderChanged(WebSocketMessage):
    MESSAGE_ID = "orders.changed"

    order_id: int
    status: str


orders = {7: "new"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    orders[7] = "new"  # your own start; tasks that are started here can send
    yield


app = FastAPI(lifespan=lifespan)
websockets = WebSocketInterceptor()  # backend=RedisWebSocketConnectionBackend(...) for several instances
websockets.install(app)
app.include_router(health_router(websockets), prefix="/health")


async def user_id(token: str = "") -> str:
    if not token:
        raise HTTPException(401)
    return token


@app.put("/orders/{order_id}")
async def change(order_id: int, status: str, background: BackgroundTasks) -> None:
    # Leaves right before the response starts, and not at all where the next line raises.
    await OrderChanged(order_id=order_id, status=status).send(f"order-{order_id}")
    if order_id not in orders:
        raise HTTPException(404)
    orders[order_id] = status
    background.add_task(pack, order_id)


async def pack(order_id: int) -> None:
    # The response is out: this leaves at once.
    await OrderChanged(order_id=order_id, status="packed").send(f"order-{order_id}")


@app.websocket("/orders/{order_id}/ws")
async def follow(
    order_id: int, user: str = Depends(user_id), connection: WebSocketConnection = Depends(current_connection)
) -> None:
    await connection.identify(user)
    await connection.join(f"order-{order_id}")
    await connection.accept()  # what was sent since the join follows
    await connection.closed.wait()
