"""Typed rooms are asked again whether a connection may stay: when what it may has changed, or may have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import islice
from typing import Any

from jararaca_ws.context import provide_ws_manager
from jararaca_ws.errors import one_line, quoted
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.supervision import Supervised
from jararaca_ws.typed_rooms import refused

__all__ = ["Reauthorizing"]

_log = logging.getLogger("jararaca_ws")

_SIDE_BY_SIDE = 16


class Reauthorizing:
    """One for each manager. Its task, which runs from the first time on, asks for sixteen connections side by side.

    Args:
        manager: what `use_ws_manager` returns to whoever is asked.
        withdraw: takes a connection out of rooms.
    """

    def __init__(self, manager: Any, withdraw: Callable[[Iterable[str], WebSocketConnection], None]) -> None:
        self._manager = manager
        self._withdraw = withdraw
        # Whose rooms are to be asked; and whether a room that cannot be asked is left.
        self._waiting: dict[WebSocketConnection, bool] = {}
        self._wanted = asyncio.Event()
        self._task = Supervised("websocket-reauthorizing", self._work)

    def ask_again(self, connections: Iterable[WebSocketConnection], *, strictly: bool) -> None:
        """Have the typed rooms of these connections asked.

        ``strictly``: a room that raises, or does not answer within ``auth_timeout``, is left.
        """
        for connection in connections:
            connection.permission_changes += 1
            if connection.granted:
                self._waiting[connection] = strictly or self._waiting.get(connection, False)
        if self._waiting:
            self._wanted.set()
            self._task.start()

    async def stop(self) -> None:
        await self._task.stop()
        self._waiting.clear()

    async def _work(self, task: Supervised) -> None:
        while True:
            task.mark_healthy()
            if not self._waiting:
                self._wanted.clear()
                await self._wanted.wait()
            some = list(islice(self._waiting, _SIDE_BY_SIDE))
            async with asyncio.TaskGroup() as asking:
                for connection in some:
                    asking.create_task(self._ask(connection, strictly=self._waiting.pop(connection)))

    async def _ask(self, connection: WebSocketConnection, *, strictly: bool) -> None:
        around = connection.around
        # What has not been asked when there is no time left, or when there is no unit of work, is as what raises.
        failed = list(connection.granted or ()) if strictly else []
        left: list[str] = []
        try:
            async with asyncio.timeout(connection.settings.auth_timeout.total_seconds()):
                with provide_ws_manager(self._manager):
                    async with nullcontext() if around is None else around(connection.websocket):
                        left = await self._refused(connection, strictly=strictly)
        except Exception as error:
            _log.error("connection %s: its rooms cannot be asked: %s", connection.id, one_line(error), exc_info=error)
            left = failed
        self._withdraw(left, connection)

    async def _refused(self, connection: WebSocketConnection, *, strictly: bool) -> list[str]:
        left: list[str] = []
        for joined, (name, cls) in list((connection.granted or {}).items()):
            try:
                if await refused(name, cls, connection):
                    left.append(joined)
            except Exception:
                _log.exception("connection %s: the room %s cannot be asked", connection.id, quoted(name))
                left += [joined] if strictly else []
        return left
