"""The history checker itself: a clean log passes, and each defect that is planted in it is found."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from jararaca_ws.backends.base import StreamPosition
from tests.faults.history import History, Kind, Message, Promise

BOTH = list(Promise)
SENT = 12
"""By each of two senders to each of two rooms."""

# A call of History: its name, and its arguments.
Call = tuple[str, tuple[object, ...]]
Log = list[Call]


def place(room: str, n: int) -> StreamPosition:
    return StreamPosition(f"epoch of {room}", n + 1)


def clean() -> Log:
    """Two receivers in two rooms, each of which gets everything of two senders."""
    log: Log = [("joined", (receiver, room)) for receiver in ("one", "two") for room in ("a", "b")]
    for room in ("a", "b"):
        for n in range(2 * SENT):
            message = Message(room, ("x", "y")[n % 2], n // 2)
            log += [("sending", message), ("accepted", (message,))]
            log += [("received", (receiver, message, place(room, n))) for receiver in ("one", "two")]
    return log


def replay(log: Log) -> History:
    ticks = itertools.count()
    history = History(lambda: float(next(ticks)))
    for name, arguments in log:
        getattr(history, name)(*arguments)
    return history


def kinds(log: Log, promise: Promise) -> set[Kind]:
    return {one.kind for one in replay(log).violations(promise)}


def receipt(log: Log, receiver: str, message: Message) -> int:
    """Where in the log it is."""
    return next(
        i for i, (name, arguments) in enumerate(log) if name == "received" and arguments[:2] == (receiver, message)
    )


@pytest.mark.parametrize("promise", BOTH)
def test_a_clean_log_passes(promise: Promise):
    history = replay(clean())
    history.verify(promise)
    assert (history.owed, history.receipts) == (4 * SENT, 8 * SENT)


# --- one planted defect each ------------------------------------------------------------------------------------------

M = Message("a", "x", 5)
NEXT = Message("a", "x", 6)


def drop_one(log: Log) -> None:
    del log[receipt(log, "two", M)]


def drop_the_first(log: Log) -> None:
    del log[receipt(log, "two", Message("a", "x", 0))]


def drop_the_last(log: Log) -> None:
    del log[receipt(log, "two", Message("b", "y", SENT - 1))]


def drop_all_of_a_receiver(log: Log) -> None:
    log[:] = [call for call in log if not (call[0] == "received" and call[1][0] == "two")]


def swap_two(log: Log) -> None:
    i, j = receipt(log, "two", M), receipt(log, "two", NEXT)
    log[i], log[j] = log[j], log[i]


def repeat_one(log: Log) -> None:
    log.insert(receipt(log, "two", NEXT) + 1, log[receipt(log, "two", M)])


def repeat_one_at_once(log: Log) -> None:
    log.insert(receipt(log, "two", M), log[receipt(log, "two", M)])


def receive_what_was_never_sent(log: Log) -> None:
    log.append(("received", ("one", Message("a", "x", 99), place("a", 2 * SENT))))


def receive_in_a_room_of_others(log: Log) -> None:
    log.append(("sending", Message("c", "x", 0)))
    log.append(("received", ("one", Message("c", "x", 0), place("c", 0))))


def receive_in_the_wrong_room(log: Log) -> None:
    i = receipt(log, "two", M)
    log[i] = ("received", ("two", M._replace(room="b", sequence=77), place("b", 0)))


PLANTED: list[tuple[Callable[[Log], None], Kind]] = [
    (drop_one, Kind.LOSS),
    (drop_the_first, Kind.LOSS),
    (drop_the_last, Kind.LOSS),
    (drop_all_of_a_receiver, Kind.LOSS),
    (swap_two, Kind.REORDERED),
    (repeat_one, Kind.DUPLICATE),
    (repeat_one_at_once, Kind.DUPLICATE),
    (receive_what_was_never_sent, Kind.NEVER_SENT),
    (receive_in_a_room_of_others, Kind.WRONG_ROOM),
    (receive_in_the_wrong_room, Kind.LOSS),
    (receive_in_the_wrong_room, Kind.NEVER_SENT),
]


@pytest.mark.parametrize("promise", BOTH)
@pytest.mark.parametrize(("plant", "kind"), PLANTED)
def test_a_planted_defect_is_found(plant: Callable[[Log], None], kind: Kind, promise: Promise):
    log = clean()
    plant(log)
    assert kind in kinds(log, promise)
    with pytest.raises(AssertionError, match=kind.value):
        replay(log).verify(promise)


# --- gaps -------------------------------------------------------------------------------------------------------------


def lose(log: Log, *sequences: int) -> None:
    for sequence in sequences:
        del log[receipt(log, "two", Message("a", "x", sequence))]


def report(log: Log, before: int, *, room: str = "a", name: str = "gap", receiver: str = "two") -> None:
    """Report a possible loss just before x's message of that sequence is received."""
    log.insert(receipt(log, "two", Message("a", "x", before)), (name, (receiver, room)))


