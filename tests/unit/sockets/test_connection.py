from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect

from jararaca_ws.errors import BackendUnavailable, BadRoom, ConnectionClosed, IllegalTransition, NotBound
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.socket_state import ConnectionState
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import SUBPROTOCOL, encode
from tests.unit.played import errors_in, serving, turns, until, until_closed


class Note(WebSocketMessage):
    MESSAGE_ID = "test_connection.note"

    n: int = 0


def ms(milliseconds: float) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def settings(**overrides: Any) -> WebSocketSettings:
    """Short waits; a queue of ten small frames."""
    defaults: dict[str, Any] = {
        "max_queue_bytes": 10 * frame().size,
        "write_timeout": ms(5000),
        "close_timeout": ms(20),
        "handler_grace": ms(5000),
    }
    return WebSocketSettings(**{**defaults, **overrides})


def frame(n: int = 0) -> Frame:
    return encode(Note(n=n))


def numbers(frames: list[str | bytes]) -> list[int]:
    return [json.loads(one)["message"]["n"] for one in frames]


def note(n: Any = 0) -> str:
    return json.dumps({"MESSAGE_ID": "test_connection.note", "message": {"n": n}})


async def overflow(connection: WebSocketConnection) -> int:
    """Deliver until a delivery is refused; returns how many were taken."""
    for taken in range(1000):
        if not connection.enqueue(frame()):
            return taken
        await asyncio.sleep(0)
    raise AssertionError("the queue is not bounded")


class TestWriting:
    async def test_there_is_one_writer_and_order_is_kept(self):
        async with serving(until_closed) as socket:
            for n in range(300):
                assert socket.connection.enqueue(frame(n))
                if n % 7 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(socket.server.frames) == 300)
            assert numbers(socket.server.frames) == list(range(300))
            assert socket.server.most_in_send == 1

    async def test_deliveries_and_a_handlers_own_sends_share_the_writer(self):
        async def handler(connection: WebSocketConnection) -> None:
            for n in range(100):
                await connection.send(Note(n=n))
                await asyncio.sleep(0)
            await until_closed(connection)

        async with serving(handler) as socket:
            for n in range(1000, 1100):
                socket.connection.enqueue(frame(n))
                await asyncio.sleep(0)
            await until(lambda: len(socket.server.frames) == 200)
            sent = numbers(socket.server.frames)
            assert [n for n in sent if n < 1000] == list(range(100))
            assert [n for n in sent if n >= 1000] == list(range(1000, 1100))
            assert socket.server.most_in_send == 1

    async def test_binary_frames_stay_binary(self):
        async def handler(connection: WebSocketConnection) -> None:
            await connection.websocket.send_bytes(b"\xff\x00")
            await connection.websocket.send_text("größe")

        async with serving(handler) as socket:
            await socket.ended()
            assert socket.server.frames == [b"\xff\x00", "größe"]

    async def test_what_is_queued_before_the_close_is_written_before_it(self):
        async def handler(connection: WebSocketConnection) -> None:
            for n in range(5):
                await connection.send(Note(n=n))
            await connection.close(4503, "enough")

        async with serving(handler) as socket:
            await socket.ended()
            assert socket.server.kinds == ["accept"] + ["send"] * 5 + ["close"]
            assert socket.server.close == (4503, "enough")


