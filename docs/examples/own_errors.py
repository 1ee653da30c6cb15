from datetime import timedelta

from jararaca_ws import (
    ErrorCategory,
    JararacaError,
    Microservice,
    Receive,
    RestController,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)


class Bid(WebSocketMessage):
    MESSAGE_ID = "auction.bid"

    amount: int


class AuctionOver(JararacaError):
    category = ErrorCategory.VALIDATION
    code = "auction_over"
    close_code = 4601
    status = 409


class TooFast(JararacaError):
    code = "too_fast"
    status = 429
    retry_after = timedelta(seconds=2)


@RestController("/auction")
class Auction:
    @WebSocketEndpoint("/ws")
    async def watch(self) -> None: ...

    @Receive(Bid)
    async def bid(self, bid: Bid) -> None:
        if bid.amount > 1000:
            raise AuctionOver(f"{bid.amount} came too late")  # words are for the log
        raise TooFast


app = Microservice(controllers=[Auction], interceptors=[WebSocketInterceptor()])
