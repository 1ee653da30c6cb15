"""F27: joins, leaves, disconnects and lost links at once, with a Redis that knows what we are subscribed to."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from jararaca_ws.errors import BackendUnavailable, ConnectionClosed
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.rooms import ALL_INSTANCES, instance_room
from tests.faults.test_redis import admin, channels, make
from tests.server.running import Note
from tests.servers import RedisServer
from tests.unit.played import Socket, serving, until_closed

pytestmark = pytest.mark.redis

ROOMS = [f"room-{n}" for n in range(12)]
STEPS = 3000


def wanted(manager: WebSocketConnectionManager) -> set[bytes]:
    rooms = [*manager.rooms, instance_room(manager.instance_id), ALL_INSTANCES]
    return {b"jararaca:websocket:broadcast", *(f"jararaca:websocket:send:{room}".encode() for room in rooms)}


async def agreed(manager: WebSocketConnectionManager, client: Redis) -> None:
    """Redis has exactly the subscriptions of the rooms that are not empty, as soon as the last command is through."""
    async with asyncio.timeout(10):
        while await channels(client) != wanted(manager):  # noqa: ASYNC110  # Redis knows
            await asyncio.sleep(0.01)


def consistent(manager: WebSocketConnectionManager, sockets: list[Socket]) -> None:
    """No ghost in any room: who is in one is alive, and both maps say the same."""
    alive = {socket.connection for socket in sockets if socket.connection.alive}
    memberships = [(room, member) for room in manager.rooms for member in manager.members(room)]
    assert {member for _, member in memberships} <= alive
    assert sorted(room for room, _ in memberships) == sorted(
        room for connection in manager.connections for room in manager.rooms_of(connection)
    )


@pytest.mark.parametrize("seed", range(3))
async def test_f27_redis_is_subscribed_to_exactly_the_rooms_that_are_not_empty(redis_server: RedisServer, seed: int):
    chance = random.Random(seed)
    before = asyncio.all_tasks()
    backend = make(redis_server, unsubscribe_linger=timedelta(0))
    async with WebSocketConnectionManager(backend) as manager, admin(redis_server) as client, AsyncExitStack() as stack:
        sockets: list[Socket] = []
        pending: list[asyncio.Task[None]] = []

        async def join(socket: Socket) -> None:
            try:
                await manager.join(chance.sample(ROOMS, 2), socket.connection)
            except (BackendUnavailable, ConnectionClosed):
                return  # it is in neither room then

        for step in range(STEPS):
            action = chance.random()
            if action < 0.1 or not sockets:
                sockets.append(await stack.enter_async_context(serving(until_closed, manager=manager)))
            elif action < 0.5:
                pending.append(asyncio.create_task(join(chance.choice(sockets))))
            elif action < 0.7:
                await manager.leave(chance.sample(ROOMS, 2), chance.choice(sockets).connection)
            elif action < 0.75:
                await manager.remove_websocket(chance.choice(sockets).connection)
            elif action < 0.85:
                sockets.pop(chance.randrange(len(sockets))).server.disconnect()
            elif action < 0.9 and pending:
                pending.pop(chance.randrange(len(pending))).cancel()
            elif action < 0.99:
                pending.append(asyncio.create_task(send(manager, chance.choice(ROOMS))))
            else:
                await client.client_kill_filter(_type="pubsub")
            if step % 3 == 0:
                await asyncio.sleep(chance.choice([0, 0, 0, 0.002]))
            if step % 500 == 499:
                await asyncio.gather(*pending, return_exceptions=True)
                consistent(manager, sockets)
                await agreed(manager, client)
        assert manager.rooms
        assert manager.counters.gaps, "the link was lost and came back"
        for socket in sockets:
            socket.server.disconnect()
            await socket.ended()
        consistent(manager, [])
        assert not list(manager.rooms)
        await agreed(manager, client)
    assert asyncio.all_tasks() == before


async def send(manager: WebSocketConnectionManager, room: str) -> None:
    try:
        await manager.send([room], Note(text="storm"))
    except BackendUnavailable:
        return