class TestSlowConsumer:
    async def test_f19_overflow_closes_with_4008_and_frees_the_memory(self, caplog: pytest.LogCaptureFixture):
        async with serving(until_closed, settings=settings()) as socket:
            connection = socket.connection
            socket.server.taking.clear()
            assert await overflow(connection) == 11, "ten in the queue and one in the writer's hand"
            assert connection.overflowed
            assert not connection.alive
            assert len(connection.outbound) == 0, "what cannot be written is let go at once"
            assert not connection.enqueue(frame()), "and nothing is queued any more"
            await asyncio.wait_for(connection.closed.wait(), 5)
            assert connection.close_code == 4008
            assert any("slow consumer" in record.getMessage() for record in caplog.records)

    async def test_a_slow_consumer_that_reads_again_in_time_sees_4008(self):
        async with serving(until_closed, settings=settings(close_timeout=ms(5000))) as socket:
            socket.server.taking.clear()
            await overflow(socket.connection)
            socket.server.taking.set()
            await socket.ended()
            assert socket.server.close == (4008, "slow consumer")

    async def test_a_slow_consumer_is_logged_once(self, caplog: pytest.LogCaptureFixture):
        async with serving(until_closed, settings=settings(write_timeout=ms(30))) as socket:
            socket.server.taking.clear()
            await overflow(socket.connection)
            await socket.ended()
        assert len([record for record in caplog.records if "slow consumer" in record.getMessage()]) == 1

    async def test_a_write_that_takes_too_long_is_one_too(self):
        async with serving(until_closed, settings=settings(write_timeout=ms(20))) as socket:
            socket.server.taking.clear()
            assert socket.connection.enqueue(frame())
            await asyncio.wait_for(socket.connection.closed.wait(), 5)
            assert socket.connection.close_code == 4008
            assert socket.connection.overflowed
            await socket.ended()

    async def test_f20_a_reader_that_takes_one_frame_now_and_then_is_not_kept_for_ever(self):
        async with serving(until_closed, settings=settings(write_timeout=ms(60))) as socket:
            socket.server.taking.clear()
            for n in range(10):
                socket.connection.enqueue(frame(n))
            async with asyncio.timeout(5):
                while not socket.connection.closed.is_set():
                    await asyncio.sleep(0.02)
                    socket.server.taking.set()
                    taken = len(socket.server.sent)
                    await until(lambda taken=taken: len(socket.server.sent) > taken or not socket.connection.alive)
                    socket.server.taking.clear()
            assert socket.connection.close_code == 4008

    async def test_a_streaming_handler_does_not_make_its_client_a_slow_consumer(self):
        """A handler goes at the pace of its client, so its queue is as full as it may be, all the time.

        A room message that comes meanwhile needs room beside it: the client reads as fast as it can.
        """

        async def handler(connection: WebSocketConnection) -> None:
            for n in range(200):
                await connection.send(Note(n=n))

        async with serving(handler, settings=settings()) as socket:
            while len(socket.server.frames) < 150:
                await asyncio.sleep(0)
                if len(socket.server.frames) % 20 == 0:
                    assert socket.connection.enqueue(frame(10_000)), "a healthy client was closed with 4008"
            await socket.ended()
            assert [n for n in numbers(socket.server.frames) if n < 10_000] == list(range(200))
            assert socket.server.close == (1000, "")

    async def test_the_write_timeout_is_for_what_was_queued_at_one_moment_not_for_a_stream_without_end(self):
        async def handler(connection: WebSocketConnection) -> None:
            loop = asyncio.get_running_loop()
            end = loop.time() + 0.15
            while loop.time() < end:
                await connection.send(Note())

        async with serving(handler, settings=settings(write_timeout=ms(30))) as socket:
            await socket.ended()
            assert socket.server.close == (1000, "")
            assert not socket.connection.overflowed

    async def test_send_waits_for_space_and_goes_on(self):
        sent: list[int] = []

        async def handler(connection: WebSocketConnection) -> None:
            for n in range(50):
                await connection.send(Note(n=n))
                sent.append(n)

        async with serving(handler, settings=settings()) as socket:
            socket.server.taking.clear()
            await turns(100)
            assert 0 < len(sent) <= 12
            assert socket.connection.outbound.size <= socket.connection.settings.max_queue_bytes
            socket.server.taking.set()
            await socket.ended()
            assert numbers(socket.server.frames) == list(range(50))
            assert not socket.connection.overflowed

    async def test_cancelling_a_send_that_waits_queues_nothing(self):
        async with serving(until_closed, settings=settings()) as socket:
            socket.server.taking.clear()
            fill = asyncio.create_task(self._send_numbers(socket.connection, 0, 50))
            await turns(100)
            late = asyncio.create_task(socket.connection.send(Note(n=1000)))
            await turns()
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            socket.server.taking.set()
            await fill
            await until(lambda: len(socket.server.frames) == 50)
            assert numbers(socket.server.frames) == list(range(50))

    @staticmethod
    async def _send_numbers(connection: WebSocketConnection, first: int, last: int) -> None:
        for n in range(first, last):
            await connection.send(Note(n=n))

    @pytest.mark.parametrize("way", ["close", "disconnect", "write timeout"])
    async def test_all_sends_that_wait_are_told_when_the_connection_closes(self, way: str):
        limits = settings(write_timeout=ms(20) if way == "write timeout" else ms(5000))
        async with serving(until_closed, settings=limits) as socket:
            socket.server.taking.clear()
            waiting = [
                asyncio.create_task(self._send_numbers(socket.connection, 0, 50)),
                asyncio.create_task(self._send_numbers(socket.connection, 0, 50)),
            ]
            await turns(100)
            if way == "close":
                socket.connection.begin_close(1000, "")
            elif way == "disconnect":
                socket.server.disconnect()
            done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
            assert [type(error) for error in done] == [ConnectionClosed, ConnectionClosed]


