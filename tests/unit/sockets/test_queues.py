from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jararaca_ws.sockets.queues import InboundQueue, OutboundQueue
from jararaca_ws.wire.frames import Frame
from tests.unit.played import turns, until


def frame(size: int) -> Frame:
    """A frame that takes ``size`` bytes in a queue."""
    return Frame(b"x" * (size - Frame.OVERHEAD))


def text(text: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": text}


GONE = {"type": "websocket.disconnect", "code": 1001, "reason": ""}


class TestOutbound:
    async def test_it_is_bounded_in_bytes_to_the_byte(self):
        queue = OutboundQueue(1000)
        assert queue.append(frame(600))
        assert not queue.append(frame(401))
        assert (len(queue), queue.size) == (1, 600)
        assert queue.append(frame(400))
        assert (len(queue), queue.size) == (2, 1000)

    async def test_frames_leave_in_order_and_give_their_bytes_back(self):
        queue = OutboundQueue(1000)
        frames = [frame(100), frame(200), frame(300)]
        for each in frames:
            queue.append(each)
        assert [queue.take(1)[0] for _ in frames] == frames
        assert (len(queue), queue.size) == (0, 0)

    async def test_a_frame_larger_than_the_limit_fits_alone(self):
        queue = OutboundQueue(1000)
        assert queue.append(frame(5000))
        assert not queue.append(frame(100))
        queue.take(1)[0]
        assert queue.append(frame(100))

    @pytest.mark.parametrize("way", ["take", "clear", "wake"])
    async def test_all_who_wait_for_space_are_woken(self, way: str):
        queue = OutboundQueue(1000)
        queue.append(frame(1000))
        waiting = [asyncio.create_task(queue.wait_for_space()) for _ in range(3)]
        await turns()
        assert not any(task.done() for task in waiting)
        queue.take(10_000) if way == "take" else getattr(queue, way)()
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert len(queue) == (1 if way == "wake" else 0)

    async def test_clear_gives_all_bytes_back(self):
        queue = OutboundQueue(1000)
        queue.append(frame(1000))
        queue.clear()
        assert (len(queue), queue.size) == (0, 0)
        assert queue.append(frame(1000))


class TestInbound:
    async def test_messages_arrive_in_order(self):
        queue = InboundQueue(10, 1000, patience_s=60)
        for letter in "abc":
            await queue.put(text(letter))
        assert [(await queue.get())["text"] for _ in "abc"] == ["a", "b", "c"]
        assert queue.size == 0

    async def test_a_reader_waits_for_the_next_message(self):
        queue = InboundQueue(10, 1000, patience_s=60)
        reading = asyncio.create_task(queue.get())
        await turns()
        assert not reading.done()
        await queue.put(text("a"))
        assert (await reading)["text"] == "a"

    async def test_cancelling_a_reader_loses_nothing(self):
        queue = InboundQueue(10, 1000, patience_s=60)
        reading = asyncio.create_task(queue.get())
        await turns()
        await queue.put(text("a"))  # wakes the reader, which is cancelled before it runs
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await queue.get())["text"] == "a"

    async def test_after_the_end_readers_get_what_is_queued_and_then_the_disconnect_again_and_again(self):
        queue = InboundQueue(10, 1000, patience_s=60)
        await queue.put(text("a"))
        queue.finish(GONE)
        queue.finish({**GONE, "code": 1006})
        assert (await queue.get())["text"] == "a"
        assert await queue.get() is GONE
        assert await queue.get() is GONE

    async def test_the_end_wakes_all_readers(self):
        queue = InboundQueue(10, 1000, patience_s=60)
        reading = [asyncio.create_task(queue.get()) for _ in range(3)]
        await turns()
        queue.finish(GONE)
        assert await asyncio.wait_for(asyncio.gather(*reading), 5) == [GONE] * 3

    @pytest.mark.parametrize("limits", [(4, 10_000), (1000, 4)], ids=["number", "bytes"])
    async def test_b32_where_somebody_reads_a_full_queue_makes_the_pump_wait(self, limits: tuple[int, int]):
        queue = InboundQueue(*limits, patience_s=60)
        await queue.put(text("0"))
        assert (await queue.get())["text"] == "0"
        for letter in "abcd":
            await queue.put(text(letter))
        putting = asyncio.create_task(queue.put(text("e")))
        await turns()
        assert not putting.done()
        assert [(await queue.get())["text"] for _ in "abcd"] == ["a", "b", "c", "d"]
        await putting
        assert (await queue.get())["text"] == "e"
        assert queue.discarded == 0

    @pytest.mark.parametrize("limits", [(4, 10_000), (1000, 4)], ids=["number", "bytes"])
    async def test_where_nobody_reads_the_oldest_are_discarded_and_counted(self, limits: tuple[int, int]):
        queue = InboundQueue(*limits, patience_s=0.01)
        for n in range(10):
            await queue.put(text(str(n)))
        assert queue.discarded == 6
        assert [(await queue.get())["text"] for _ in range(4)] == ["6", "7", "8", "9"]

    async def test_b32_what_a_slow_reader_has_not_read_yet_is_never_discarded(self):
        queue = InboundQueue(2, 1000, patience_s=0.01)
        await queue.put(text("0"))
        assert (await queue.get())["text"] == "0"
        putting = asyncio.create_task(self._put(queue, 20))
        await asyncio.sleep(0.05)  # longer than the patience: that is for those who never read
        assert not putting.done()
        assert [(await queue.get())["text"] for _ in range(20)] == [str(n) for n in range(20)]
        await putting
        assert queue.discarded == 0

    async def test_a_handler_that_begins_to_read_within_the_patience_misses_nothing(self):
        queue = InboundQueue(2, 1000, patience_s=5)
        putting = asyncio.create_task(self._put(queue, 20))
        await turns()
        assert [(await queue.get())["text"] for _ in range(20)] == [str(n) for n in range(20)]
        await putting
        assert queue.discarded == 0

    @staticmethod
    async def _put(queue: InboundQueue, count: int) -> None:
        for n in range(count):
            await queue.put(text(str(n)))

    async def test_a_message_larger_than_the_limit_passes_alone(self):
        queue = InboundQueue(10, 10, patience_s=60)
        await queue.put(text("x" * 100))
        assert len((await queue.get())["text"]) == 100

    async def test_a_waiting_pump_can_be_cancelled(self):
        queue = InboundQueue(1, 1000, patience_s=60)
        await queue.put(text("a"))
        await queue.get()
        await queue.put(text("b"))
        putting = asyncio.create_task(queue.put(text("c")))
        await turns()
        putting.cancel()
        await until(putting.done)
        assert (await queue.get())["text"] == "b"
        assert queue.size == 0
