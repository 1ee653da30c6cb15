from datetime import timedelta

from jararaca_ws import (
    MemoryMessageBus,
    Message,
    MessageBusController,
    MessageBusInterceptor,
    MessageHandler,
    MessageOf,
    Microservice,
    Post,
    RestController,
)


class InvoicePaid(Message):
    """An event: every handler of the topic gets it."""

    MESSAGE_TOPIC = "invoices.paid"

    invoice: int


class SendReceipt(Message):
    """A task: exactly one worker gets it."""

    MESSAGE_TOPIC = "receipts.send"
    MESSAGE_TYPE = "task"

    invoice: int


@RestController("/invoices")
class InvoiceController:
    @Post("/{invoice}/paid", status_code=202)
    async def paid(self, invoice: int) -> None:
        await InvoicePaid(invoice=invoice).publish()  # leaves when the request has succeeded


@MessageBusController()
class Ledger:
    booked: set[int] = set()  # noqa: RUF012  # stands for a table

    @MessageHandler(InvoicePaid)
    async def book(self, paid: InvoicePaid) -> None:
        self.booked.add(paid.invoice)  # doing it twice does no harm


@MessageBusController()
class Receipts:
    sent: list[str] = []  # noqa: RUF012  # stands for a mail server

    @MessageHandler(InvoicePaid)
    async def order_receipt(self, paid: InvoicePaid) -> None:
        await SendReceipt(invoice=paid.invoice).publish()  # staged: leaves when this handler has succeeded

    @MessageHandler(SendReceipt, timeout=timedelta(seconds=5), max_attempts=3)
    async def send_receipt(self, message: MessageOf[SendReceipt]) -> None:
        invoice = message.payload().invoice
        if invoice < 0:
            raise ValueError("no such invoice")  # attempts 1 and 2 are retried, attempt 3 is given up
        self.sent.append(f"{invoice} {message.message_id}")


# A zero delay between attempts is for tests; leave it out otherwise.
bus = MemoryMessageBus(max_retry_delay=timedelta(0))
app = Microservice(
    name="billing",
    controllers=[InvoiceController, Ledger, Receipts],
    interceptors=[MessageBusInterceptor(bus=bus)],
)