class TestClosing:
    @pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 0, -1])
    async def test_a_code_that_may_not_be_sent_is_refused(self, code: int):
        async with serving(until_closed) as socket:
            with pytest.raises(ValueError, match=f"{code} is not a close code that may be sent"):
                await socket.connection.close(code)
            assert socket.connection.alive

    @pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4999])
    async def test_a_code_that_may_be_sent_arrives(self, code: int):
        async with serving(until_closed) as socket:
            await socket.connection.close(code, "é" * 61)
            assert socket.server.close == (code, "é" * 61)
            assert (socket.connection.close_code, socket.connection.close_reason) == (code, "é" * 61)

    async def test_a_reason_that_does_not_fit_is_refused(self):
        async with serving(until_closed) as socket:
            with pytest.raises(ValueError, match="at most 123 bytes"):
                await socket.connection.close(1000, "é" * 62)
            assert socket.connection.alive

    async def test_closing_again_does_nothing_and_returns_when_it_is_closed(self):
        async with serving(until_closed) as socket:
            await asyncio.gather(*(socket.connection.close(4000 + n) for n in range(3)))
            assert socket.server.close == (4000, "")
            await socket.connection.close(4999)
            assert socket.connection.close_code == 4000
            assert socket.connection.state is ConnectionState.CLOSED

    async def test_sending_after_the_close_raises(self):
        async with serving(until_closed) as socket:
            await socket.connection.close()
            with pytest.raises(ConnectionClosed, match=f"connection {socket.connection.id} is closed with 1000"):
                await socket.connection.send(Note())
            assert not socket.connection.enqueue(frame())
            with pytest.raises(WebSocketDisconnect):
                await socket.connection.websocket.send_text("late")

    async def test_b33_messages_after_our_close_are_no_error(self, caplog: pytest.LogCaptureFixture):
        async with serving(until_closed) as socket:
            socket.connection.begin_close(1000, "")
            for _ in range(200):
                socket.server.text(note())
            await socket.ended()
        assert not errors_in(caplog)

    async def test_on_closed_is_called_once_before_anybody_learns_of_the_close(self):
        calls: list[tuple[ConnectionState, bool]] = []
        async with serving(until_closed) as socket:
            socket.connection.on_closed(lambda it: calls.append((it.state, it.closed.is_set())))
            socket.server.disconnect()
            await socket.ended()
        assert calls == [(ConnectionState.CLOSED, False)]

    async def test_the_close_frame_has_a_time_limit(self):
        async with serving(until_closed, settings=settings(close_timeout=ms(10))) as socket:
            socket.server.taking.clear()
            await asyncio.wait_for(socket.connection.close(), 5)
            await socket.ended()


