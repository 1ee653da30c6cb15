"""The verdict over a chaos run: a good log passes, and each planted defect is found."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from jararaca_ws.backends.base import StreamPosition
from tests.chaos.schedule import schedule
from tests.chaos.verdict import Event, Noted, judge
from tests.faults.history import Message, Promise

KEPT, PASSING = Promise.RECOVERABLE, Promise.EPHEMERAL
RECEIVERS = {KEPT: ("recovering", "v1/1"), PASSING: ("recovering/1", "v1/1")}


def at(promise: Promise, n: int) -> StreamPosition | None:
    return StreamPosition("e", n + 1) if promise is KEPT else None


def good_log() -> list[Event]:
    """Ten messages of each kind, received by a client that recovers and by one that does not, whose connection ends."""
    events: list[Event] = []

    def note(noted: Noted, promise: Promise, who: str, n: int | None = None) -> None:
        message = None if n is None else Message("a", "s", n)
        position = at(promise, n) if noted is Noted.RECEIVED and n is not None else None
        events.append(Event(float(len(events)), noted, promise, who, "a", message, position))

    for promise, receivers in RECEIVERS.items():
        for receiver in receivers:
            note(Noted.JOINED, promise, receiver)
        note(Noted.JOINED_UNTOLD, promise, "plain/1")
        for n in range(10):
            note(Noted.SENDING, promise, "s", n)
            note(Noted.ACCEPTED, promise, "s", n)
            for receiver in receivers:
                note(Noted.RECEIVED, promise, receiver, n)
        note(Noted.GONE, promise, "v1/1")
        note(Noted.GONE, promise, "plain/1")
    return events


def receipt(events: list[Event], promise: Promise, who: str, n: int) -> int:
    return next(
        place
        for place, event in enumerate(events)
        if (event.noted, event.promise, event.who) == (Noted.RECEIVED, promise, who)
        and event.message == Message("a", "s", n)
    )


def test_a_good_log_passes():
    verdict = judge(good_log())
    assert verdict.is_good, verdict
    assert verdict.counts["sent"] == verdict.counts["accepted"] == 20
    assert verdict.counts["received"] == 40


each_receiver = pytest.mark.parametrize(
    ("promise", "who"), [(promise, who) for promise, receivers in RECEIVERS.items() for who in receivers]
)


@each_receiver
def test_one_lost_receipt_is_found(promise: Promise, who: str):
    events = good_log()
    del events[receipt(events, promise, who, 4)]
    assert not judge(events).is_good


@each_receiver
def test_one_repeated_receipt_is_found(promise: Promise, who: str):
    events = good_log()
    place = receipt(events, promise, who, 4)
    events.insert(place, events[place])
    assert not judge(events).is_good


@each_receiver
def test_two_swapped_receipts_are_found(promise: Promise, who: str):
    events = good_log()
    one, other = receipt(events, promise, who, 4), receipt(events, promise, who, 5)
    events[one], events[other] = events[other], events[one]
    assert not judge(events).is_good


@each_receiver
def test_what_was_never_sent_is_found(promise: Promise, who: str):
    events = good_log()
    events = [event for event in events if event.noted is not Noted.SENDING or event.message != Message("a", "s", 9)]
    events = [event for event in events if event.noted is not Noted.ACCEPTED or event.message != Message("a", "s", 9)]
    assert not judge(events).is_good


def test_what_is_not_kept_may_be_lost_in_a_gap_and_only_there():
    events = good_log()
    place = receipt(events, PASSING, "v1/1", 4)
    events[place] = events[place]._replace(noted=Noted.GAP, message=None)
    assert judge(events).is_good
    del events[receipt(events, PASSING, "v1/1", 7)]
    assert not judge(events).is_good


def test_the_last_message_of_a_connection_that_ended_may_be_lost_and_no_earlier_one():
    events = good_log()
    del events[receipt(events, PASSING, "v1/1", 9)]
    assert judge(events).is_good
    del events[receipt(events, PASSING, "v1/1", 2)]
    assert not judge(events).is_good


def test_a_client_that_recovers_is_owed_the_last_one_too():
    events = good_log()
    del events[receipt(events, KEPT, "recovering", 9)]
    assert not judge(events).is_good


def test_a_message_of_unknown_fate_may_be_lost_and_not_doubled():
    events = good_log()
    events = [event for event in events if event.noted is not Noted.ACCEPTED or event.message != Message("a", "s", 9)]
    lost = [event for event in events if event.noted is not Noted.RECEIVED or event.message != Message("a", "s", 9)]
    assert judge(lost).is_good
    assert judge(lost).counts["unknown"] == 2
    place = receipt(events, KEPT, "recovering", 9)
    assert not judge([*events, events[place]]).is_good


def test_what_the_bus_has_is_owed_to_who_comes_back_and_to_no_single_connection():
    events = [
        event._replace(noted=Noted.HANDED_OVER) if event.noted is Noted.ACCEPTED else event for event in good_log()
    ]
    assert judge(events).is_good
    events = [event for event in events if event.who != "v1/1" or event.noted is not Noted.RECEIVED]
    assert judge(events).is_good
    del events[receipt(events, KEPT, "recovering", 9)]
    assert not judge(events).is_good


@pytest.mark.parametrize(
    "plant",
    [
        lambda event: event._replace(noted=Noted.NOT_RECOVERED, message=None),
        lambda event: event._replace(noted=Noted.WRONG, who="an answer 500"),
        lambda event: event._replace(position=StreamPosition("e", 77)),
        lambda event: event._replace(position=None),
        lambda event: event._replace(room="b", message=event.message._replace(room="b")),
    ],
    ids=["not-recovered", "wrong", "offset", "no-offset", "room"],
)
def test_other_planted_defects_are_found(plant: Callable[[Event], Event]):
    events = good_log()
    place = receipt(events, KEPT, "recovering", 4)
    events[place] = plant(events[place])
    assert not judge(events).is_good


def log_of_two_rooms() -> list[Event]:
    """Ten messages to two rooms; a client that is in both gets each through the first, and is told its other place."""
    events: list[Event] = []

    def note(noted: Noted, who: str, room: str, n: int | None = None, offset: int | None = None) -> None:
        message = None if n is None else Message("a b", "s", n)
        position = None if offset is None else StreamPosition("e", offset)
        events.append(Event(float(len(events)), noted, KEPT, who, room, message, position))

    note(Noted.JOINED, "recovering", "a")
    note(Noted.JOINED, "recovering", "b")
    for n in range(10):
        note(Noted.SENDING, "s", "a b", n)
        note(Noted.ACCEPTED, "s", "a b", n)
        note(Noted.RECEIVED, "recovering", "a", n, n + 1)
        note(Noted.PASSED, "recovering", "b", None, n + 1)
    return events


def test_what_went_to_two_rooms_is_owed_once():
    good = log_of_two_rooms()
    assert judge(good).is_good
    received = next(n for n, event in enumerate(good) if event.noted is Noted.RECEIVED)
    twice = [*good[: received + 2], good[received]._replace(room="b"), *good[received + 2 :]]
    never = [*good[:received], good[received]._replace(noted=Noted.PASSED, message=None), *good[received + 1 :]]
    not_told_of = [*good[: received + 4], *good[received + 6 :]]
    assert not judge(twice).is_good
    assert not judge(never).is_good
    assert not judge(not_told_of).is_good


@pytest.mark.parametrize("with_rabbitmq", [True, False])
def test_the_schedule_follows_from_the_seed_alone(with_rabbitmq: bool):
    faults = schedule(7, 60, with_rabbitmq=with_rabbitmq)
    assert faults == schedule(7, 60, with_rabbitmq=with_rabbitmq)
    assert faults != schedule(8, 60, with_rabbitmq=with_rabbitmq)
    assert len(faults) > 20
    assert faults == sorted(faults, key=lambda fault: fault.at_s)
    assert all(fault.at_s + fault.for_s <= 60 for fault in faults)
    for target in {fault.target for fault in faults}:
        own = [fault for fault in faults if fault.target == target]
        assert all(one.at_s + one.for_s < next_one.at_s for one, next_one in pairwise(own))