def test_a_loss_inside_a_reported_gap_is_allowed():
    log = clean()
    lose(log, 5, 6, 7)
    report(log, 8)
    assert not kinds(log, Promise.EPHEMERAL)
    assert Kind.LOSS in kinds(log, Promise.RECOVERABLE)


def test_a_gap_before_anything_came_covers_the_beginning_and_one_at_the_end_the_end():
    log = clean()
    lose(log, 0, 1, SENT - 1)
    report(log, 2)
    log.append(("gap", ("two", "a")))
    assert not kinds(log, Promise.EPHEMERAL)


@pytest.mark.parametrize("elsewhere", [{"before": 4}, {"before": 9}])
def test_a_loss_outside_the_gap_is_found(elsewhere: dict[str, int]):
    log = clean()
    lose(log, 6)
    report(log, **elsewhere)
    assert kinds(log, Promise.EPHEMERAL) == {Kind.LOSS}


@pytest.mark.parametrize("other", [{"room": "b"}, {"receiver": "one"}, {"name": "unrecovered"}])
def test_a_gap_of_another_room_receiver_or_promise_excuses_nothing(other: dict[str, str]):
    log = clean()
    lose(log, 6)
    report(log, 7, **other)
    assert kinds(log, Promise.EPHEMERAL) == {Kind.LOSS}


def test_a_gap_excuses_neither_duplicates_nor_reordering():
    log = clean()
    swap_two(log)
    repeat_one_at_once(log)
    log.insert(receipt(log, "two", NEXT) + 1, ("gap", ("two", "a")))
    assert kinds(log, Promise.EPHEMERAL) == {Kind.DUPLICATE, Kind.REORDERED}


def test_a_gap_cannot_excuse_what_was_sent_after_it():
    log = clean()
    drop_the_last(log)
    sent = log.index(("sending", Message("b", "y", SENT - 1)))
    log.insert(sent, ("gap", ("two", "b")))
    assert kinds(log, Promise.EPHEMERAL) == {Kind.LOSS}


def test_a_gap_with_a_time_covers_what_was_under_way_since_although_something_newer_came_first():
    for since, expected in ((0.5, set()), (1.5, {Kind.LOSS})):
        now = 0.0
        history = History(lambda: now)  # noqa: B023  # the clock is read within this turn
        history.joined("one", "a")
        for n in range(3):
            now = float(n)
            message = history.sending("a", "x", n)
            history.accepted(message)
            if n != 1:
                history.received("one", message)
        now = 3.0
        history.gap("one", "a", since_s=since)
        assert {one.kind for one in history.violations(Promise.EPHEMERAL)} == expected


def test_unrecovered_allows_losses_and_a_jump_of_the_offsets():
    log = clean()
    first = receipt(log, "two", Message("a", "x", 5))
    last = receipt(log, "two", Message("a", "x", 8))
    log[first:last] = [call for call in log[first:last] if not (call[0] == "received" and call[1][0] == "two")]
    assert kinds(log, Promise.RECOVERABLE) == {Kind.LOSS, Kind.OFFSET}
    report(log, 8, name="unrecovered")
    assert not kinds(log, Promise.RECOVERABLE)


def test_a_gap_allows_no_jump_of_the_offsets():
    log = clean()
    lose(log, 6)
    log.insert(receipt(log, "two", Message("a", "y", 6)), ("gap", ("two", "a")))
    assert not kinds(log, Promise.EPHEMERAL)
    assert kinds(log, Promise.RECOVERABLE) == {Kind.LOSS, Kind.OFFSET}