class TestTheHandlersEnd:
    async def test_returning_closes_with_1000(self):
        async def handler(connection: WebSocketConnection) -> None: ...

        async with serving(handler) as socket:
            await socket.ended()
            assert socket.server.close == (1000, "")

    async def test_f23_raising_closes_with_1011_and_is_logged_once_under_the_id_that_the_client_gets(
        self, caplog: pytest.LogCaptureFixture
    ):
        async def handler(connection: WebSocketConnection) -> None:
            raise RuntimeError("the secret inside")

        async with serving(handler) as socket:
            await socket.ended()
            assert socket.server.close is not None
            code, reason = socket.server.close
        assert code == 1011
        assert "secret" not in reason
        [record] = errors_in(caplog)
        assert record.exc_info
        assert isinstance(record.exc_info[1], RuntimeError)
        assert reason.removeprefix("error ") in record.getMessage()

    async def test_a_timeout_error_of_the_handlers_own_is_a_failure(self, caplog: pytest.LogCaptureFixture):
        async def handler(connection: WebSocketConnection) -> None:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

        async with serving(handler) as socket:
            await socket.ended()
            assert socket.server.close is not None
            assert socket.server.close[0] == 1011
        assert len(errors_in(caplog)) == 1

    async def test_a_cancellation_of_something_that_the_handler_awaits_is_a_failure_too(
        self, caplog: pytest.LogCaptureFixture
    ):
        """Nobody cancelled the handler: without a close frame its client would see a bare 1006."""

        async def handler(connection: WebSocketConnection) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        async with serving(handler) as socket:
            await asyncio.wait([socket.task], timeout=5)
            assert socket.server.close is not None, "the client sees 1006"
            assert socket.server.close[0] == 1011
            assert not socket.task.cancelled()
        assert len(errors_in(caplog)) == 1

    async def test_leaving_because_the_client_has_gone_is_no_failure(self, caplog: pytest.LogCaptureFixture):
        async def handler(connection: WebSocketConnection) -> None:
            while True:
                await connection.send(Note())

        async with serving(handler) as socket:
            await until(lambda: len(socket.server.frames) > 3)
            socket.server.vanished = True
            await socket.ended()
        assert not errors_in(caplog)

    async def test_nor_is_it_in_a_task_group(self, caplog: pytest.LogCaptureFixture):
        async def handler(connection: WebSocketConnection) -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send_for_ever(connection))
                tasks.create_task(self._send_for_ever(connection))

        async with serving(handler) as socket:
            await until(lambda: len(socket.server.frames) > 3)
            socket.server.disconnect()
            await socket.ended()
        assert not errors_in(caplog)

    @staticmethod
    async def _send_for_ever(connection: WebSocketConnection) -> None:
        while True:
            await connection.send(Note())
            await asyncio.sleep(0)

    async def test_the_end_of_another_connection_is_a_failure_of_this_handler(self, caplog: pytest.LogCaptureFixture):
        async with serving(until_closed) as other:
            await other.connection.close()

            async def handler(connection: WebSocketConnection) -> None:
                await other.connection.send(Note())

            async with serving(handler) as socket:
                await socket.ended()
                assert socket.server.close is not None
                assert socket.server.close[0] == 1011
        assert len(errors_in(caplog)) == 1

    async def test_a_handler_that_outlives_its_client_is_cancelled_after_its_grace(self):
        cancelled = asyncio.Event()

        async def handler(connection: WebSocketConnection) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert connection.closed.is_set()
                cancelled.set()
                raise

        async with serving(handler, settings=settings(handler_grace=ms(30))) as socket:
            socket.server.disconnect()
            await asyncio.wait_for(socket.connection.closed.wait(), 5)
            assert not cancelled.is_set(), "it has its grace"
            await asyncio.wait_for(cancelled.wait(), 5)
            await socket.ended()
            assert socket.server.close is None, "there is nobody to close"

    async def test_a_handler_may_finish_within_its_grace(self):
        finished = False

        async def handler(connection: WebSocketConnection) -> None:
            nonlocal finished
            await connection.closed.wait()
            await asyncio.sleep(0.001)
            finished = True

        async with serving(handler) as socket:
            socket.server.disconnect()
            await socket.ended()
        assert finished

    async def test_cancelling_the_serving_task_leaves_no_task(self):
        before = asyncio.all_tasks()
        async with serving(until_closed) as socket:
            socket.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await socket.task
            assert socket.connection.closed.is_set()
            assert asyncio.all_tasks() == before


