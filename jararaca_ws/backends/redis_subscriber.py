"""Receiving: one connection, one ordered reader, subscribed to what is wanted, watched for silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import timedelta
from typing import Any

from redis.asyncio.connection import AbstractConnection

from jararaca_ws.backends.redis_link import Link, unavailable
from jararaca_ws.backends.redis_watchdog import Watchdog
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.supervision import Backoff, Supervised

__all__ = ["RedisSubscriber"]

_BATCH = 500
"""Channels in one SUBSCRIBE."""


class RedisSubscriber:
    """Keeps one connection subscribed to the wanted channels, and hands over what arrives, in order.

    After a lost connection it comes back by itself, with backoff, subscribes again, and only then reports which
    channels may have missed something. A watchdog publishes a nonce and expects it back, so that also a replica that
    nobody publishes to is found out.

    For each channel at most one command is under way, so a confirmation always belongs to the last command.

    Args:
        link: to the server.
        deliver: gets each message, with its channel.
        report_gap: gets the channels that receive again.
        probe: a channel, and how the watchdog publishes its nonce to it; None: it sends PINGs.
        probe_interval: of the watchdog.
        timeout: for a subscription to be confirmed.
        linger: how long a channel that is not wanted any more stays subscribed.
        on_trouble: for a node of a cluster, whose channels are sharded ones: called when the connection has ended, or
            the node has put a channel out, because another one has it now. None: the server is the only one.
    """

    def __init__(
        self,
        link: Link,
        *,
        deliver: Callable[[bytes, bytes], Awaitable[None]],
        report_gap: Callable[[Collection[bytes]], None],
        probe: tuple[bytes, Callable[[bytes], asyncio.Future[Any]]] | None,
        probe_interval: timedelta,
        timeout: timedelta,
        linger: timedelta,
        on_trouble: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        self.link = link
        self._deliver = deliver
        self._report_gap = report_gap
        self._probe_channel = None if probe is None else probe[0]
        self._watchdog = Watchdog(probe_interval, self._ping if probe is None else probe[1])
        # The nonce of a PING that is to be sent.
        self._due_ping: bytes | None = None
        self._on_trouble = on_trouble
        self._timeout_s = timeout.total_seconds()
        self._linger_s = linger.total_seconds()
        # Channels that nobody wants any more, and since when: oldest first. They are kept for the linger, so that a
        # room that empties and fills again does not go back and forth.
        self._leaving: dict[bytes, float] = {}
        # None while no channel is leaving.
        self._timer: asyncio.TimerHandle | None = None
        self._wanted: set[bytes] = set()
        self._reset()
        # Subscribed when the connection was lost, and not yet again.
        self._lost: set[bytes] = set()
        self._healed: set[bytes] = set()
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._task = Supervised("jararaca_ws Redis subscriber", self._work, Backoff(max_s=2.0))

    def _reset(self) -> None:
        """Nothing is known of the connection, because there is none."""
        self._subscribed: set[bytes] = set()
        self._under_way: set[bytes] = set()
        # Channels whose state may differ from the wanted one.
        self._dirty: dict[bytes, None] = dict.fromkeys(self._wanted)
        self._wake = asyncio.Event()
        if self._dirty:
            self._wake.set()

    @property
    def healthy(self) -> bool:
        """Connected, and heard from within the last two probe intervals."""
        return self._task.healthy

    @property
    def lag_s(self) -> float | None:
        """How long the watchdog's last nonce took; None before the first."""
        return self._watchdog.lag_s

    @property
    def problem(self) -> str | None:
        """Why the connection was lost, or could not be made; None while there is one."""
        return self._task.problem

    @property
    def restarts(self) -> int:
        """How often the connection was lost or could not be made."""
        return self._task.restarts

    def start(self) -> None:
        self._lost.clear()
        self._reset()
        self._task.start()

    async def stop(self) -> None:
        """Leave no task and no connection behind; fail who waits for a confirmation."""
        await self._task.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._leaving.clear()
        self._wanted.clear()
        self._lost.clear()
        confirmations, self._confirmations = self._confirmations, {}
        for confirmation in confirmations.values():
            if not confirmation.done():
                confirmation.set_exception(BackendUnavailable("it was shut down"))
                confirmation.exception()  # nobody may be waiting any more

    # --- what is wanted -----------------------------------------------------------------------------------------------

    async def subscribe(self, channels: Collection[bytes]) -> None:
        """Want channels; returns when Redis has confirmed them all.

        Raises:
            BackendUnavailable: not confirmed within the timeout. They stay wanted until `unsubscribe`.
        """
        waiting = self.want(channels)
        if not waiting:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                for confirmation in waiting:
                    # Shielded, because others wait for the same confirmation.
                    await asyncio.shield(confirmation)
        except TimeoutError:
            raise BackendUnavailable(
                f"Redis did not confirm a subscription within {self._timeout_s:g} s {self.problem or ''}".rstrip()
            ) from None

    def want(self, channels: Collection[bytes]) -> list[asyncio.Future[None]]:
        """`subscribe` without waiting: what is done when Redis has confirmed them."""
        self._wanted.update(channels)
        return [self._confirmation(channel) for channel in channels if not self._is_confirmed(channel)]

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Want channels no more. Redis is told after the linger, where they are still not wanted."""
        now = asyncio.get_running_loop().time()
        for channel in channels:
            self._wanted.discard(channel)
            self._lost.discard(channel)
            self._leaving.pop(channel, None)
            self._leaving[channel] = now
            confirmation = self._confirmations.pop(channel, None)
            if confirmation is not None and not confirmation.done():
                confirmation.set_result(None)  # whoever waits has left the room, and sees that
        self._report_healed()
        self._let_go()

    def adopt(self, channels: Collection[bytes], missed: Collection[bytes]) -> None:
        """Want channels that another node had; those ``missed`` are reported as a gap once they receive again."""
        self._wanted.update(channels)
        self._lost.update(missed)
        for channel in channels:
            self._touch(channel)

    def abandon(self, channels: Collection[bytes]) -> set[bytes]:
        """Have no more to do with channels that another node has; those that may have missed something."""
        missed = {channel for channel in channels if channel in self._subscribed or channel in self._lost}
        for channel in channels:
            self._subscribed.discard(channel)  # the node ends that by itself
            self._dirty.pop(channel, None)
        self.unsubscribe(channels)
        for channel in channels:
            del self._leaving[channel]
        return missed

    def resume(self) -> None:
        """Ask again for what the node has put out, and still ought to have."""
        for channel in self._wanted - self._subscribed - self._under_way:
            self._touch(channel)

    def _let_go(self) -> None:
        """Tell Redis of the channels whose linger is over, and look again when the next one's is."""
        loop = asyncio.get_running_loop()
        while self._leaving:
            channel, since = next(iter(self._leaving.items()))
            if channel in self._wanted:
                del self._leaving[channel]
            elif since + self._linger_s <= loop.time():
                del self._leaving[channel]
                self._touch(channel)
            else:
                if self._timer is None:
                    self._timer = loop.call_at(since + self._linger_s, self._linger_over)
                return

    def _linger_over(self) -> None:
        self._timer = None
        self._let_go()

    def _is_confirmed(self, channel: bytes) -> bool:
        # An UNSUBSCRIBE that was wished for but is not under way will not be sent: the channel is wanted again.
        return channel in self._subscribed and channel not in self._under_way

    def _confirmation(self, channel: bytes) -> asyncio.Future[None]:
        self._touch(channel)
        confirmation = self._confirmations.get(channel)
        if confirmation is None:
            confirmation = self._confirmations[channel] = asyncio.get_running_loop().create_future()
        return confirmation

    def _touch(self, channel: bytes) -> None:
        self._dirty[channel] = None
        self._wake.set()

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _work(self, task: Supervised) -> None:
        try:
            await self._receive(task)
        except (Exception, BaseExceptionGroup) as error:
            # The first one ended the others: it is the reason.
            reason = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            if self._on_trouble is not None:
                self._on_trouble(reason)
            raise unavailable(reason) from error

    async def _receive(self, task: Supervised) -> None:
        connection = await self.link.open()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(connection))
                tasks.create_task(self._send_commands(connection))
                tasks.create_task(self._watch(task))
        finally:
            self._lost |= self._subscribed & self._wanted
            self._reset()
            await connection.disconnect(nowait=True)

    async def _watch(self, task: Supervised) -> None:
        if self._probe_channel is not None:
            await self.subscribe([self._probe_channel])
        await self._watchdog.watch(task)

    def _ping(self, nonce: bytes) -> None:
        self._due_ping = nonce
        self._wake.set()

    async def _send_commands(self, connection: AbstractConnection) -> None:
        # The channels of one SSUBSCRIBE would all have to be of one slot.
        shard, batch = ("", _BATCH) if self._on_trouble is None else ("S", 1)
        while True:
            await self._wake.wait()
            self._wake.clear()
            dirty = [channel for channel in self._dirty if channel not in self._under_way]
            joins = [channel for channel in dirty if channel in self._wanted and channel not in self._subscribed]
            leaves = [channel for channel in dirty if channel not in self._wanted and channel in self._subscribed]
            for channel in dirty:
                del self._dirty[channel]
            commands: list[tuple[str | bytes, ...]] = []
            for command, channels in (("UNSUBSCRIBE", leaves), ("SUBSCRIBE", joins)):
                self._under_way.update(channels)
                commands += [(shard + command, *channels[n : n + batch]) for n in range(0, len(channels), batch)]
            if self._due_ping is not None:
                commands.append(("PING", self._due_ping))
                self._due_ping = None
            for start in range(0, len(commands), _BATCH):
                await connection.send_packed_command(
                    connection.pack_commands(commands[start : start + _BATCH]), check_health=False
                )

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            reply: Any = await connection.read_response(disable_decoding=True)
            self._watchdog.read()
            # The answer to a PING is bare while nothing is subscribed.
            kind, *words = [b"pong", reply] if isinstance(reply, bytes) else reply
            if kind in (b"message", b"smessage"):
                if words[0] == self._probe_channel:
                    self._watchdog.heard(words[1])
                else:
                    await self._deliver(words[0], words[1])
            elif kind == b"pong":
                self._watchdog.heard(words[0])
            elif kind in (b"subscribe", b"ssubscribe", b"unsubscribe", b"sunsubscribe"):
                self._confirm(words[0], subscribed=b"un" not in kind)

    def _confirm(self, channel: bytes, *, subscribed: bool) -> None:
        was_asked = channel in self._under_way
        self._under_way.discard(channel)
        if subscribed:
            self._subscribed.add(channel)
        else:
            self._subscribed.discard(channel)
        if not was_asked and self._on_trouble is not None:
            if channel in self._wanted:  # the node has put it out: it is not asked again before we know who has it
                self._lost.add(channel)
                self._on_trouble(None)
            return
        if subscribed != (channel in self._wanted):
            self._touch(channel)  # the wish has changed while the command was under way
        elif subscribed:
            confirmation = self._confirmations.pop(channel, None)
            if confirmation is not None and not confirmation.done():
                confirmation.set_result(None)
        if subscribed and channel in self._lost:
            self._lost.discard(channel)
            self._healed.add(channel)
            self._report_healed()

    def _report_healed(self) -> None:
        """Report one gap for all channels that were lost, once the last of them receives again."""
        if self._healed and not self._lost:
            healed, self._healed = self._healed & self._wanted, set()
            self._report_gap(healed)
