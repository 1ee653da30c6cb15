"""picows: a Cython server without a framework. The floor in Python, one write per message.

It has no compression, and no backpressure: what a stalled reader does not take is buffered without limit.
"""

from collections import defaultdict
from urllib.parse import urlsplit

from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.servers.control import PORT, Control, rooms_of, run

rooms: defaultdict[str, set[WSTransport]] = defaultdict(set)


async def send(room: str, text: str) -> None:
    payload = text.encode()
    for transport in rooms[room]:
        transport.send(WSMsgType.TEXT, payload)


control = Control(send)


class Listener(WSListener):  # type: ignore[misc]  # a Cython class
    def __init__(self, joined: list[str]) -> None:
        self.joined = joined

    def on_ws_connected(self, transport: WSTransport) -> None:
        for room in self.joined:
            rooms[room].add(transport)
        control.joined += 1

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for room in self.joined:
            rooms[room].discard(transport)
        control.left += 1


def listener(request: WSUpgradeRequest) -> WSListener:
    return Listener(rooms_of(urlsplit(request.path.decode()).query))


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", PORT, backlog=2048)  # the backlog is uvicorn's
    async with control.listening():
        await server.serve_forever()


if __name__ == "__main__":
    run(main)