class TestTheClientsEnd:
    async def test_f24_a_handler_that_never_reads_stays_healthy_and_learns_of_the_end(
        self, caplog: pytest.LogCaptureFixture
    ):
        async with serving(until_closed, settings=WebSocketSettings(read_patience=ms(10))) as socket:
            for _ in range(500):
                socket.server.text(note())
            socket.connection.enqueue(frame(7))
            await until(lambda: socket.server.to_app.empty() and len(socket.server.frames) == 1)
            assert socket.connection.alive
            assert socket.connection.inbound.size <= socket.connection.settings.max_inbound_bytes
            socket.server.disconnect(1001)
            await socket.ended()
            assert socket.connection.close_code == 1001
        assert len([record for record in caplog.records if "does not read" in record.getMessage()]) == 1

    async def test_a_peer_that_only_the_writer_finds_gone_is_gone(self):
        async with serving(until_closed) as socket:
            socket.server.vanished = True
            socket.connection.enqueue(frame())
            await socket.ended()
            assert socket.connection.close_code == 1006

    async def test_after_the_end_every_reader_gets_a_disconnect(self):
        async with serving(until_closed) as socket:
            socket.server.disconnect(1001)
            await socket.ended()
            for _ in range(3):
                assert await socket.served.receive() == {
                    "type": "websocket.disconnect",
                    "code": 1001,
                    "reason": "",
                }


