import asyncio

from jararaca_ws import BackendUnavailable, BroadcastFunc, SendFunc

MAX_WAITING = 10_000


class Hub:
    """Stands for your broker: it gives what it is given to every instance."""

    def __init__(self) -> None:
        self.instances: set[HubBackend] = set()

    def publish(self, rooms: list[str] | None, message: bytes) -> None:
        if any(instance.inbox.qsize() >= MAX_WAITING for instance in self.instances):
            raise BackendUnavailable(f"an instance has {MAX_WAITING} messages waiting")
        for instance in self.instances:
            instance.inbox.put_nowait((rooms, message))


class HubBackend:
    """The four methods, and `start`, because there is a task to start."""

    broadcast_here: BroadcastFunc
    send_here: SendFunc

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        # Rooms are None for a broadcast.
        self.inbox: asyncio.Queue[tuple[list[str] | None, bytes]] = asyncio.Queue(MAX_WAITING)
        self.reader: asyncio.Task[None] | None = None  # None while it does not run

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self.broadcast_here = broadcast
        self.send_here = send

    async def start(self) -> None:
        self.reader = asyncio.create_task(self.read(), name="hub reader")
        self.hub.instances.add(self)

    async def broadcast(self, message: bytes) -> None:
        self.publish(None, message)

    async def send(self, rooms: list[str], message: bytes) -> None:
        self.publish(rooms, message)

    async def shutdown(self) -> None:
        self.hub.instances.discard(self)
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def publish(self, rooms: list[str] | None, message: bytes) -> None:
        if self.reader is None:
            raise BackendUnavailable("it is not running")
        self.hub.publish(rooms, message)

    async def read(self) -> None:
        """One reader, so there is one order. These two calls never wait on a socket."""
        while True:
            rooms, message = await self.inbox.get()
            if rooms is None:
                await self.broadcast_here(message)
            else:
                await self.send_here(rooms, message)
