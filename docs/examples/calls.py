from datetime import timedelta

from fastapi import HTTPException
from pydantic import BaseModel

from jararaca_ws import (
    CallFailed,
    CallTimeout,
    Microservice,
    Post,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRequest,
    use_ws_manager,
)


class Decision(BaseModel):
    approved: bool


class Approve(WebSocketRequest[Decision]):  # what it is answered with
    MESSAGE_ID = "payments.approve"

    amount: int


class Typing(WebSocketMessage):
    MESSAGE_ID = "payments.typing"

    who: str = ""


@RestController("/payments")
class PaymentController:
    @WebSocketEndpoint("/ws/{user_id}")
    async def desk(self, connection: WebSocketConnection, user_id: str) -> None:
        await connection.join("desk")
        await connection.identify(user_id)
        first = await connection.call(Approve(amount=0), timeout=timedelta(seconds=10))
        connection.data.knows_how = first.approved
        async for message in connection:
            if isinstance(message, Typing):
                message.who = user_id
                await message.send("desk", exclude=connection)  # to all but the sender

    @Post("/{user_id}")
    async def pay(self, user_id: str, amount: int) -> bool:
        try:
            decision = await use_ws_manager().call_user(user_id, Approve(amount=amount), timeout=timedelta(seconds=10))
        except CallTimeout:
            raise HTTPException(504, "nobody answered") from None
        except CallFailed as error:
            raise HTTPException(502, error.reason) from None
        return decision.approved


app = Microservice(controllers=[PaymentController], interceptors=[WebSocketInterceptor()])