class TestHandshake:
    async def test_returning_before_the_accept_refuses_the_handshake(self):
        async def handler(connection: WebSocketConnection) -> None: ...

        async with serving(handler, accept=False) as socket:
            await socket.ended()
            assert socket.server.kinds == ["close"]

    async def test_raising_before_the_accept_answers_500_where_the_server_can(self, caplog: pytest.LogCaptureFixture):
        async def handler(connection: WebSocketConnection) -> None:
            raise RuntimeError("the secret inside")

        async with serving(handler, accept=False, extensions={"websocket.http.response": {}}) as socket:
            await socket.ended()
            assert socket.server.sent[0] == {"type": "websocket.http.response.start", "status": 500, "headers": []}
            assert socket.server.kinds == ["http.response.start", "http.response.body"]
            assert b"secret" not in socket.server.sent[1]["body"]
        assert len(errors_in(caplog)) == 1

    async def test_raising_before_the_accept_refuses_where_it_cannot(self):
        async def handler(connection: WebSocketConnection) -> None:
            raise RuntimeError

        async with serving(handler, accept=False) as socket:
            await socket.ended()
            assert socket.server.kinds == ["close"]

    @pytest.mark.parametrize("accept", [True, False], ids=["after", "before"])
    @pytest.mark.parametrize(
        ("error", "code"), [(BadRoom("hunter2", "it is bad"), 4501), (BackendUnavailable("at 10.0.0.7"), 1013)]
    )
    async def test_a_bad_room_and_a_missing_server_have_codes_of_their_own(
        self, error: Exception, code: int, accept: bool, caplog: pytest.LogCaptureFixture
    ):
        async def handler(connection: WebSocketConnection) -> None:
            raise error

        async with serving(handler, accept=accept) as socket:
            await socket.ended()
            assert socket.server.close is not None
            assert socket.server.close[0] == code
            assert "hunter2" not in socket.server.close[1]
            assert "10.0.0.7" not in socket.server.close[1]
            # A browser is told the code of a close, never that of a refused handshake.
            assert socket.server.kinds == (["accept", "close"] if accept or code >= 4000 else ["close"])
        assert not errors_in(caplog)

    async def test_closing_before_the_accept_refuses(self):
        async def handler(connection: WebSocketConnection) -> None:
            await connection.close(4507, "not here")
            with pytest.raises(ConnectionClosed):
                await connection.accept()

        async with serving(handler, accept=False) as socket:
            await socket.ended()
            assert socket.server.close == (4507, "not here")

    async def test_a_client_that_goes_before_the_accept_is_no_failure(self, caplog: pytest.LogCaptureFixture):
        joined = asyncio.Event()

        async def handler(connection: WebSocketConnection) -> None:
            joined.set()
            await connection.closed.wait()
            await connection.accept()
            raise AssertionError("it was not told that the client has gone")

        async with serving(handler, accept=False) as socket:
            await joined.wait()
            socket.server.disconnect(1006)
            await socket.ended()
            assert socket.server.sent == []
        assert not errors_in(caplog)

    @pytest.mark.parametrize("server_raises", [False, True], ids=["server says nothing", "server raises"])
    async def test_nor_is_one_that_goes_during_the_accept(self, server_raises: bool, caplog: pytest.LogCaptureFixture):
        async def handler(connection: WebSocketConnection) -> None:
            await connection.accept()
            raise AssertionError("it was not told that the client has gone")

        async with serving(handler, accept=False) as socket:
            socket.server.taking.clear()
            await until(lambda: socket.server.in_send == 1)
            socket.server.vanished = server_raises
            socket.server.disconnect(1006)
            await until(lambda: not socket.connection.alive)
            socket.server.taking.set()
            await socket.ended()
        assert not errors_in(caplog)

    async def test_closing_while_the_accept_is_under_way_waits_for_it(self):
        async def handler(connection: WebSocketConnection) -> None:
            with pytest.raises(ConnectionClosed):
                await connection.accept()

        async with serving(handler, accept=False) as socket:
            socket.server.taking.clear()
            await until(lambda: socket.server.in_send == 1)
            socket.connection.begin_close(4001, "shutdown")
            await turns()
            socket.server.taking.set()
            await socket.ended()
            assert socket.server.kinds == ["accept", "close"]
            assert socket.server.close == (4001, "shutdown")
            assert socket.server.most_in_send == 1

    async def test_what_is_queued_before_the_accept_follows_it(self):
        async def handler(connection: WebSocketConnection) -> None:
            for n in range(3):
                assert connection.enqueue(frame(n))
            await turns()
            assert connection.state is ConnectionState.CONNECTING
            await connection.accept()

        async with serving(handler, accept=False) as socket:
            await socket.ended()
            assert socket.server.kinds == ["accept", "send", "send", "send", "close"]
            assert numbers(socket.server.frames) == [0, 1, 2]

    async def test_closing_a_connection_whose_handler_has_not_accepted_it_yet_ends_it(self):
        """Shutdown and overflow close from outside, whatever the handler is waiting for."""

        async def handler(connection: WebSocketConnection) -> None:
            await asyncio.Event().wait()

        async with serving(handler, accept=False, settings=settings(handler_grace=ms(10))) as socket:
            await turns()
            socket.connection.begin_close(4001, "shutdown")
            await asyncio.wait_for(socket.connection.closed.wait(), 2)
            await socket.ended()
            assert socket.server.close == (4001, "shutdown")
            assert socket.connection.close_code == 4001

    async def test_f19_a_room_that_floods_a_connection_before_its_accept_closes_it_with_4008(self):
        """The handler is still busy: its rooms' messages are bounded all the same, and the client learns why."""

        async def handler(connection: WebSocketConnection) -> None:
            await overflow(connection)
            assert len(connection.outbound) == 0
            with pytest.raises(ConnectionClosed):
                await connection.accept()

        async with serving(handler, accept=False, settings=settings()) as socket:
            await socket.ended()
            assert socket.server.close == (4008, "slow consumer")
            assert socket.server.frames == []

    async def test_accepting_twice_is_harmless_by_name_and_an_error_in_asgi(self):
        async def handler(connection: WebSocketConnection) -> None:
            await connection.accept()
            with pytest.raises(IllegalTransition, match="cannot go from OPEN to OPEN"):
                await connection.websocket._send({"type": "websocket.accept"})

        async with serving(handler) as socket:
            await socket.ended()
            assert socket.server.kinds == ["accept", "close"]

    async def test_refusing_after_the_accept_is_an_error(self):
        async def handler(connection: WebSocketConnection) -> None:
            with pytest.raises(IllegalTransition):
                await connection.websocket._send(
                    {"type": "websocket.http.response.start", "status": 403, "headers": []}
                )

        async with serving(handler) as socket:
            await socket.ended()
            assert socket.server.close == (1000, "")

    @pytest.mark.parametrize(
        ("offered", "chosen", "expected"),
        [
            ([], None, None),
            (["other"], None, None),
            (["other", SUBPROTOCOL], None, SUBPROTOCOL),
            (["other", SUBPROTOCOL], "other", "other"),
        ],
    )
    async def test_our_subprotocol_is_agreed_to_where_it_is_offered_and_nothing_else_was_chosen(
        self, offered: list[str], chosen: str | None, expected: str | None
    ):
        async def handler(connection: WebSocketConnection) -> None:
            await connection.websocket.accept(subprotocol=chosen)
            assert connection.understands_control == (expected == SUBPROTOCOL)

        async with serving(handler, accept=False, subprotocols=offered) as socket:
            await socket.ended()
            assert socket.server.sent[0].get("subprotocol") == expected
            assert socket.connection.subprotocol == expected

    async def test_without_a_manager_there_are_no_rooms(self):
        async with serving(until_closed) as socket:
            assert socket.connection.rooms == ()
            for act in (socket.connection.join, socket.connection.leave):
                with pytest.raises(NotBound, match="WebSocketInterceptor"):
                    await act("a")
            with pytest.raises(NotBound, match="WebSocketInterceptor"):
                await socket.connection.identify("u1")