def test_a_gap_does_not_reach_beyond_the_next_receipt():
    history = History()
    history.joined("one", "a")
    messages = [history.sending("a", "x", n) for n in range(5)]
    for message in messages:
        history.accepted(message)
    history.received("one", messages[0])
    history.gap("one", "a")
    history.received("one", messages[2])
    history.received("one", messages[4])
    assert history.violations(Promise.EPHEMERAL) == [(Kind.LOSS, "one", messages[3])]


# --- membership, and sends whose outcome nobody knows -----------------------------------------------------------------


def test_what_is_sent_before_the_join_or_after_the_leave_is_not_owed_but_welcome():
    for received in (0, 1, 2):
        history = History()
        messages = []

        def send(n: int, history: History = history, messages: list[Message] = messages) -> None:
            messages.append(history.sending("a", "x", n))
            history.accepted(messages[-1])

        send(0)
        history.joined("one", "a")
        send(1)
        history.left("one", "a")
        send(2)
        history.received("one", messages[received])
        assert len(history.violations(Promise.EPHEMERAL)) == (received != 1)


def test_a_send_of_unknown_outcome_may_arrive_once_and_need_not():
    for copies, expected in ((0, []), (1, []), (2, [Kind.DUPLICATE])):
        history = History()
        history.joined("one", "a")
        message = history.sending("a", "x", 0)
        for _ in range(copies):
            history.received("one", message)
        assert [one.kind for one in history.violations(Promise.EPHEMERAL)] == expected


def test_a_second_try_is_the_same_message():
    history = History()
    history.joined("one", "a")
    message = history.sending("a", "x", 0)
    assert history.sending("a", "x", 0) == message
    history.accepted(message)
    assert [one.kind for one in history.violations(Promise.EPHEMERAL)] == [Kind.LOSS]


def test_a_second_try_after_the_join_began_before_it():
    history = History()
    message = history.sending("a", "x", 0)
    history.joined("one", "a")
    history.accepted(history.sending("a", "x", 0))
    assert not history.violations(Promise.EPHEMERAL)
    history.received("one", message)
    assert not history.violations(Promise.EPHEMERAL)


# --- offsets ----------------------------------------------------------------------------------------------------------


def at(log: Log, position: StreamPosition | None) -> set[Kind]:
    log[receipt(log, "two", M)] = ("received", ("two", M, position))
    return kinds(log, Promise.RECOVERABLE)


def test_offsets_are_looked_at():
    assert at(clean(), None) == {Kind.NO_OFFSET, Kind.OFFSET}
    assert at(clean(), place("a", 99)) == {Kind.OFFSET, Kind.POSITION}
    assert at(clean(), place("a", 9)) >= {Kind.OFFSET, Kind.POSITION}


def test_a_new_epoch_may_go_on_counting_and_may_not_jump():
    for jump in (0, 1):
        history = History()
        history.joined("one", "a")
        for n in range(6):
            message = history.sending("a", "x", n)
            history.accepted(message)
            history.received("one", message, StreamPosition("old" if n < 3 else "new", n + 1 + jump * (n >= 3)))
        assert [one.kind for one in history.violations(Promise.RECOVERABLE)] == [Kind.OFFSET] * jump


def test_two_receivers_see_one_order():
    """Each of them gets everything, in the order of its sender: only the positions betray that the orders differ."""
    log = clean()
    i, j = receipt(log, "two", M), receipt(log, "two", Message("a", "y", 5))
    positions = log[i][1][2], log[j][1][2]
    log[i], log[j] = (
        ("received", ("two", Message("a", "y", 5), positions[0])),
        ("received", ("two", M, positions[1])),
    )
    assert not kinds(log, Promise.EPHEMERAL)
    assert kinds(log, Promise.RECOVERABLE) == {Kind.POSITION}


def test_a_position_is_that_of_one_message():
    history = History()
    for n, receiver in enumerate(("one", "two")):
        history.joined(receiver, "a")
        history.received(receiver, history.sending("a", "x", n), StreamPosition("epoch", 1))
    assert history.violations(Promise.RECOVERABLE) == [(Kind.POSITION, "two", ("a", "x", 1))]
