from typing import Annotated

from fastapi import Query

from jararaca_ws import (
    Microservice,
    Post,
    RestController,
    Room,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)

OWNERS = {42: "Ana", 43: "Rui"}  # stands for your database


class OrderShipped(WebSocketMessage):
    MESSAGE_ID = "order.shipped"

    parcel: str


class OrderCancelled(WebSocketMessage):
    MESSAGE_ID = "order.cancelled"


class Typing(WebSocketMessage):
    MESSAGE_ID = "order.typing"

    name: str


class OrderRoom(Room[OrderShipped | OrderCancelled | Typing], pattern="order-{order_id}"):
    order_id: int

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return OWNERS.get(self.order_id) == connection.user_id


@RestController("/orders")
class OrderController:
    @Post("/{order_id}/ship")
    async def ship(self, order_id: int) -> None:
        await OrderShipped(parcel="JJ-1").send(OrderRoom(order_id=order_id))

    # One order for each socket: closed with 4507 where it is another's.
    @WebSocketEndpoint("/ws/{order_id}")
    async def follow(self, connection: WebSocketConnection, order_id: int, name: Annotated[str, Query()]) -> None:
        await connection.identify(name)
        await connection.join(OrderRoom(order_id=order_id))
        await connection.closed.wait()

    # The browser joins and leaves as it likes, and tells who else is there that it types.
    @WebSocketEndpoint("/ws", client_rooms=[OrderRoom], client_sends=[Typing])
    async def browse(self, connection: WebSocketConnection, name: Annotated[str, Query()]) -> None:
        await connection.identify(name)
        await connection.closed.wait()


app = Microservice(controllers=[OrderController], interceptors=[WebSocketInterceptor()])
