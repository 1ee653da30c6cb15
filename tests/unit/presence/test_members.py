from __future__ import annotations

import random

import pytest

from jararaca_ws.backends.presence import PresenceChange
from jararaca_ws.presence.members import TrackedMembers
from jararaca_ws.rooms import RoomRegistry, presence_room, user_room
from jararaca_ws.sockets.connection import WebSocketConnection

GRACE_S = 10.0


class Lost(Exception):
    """The store did not answer."""


class Fixture:
    """Members that a test joins and leaves, a clock that it sets, and a store that it makes fail."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.now = 0.0
        self.registry: RoomRegistry[WebSocketConnection] = RoomRegistry()
        self.members = TrackedMembers(self.registry, grace_s, lambda: self.now)
        self.connections = [WebSocketConnection({"type": "websocket", "path": "/", "headers": []}) for _ in range(3)]
        for n, connection in enumerate(self.connections):
            connection.id = f"c{n}"
        # Room and connection -> kind and metadata.
        self.stored: dict[tuple[str, str], tuple[str, int]] = {}

    def join(self, room: str, n: int) -> None:
        self.registry.join(room, self.connections[n])
        self.members.touch(room, self.connections[n])

    def leave(self, room: str, n: int) -> None:
        self.registry.leave(room, self.connections[n])
        self.members.touch(room, self.connections[n])

    def write(self, *, fails: bool = False, arrives: bool = True) -> list[PresenceChange]:
        with self.members.changes() as changes:
            if arrives:
                self.store(changes)
            if fails:
                raise Lost
        return changes

    def store(self, changes: list[PresenceChange]) -> None:
        for change in changes:
            key = (change.room, change.connection_id)
            if change.kind == "gone":
                self.stored.pop(key, None)
            else:
                self.stored[key] = (change.kind, change.metadata.get("n", 0))

    def kinds(self) -> list[tuple[str, str, str]]:
        return [(change.kind, change.room, change.connection_id) for change in self.write()]


def test_what_comes_and_goes_between_two_writings_is_not_written():
    fixture = Fixture()
    fixture.join("a", 0)
    fixture.leave("a", 0)
    assert fixture.kinds() == []
    fixture.join("a", 0)
    assert fixture.kinds() == [("here", "a", "c0")]
    fixture.leave("a", 0)
    fixture.join("a", 0)
    assert fixture.kinds() == []


def test_who_leaves_is_marked_and_the_mark_is_taken_away_after_the_grace_period():
    fixture = Fixture()
    fixture.join("a", 0)
    fixture.write()
    fixture.leave("a", 0)
    assert fixture.kinds() == [("left", "a", "c0")]
    assert list(fixture.members.rooms) == []
    assert fixture.members.next_at == GRACE_S
    fixture.now = GRACE_S - 0.1
    assert fixture.kinds() == []
    fixture.now = GRACE_S
    assert fixture.kinds() == [("gone", "a", "c0")]
    assert fixture.members.next_at is None
    assert fixture.stored == {}


def test_who_comes_back_keeps_what_was_written_then():
    fixture = Fixture()
    for _ in range(2):
        fixture.join("a", 0)
        fixture.write()
        fixture.leave("a", 0)
        fixture.write()
        fixture.now += 6
    fixture.join("a", 0)
    fixture.write()
    fixture.now += 2 * GRACE_S
    assert fixture.kinds() == []
    assert fixture.stored == {("a", "c0"): ("here", 0)}


def test_without_a_grace_period_there_are_no_marks():
    fixture = Fixture(grace_s=0)
    fixture.join("a", 0)
    fixture.write()
    fixture.leave("a", 0)
    assert fixture.kinds() == [("gone", "a", "c0")]
    assert fixture.members.next_at is None
    assert list(fixture.members.rooms) == []


@pytest.mark.parametrize("arrives", [True, False])
def test_what_nobody_confirmed_is_written_again(arrives: bool):
    fixture = Fixture()
    fixture.join("a", 0)
    for _ in range(2):
        with pytest.raises(Lost):
            fixture.write(fails=True, arrives=arrives)
    assert fixture.kinds() == [("here", "a", "c0")]
    assert fixture.kinds() == []
    fixture.leave("a", 0)
    with pytest.raises(Lost):
        fixture.write(fails=True, arrives=arrives)
    assert fixture.kinds() == [("left", "a", "c0")]
    fixture.now = GRACE_S
    with pytest.raises(Lost):
        fixture.write(fails=True, arrives=arrives)
    assert fixture.kinds() == [("gone", "a", "c0")]


def test_who_leaves_before_it_was_confirmed_is_no_ghost():
    fixture = Fixture()
    fixture.join("a", 0)
    with pytest.raises(Lost):
        fixture.write(fails=True)  # written, and nobody said so
    fixture.leave("a", 0)
    assert fixture.kinds() == [("left", "a", "c0")]


def test_beginning_anew_writes_all_but_the_rooms_of_our_own():
    fixture = Fixture()
    for room in ("a", "b", user_room("ana"), presence_room("a")):
        fixture.registry.join(room, fixture.connections[0])
    fixture.join("c", 1)
    fixture.write()
    fixture.leave("c", 1)
    fixture.members.begin_anew()
    assert sorted(fixture.kinds()) == [("here", "a", "c0"), ("here", "b", "c0")]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_in_the_end_the_store_has_what_is(seed: int):
    chance = random.Random(seed)
    fixture = Fixture()
    for _ in range(300):
        room, n = chance.choice("abc"), chance.randrange(3)
        match chance.choice(["join", "leave", "metadata", "write", "lost", "time", "anew"]):
            case "join":
                fixture.join(room, n)
            case "leave":
                fixture.leave(room, n)
            case "metadata":
                connection = fixture.connections[n]
                connection.metadata = {"n": chance.randrange(5)}
                for joined in fixture.registry.rooms_of(connection):
                    fixture.members.touch(joined, connection)
            case "write":
                fixture.write()
            case "lost":
                with pytest.raises(Lost):
                    fixture.write(fails=True, arrives=chance.random() < 0.5)
            case "time":
                fixture.now += chance.random() * GRACE_S
            case _ if chance.random() < 0.1:
                fixture.stored.clear()
                fixture.members.begin_anew()
    fixture.write()
    fixture.now += 2 * GRACE_S
    fixture.write()
    assert fixture.stored == {
        (room, connection.id): ("here", connection.metadata.get("n", 0))
        for room in fixture.registry
        for connection in fixture.registry.members(room)
    }
    assert set(fixture.members.rooms) == set(fixture.registry)
    assert fixture.members.next_at is None
