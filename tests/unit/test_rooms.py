from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jararaca_ws.errors import BadRoom
from jararaca_ws.rooms import MAX_ROOM_BYTES, RoomRegistry, check_room, check_rooms

LITERAL = [
    "a,b",
    "*",
    "?",
    "[x]",
    "{tag}",
    "../x",
    "__keyspace@0__",
    "a b",
    " a ",
    "%00",
    "%2C",
    "a:b",
    "größe",
    "日本",
    "🐦",
    "\u00a0",
    "x" * MAX_ROOM_BYTES,
    "é" * 127,
]
BAD = {
    "B17 NUL": "a\x00b",
    "B18 CR LF": "a\r\nb",
    "B18 tab": "a\tb",
    "DEL": "a\x7fb",
    "C1 control": "a\x85b",
    "B19 empty": "",
    "B20 256 bytes": "x" * 256,
    "B20 256 bytes of UTF-8": "é" * 128,
    "B20 1 MB": "é" * 500_000,
    "B20 not NFC": "e\u0301",
    "B20 zero-width": "a\u200bb",
    "B20 zero-width joiner": "a\u200db",
    "B20 byte order mark": "\ufeffa",
    "B20 bidirectional": "a\u202eb",
    "line separator": "a\u2028b",
    "private use": "a\ue000b",
    "unassigned": "a\U000e0fffb",
    "lone surrogate": "a\ud800b",
    "a lone surrogate far out": "é" * 300 + "\ud800",
    "a number": 7,
    "None": None,
    "bytes": b"a",
}


@pytest.mark.parametrize("room", LITERAL)
def test_b16_b18_every_printable_character_is_literal(room: str):
    assert check_room(room) == room


@pytest.mark.parametrize("room", BAD.values(), ids=BAD.keys())
def test_b17_b20_what_is_no_room_is_refused_in_one_short_line(room: Any):
    with pytest.raises(BadRoom) as caught:
        check_room(room)
    assert caught.value.room is room
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


@given(st.text())
def test_whatever_passes_is_short_printable_and_normal(text: str):
    try:
        check_room(text)
    except BadRoom:
        return
    assert 0 < len(text.encode()) <= MAX_ROOM_BYTES
    assert unicodedata.is_normalized("NFC", text)
    assert "\x00" not in text


def test_rooms_are_taken_once_in_the_order_given():
    assert check_rooms(["b", "a", "b"]) == ["b", "a"]
    assert check_rooms(room for room in ("a", "b")) == ["a", "b"]


def test_b16_a_comma_does_not_make_two_rooms():
    assert check_rooms(["user-1,admin"]) == ["user-1,admin"]


def test_b19_no_room_is_an_error():
    with pytest.raises(BadRoom, match="no room was given"):
        check_rooms([])


def test_a_string_in_place_of_a_list_is_an_error_that_says_so():
    with pytest.raises(BadRoom, match="put it in brackets"):
        check_rooms("lobby")


def test_one_bad_room_refuses_them_all():
    with pytest.raises(BadRoom, match="control"):
        check_rooms(["good", "bad\n"])


def test_the_first_to_join_and_the_last_to_leave_are_told():
    registry: RoomRegistry[str] = RoomRegistry()
    assert registry.join("a", "x")
    assert not registry.join("a", "x")
    assert not registry.join("a", "y")
    assert not registry.leave("a", "x")
    assert not registry.leave("a", "x")
    assert registry.leave("a", "y")
    assert not registry.leave("a", "y")
    assert len(registry) == 0


def test_a_snapshot_has_each_member_once():
    registry: RoomRegistry[str] = RoomRegistry()
    for room, member in [("a", "x"), ("a", "y"), ("b", "y"), ("b", "z")]:
        registry.join(room, member)
    assert sorted(registry.snapshot(["a", "b", "nobody"])) == ["x", "y", "z"]
    assert sorted(registry.snapshot(["a"])) == ["x", "y"]
    assert list(registry.snapshot(["nobody"])) == []
    assert list(registry.snapshot([])) == []


_rooms = st.sampled_from(["a", "b", "c", "d"])
_members = st.integers(0, 4)


class RegistryMachine(RuleBasedStateMachine):
    """The registry against a set of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: RoomRegistry[int] = RoomRegistry()
        self.pairs: set[tuple[str, int]] = set()

    def in_room(self, room: str) -> set[int]:
        return {member for joined, member in self.pairs if joined == room}

    @rule(room=_rooms, member=_members)
    def join(self, room: str, member: int) -> None:
        assert self.registry.join(room, member) == (not self.in_room(room))
        self.pairs.add((room, member))

    @rule(room=_rooms, member=_members)
    def leave(self, room: str, member: int) -> None:
        assert self.registry.leave(room, member) == (self.in_room(room) == {member})
        self.pairs.discard((room, member))

    @rule(member=_members)
    def leave_all(self, member: int) -> None:
        emptied = self.registry.leave_all(member)
        assert sorted(emptied) == sorted(room for room in "abcd" if self.in_room(room) == {member})
        self.pairs = {pair for pair in self.pairs if pair[1] != member}

    @rule(rooms=st.lists(_rooms, unique=True))
    def snapshot(self, rooms: list[str]) -> None:
        found = list(self.registry.snapshot(rooms))
        assert len(found) == len(set(found))
        assert set(found) == {member for room, member in self.pairs if room in rooms}

    @invariant()
    def both_maps_say_the_same_and_nothing_is_empty(self) -> None:
        assert {(room, member) for room in self.registry for member in self.registry.members(room)} == self.pairs
        assert {(room, member) for member in range(5) for room in self.registry.rooms_of(member)} == self.pairs
        assert set(self.registry) == {room for room, _ in self.pairs}
        assert len(self.registry) == len({room for room, _ in self.pairs})
        assert len(self.registry._rooms) == len({member for _, member in self.pairs})


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