class TestIterating:
    @staticmethod
    def collecting(messages: list[Any]) -> Callable[[WebSocketConnection], Any]:
        async def handler(connection: WebSocketConnection) -> None:
            async for message in connection:
                messages.append(message)  # noqa: PERF401 - one by one: a test looks at what came before the end

        return handler

    async def test_it_gives_typed_messages_until_the_client_goes(self):
        messages: list[Any] = []
        async with serving(self.collecting(messages)) as socket:
            for n in range(3):
                socket.server.text(note(n))
            socket.server.disconnect()
            await socket.ended()
        assert messages == [Note(n=0), Note(n=1), Note(n=2)]

    async def test_b7_a_binary_frame_closes_with_1003(self):
        messages: list[Any] = []
        async with serving(self.collecting(messages)) as socket:
            socket.server.text(note(1))
            socket.server.binary(note(2).encode())
            socket.server.text(note(3))
            await socket.ended()
            assert socket.server.close == (1003, "text frames only")
        assert messages == [Note(n=1)]

    async def test_b8_two_strikes_are_forgiven_and_the_third_closes_with_4501(self, caplog: pytest.LogCaptureFixture):
        messages: list[Any] = []
        async with serving(self.collecting(messages)) as socket:
            for text in ("null", note(1), "[]", note(2), "5"):
                socket.server.text(text)
            await socket.ended()
            assert socket.server.close is not None
            assert socket.server.close[0] == 4501
            assert socket.server.frames == [], "a client without the subprotocol gets no control messages"
        assert messages == [Note(n=1), Note(n=2)]
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 3

    async def test_b33_what_came_after_the_third_strike_is_not_handled(self):
        messages: list[Any] = []
        async with serving(self.collecting(messages)) as socket:
            for text in ("null", "null", "null", note(1)):
                socket.server.text(text)
            await socket.ended()
        assert messages == []

    async def test_a_client_that_understands_control_is_told_of_each_with_the_id_in_our_log(
        self, caplog: pytest.LogCaptureFixture
    ):
        async with serving(self.collecting([]), subprotocols=[SUBPROTOCOL]) as socket:
            socket.server.text('{"MESSAGE_ID":"hunter2","message":{}}')
            socket.server.text(note("hunter2"))
            await until(lambda: len(socket.server.frames) == 2)
            errors = [json.loads(one) for one in socket.server.frames]
        assert [error["MESSAGE_ID"] for error in errors] == ["jararaca.error"] * 2
        assert [error["message"]["code"] for error in errors] == ["unknown_type", "bad_request"]
        assert "hunter2" not in json.dumps(errors)
        for error, record in zip(errors, caplog.records, strict=True):
            assert error["message"]["id"] in record.getMessage()

    async def test_several_readers_share_the_messages(self):
        messages: list[Any] = []

        async def handler(connection: WebSocketConnection) -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(3):
                    tasks.create_task(self.collecting(messages)(connection))

        async with serving(handler) as socket:
            for n in range(30):
                socket.server.text(note(n))
            socket.server.disconnect()
            await socket.ended()
        assert sorted(message.n for message in messages) == list(range(30))
