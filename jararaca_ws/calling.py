"""Calls across the cluster: one instance asks a user, the connections that answer are on any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from itertools import count

from jararaca_ws.commands import Answer, Ask, Command
from jararaca_ws.errors import CallFailed, CallTimeout, Unavailable
from jararaca_ws.rooms import instance_room
from jararaca_ws.rpc import Reply, WebSocketRequest, check_request, reply_of
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.waiting import Mailbox
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.refs import with_ref

__all__ = ["RemoteCalls"]

_log = logging.getLogger("jararaca_ws")

_MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Of answers that wait to be published; more are dropped, and whoever waits for them gets a timeout."""


class RemoteCalls:
    """What this instance asks users, and what its clients answer to other instances.

    Args:
        instance_id: of this instance.
        command: publishes commands, each to a room of ours, in order.
    """

    def __init__(self, instance_id: str, command: Callable[[Sequence[tuple[str, Command]]], Awaitable[None]]) -> None:
        self._instance_id = instance_id
        self._command = command
        self._ids = count()
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._answers: Mailbox[tuple[str, Answer]] = Mailbox()
        self._answers_bytes = 0
        # None before the first answer.
        self._courier: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many calls of this instance wait."""
        return len(self._waiting)

    # --- who asks -----------------------------------------------------------------------------------------------------

    async def call(self, room: str, request: WebSocketRequest[Reply], frame: Frame, timeout: timedelta) -> Reply:
        """Ask all in a room of ours; the first answer counts. ``frame`` is the request's."""
        check_request(type(request), timeout)
        call = f"{self._instance_id}-{next(self._ids):x}"
        question = Ask(
            call=call,
            instance=self._instance_id,
            frame=with_ref(frame, call).data.decode(),
            timeout_ms=max(0, round(timeout.total_seconds() * 1000)),
        )
        answer = self._waiting[call] = asyncio.get_running_loop().create_future()
        deadline = asyncio.timeout(timeout.total_seconds())
        try:
            async with deadline:
                await self._command([(room, question)])
                raw = await answer
        except TimeoutError:
            if not deadline.expired():
                raise
            raise CallTimeout(type(request), timeout) from None
        finally:
            self._waiting.pop(call, None)
            answer.cancel()
        return reply_of(request, raw)

    def answered(self, answer: Answer) -> None:
        """An instance has an answer for us; the second one finds nobody."""
        waiting = self._waiting.pop(answer.call, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.text)

    # --- who is asked -------------------------------------------------------------------------------------------------

    def asked(self, question: Ask, connections: Iterable[WebSocketConnection]) -> None:
        """Ask connections of this instance; one that cannot be asked is as one that does not answer."""
        frame = Frame(question.frame.encode())
        for connection in connections:
            self._ask(connection, question, frame)

    def _ask(self, connection: WebSocketConnection, question: Ask, frame: Frame) -> None:
        if not connection.alive:
            return
        calls = connection.asking()
        try:
            answer = calls.expect(question.call)
        except CallFailed as error:
            _log.warning("connection %s is not asked: %s", connection.id, error)
            return
        timer = asyncio.get_running_loop().call_later(question.timeout_ms / 1000, calls.forget, question.call)
        answer.add_done_callback(partial(self._pass_on, question, timer))
        connection.enqueue(frame)

    def _pass_on(self, question: Ask, timer: asyncio.TimerHandle, answer: asyncio.Future[str]) -> None:
        timer.cancel()
        if answer.cancelled() or answer.exception() is not None:
            return  # too late, or the client has gone
        self.reply(question.instance, Answer(call=question.call, text=answer.result()))

    def reply(self, instance: str, answer: Answer) -> None:
        """Have an answer published to who has asked, soon."""
        text = answer.text
        if self._answers_bytes + len(text) > _MAX_WAITING_BYTES:
            _log.warning("dropped an answer of %d characters: too many wait to be published", len(text))
            return
        self._answers_bytes += len(text)
        self._answers.put_nowait((instance_room(instance), answer))
        if self._courier is None:
            self._courier = asyncio.create_task(self._carry(), name="jararaca-ws answers")

    async def _carry(self) -> None:
        # Not in the pumps, which would read nothing meanwhile.
        while True:
            batch = [await self._answers.get()]
            while not self._answers.empty():
                batch.append(await self._answers.get())
            try:
                await self._command(batch)
            except Unavailable as error:
                _log.warning("%d answers could not be published: %s", len(batch), error)
            except Exception:
                _log.exception("%d answers could not be published", len(batch))
            self._answers_bytes -= sum(len(answer.text) for _, answer in batch)

    async def stop(self) -> None:
        """Let nobody wait any more; leave no task."""
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(CallFailed("stopped", "this instance stops"))
        task, self._courier = self._courier, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
