from __future__ import annotations

from jararaca_ws.backends.base import Entry, StreamPosition
from jararaca_ws.recovery.copies import Copies
from jararaca_ws.recovery.streams import Stream, Streams, Verdict
from jararaca_ws.wire.retained import NOWHERE


def entry(offset: int, epoch: str = "e", payload: bytes = b"{}") -> Entry:
    return Entry(StreamPosition(epoch, offset), f"{epoch}-{offset}", payload)


def stream(offset: int, epoch: str = "e") -> Stream:
    made = Stream()
    made.position = StreamPosition(epoch, offset)
    return made


class TestStream:
    def test_one_after_the_other(self):
        it = stream(5)
        assert [it.accept(entry(n)) for n in (6, 7, 7, 6, 8)] == [
            Verdict.DELIVER,
            Verdict.DELIVER,
            Verdict.DUPLICATE,
            Verdict.DUPLICATE,
            Verdict.DELIVER,
        ]
        assert it.position == StreamPosition("e", 8)

    def test_the_first_that_comes_says_where_we_are(self):
        it = Stream()
        assert it.accept(entry(41)) is Verdict.DELIVER
        assert it.accept(entry(42)) is Verdict.DELIVER

    def test_where_nothing_was_kept_the_first_is_number_1(self):
        it = stream(0, "")
        assert it.accept(entry(1)) is Verdict.DELIVER
        it = stream(0, "")
        assert it.accept(entry(2)) is Verdict.HOLE

    def test_after_a_hole_and_in_another_epoch_they_wait(self):
        for first in (entry(7), entry(6, "f"), entry(3, "f")):
            it = stream(5)
            assert it.accept(first) is Verdict.HOLE
            assert it.accept(entry(6)) is Verdict.WAIT
            assert it.position == StreamPosition("e", 5)

    def test_what_waited_goes_on_where_the_history_ends(self):
        it = stream(5)
        for n in (7, 8, 9):
            it.accept(entry(n))
        assert it.resume(StreamPosition("e", 7)) == [entry(8), entry(9)]
        assert (it.is_healing, it.position) == (False, StreamPosition("e", 9))

    def test_a_second_hole_is_another_one(self):
        it = stream(5)
        for n in (7, 8, 10):
            it.accept(entry(n))
        assert it.resume(StreamPosition("e", 6)) == [entry(7), entry(8)]
        assert (it.is_healing, it.has_waiting) == (True, True)
        assert it.forget_waiting() == 1
        assert not it.is_healing

    def test_what_could_not_wait_is_missed_again(self):
        it = stream(5)
        large = b"x" * 100_000
        for n in (7, 8, 9):
            it.accept(entry(n, payload=large))
        assert it.resume(StreamPosition("e", 6)) == [entry(7, payload=large)]
        assert (it.is_healing, it.has_waiting, it.position) == (True, False, StreamPosition("e", 7))
        assert it.resume(StreamPosition("e", 9)) == []
        assert not it.is_healing


def test_a_lost_link_concerns_the_rooms_whose_place_is_known():
    streams = Streams()
    for room in "abc":
        streams.open(room)
    for room in "ab":
        known = streams.get(room)
        assert known is not None
        known.position = NOWHERE
    assert streams.may_have_missed(["a", "c", "gone"]) == ["a"]
    assert streams.gaps == 1
    assert [room for room in "abc" if getattr(streams.get(room), "is_healing", False)] == ["a"]
    streams.close(["a", "gone"])
    assert "a" not in streams
    assert (len(streams), streams.position("a")) == (2, NOWHERE)


class TestCopies:
    def test_who_got_it_through_one_room_has_it_in_the_other(self):
        copies = Copies()
        copies.add("p", "a", ["1", "2"])
        copies.add("p", "b", ["3"])
        assert [copies.got("p", connection) for connection in "1234"] == [True, True, True, False]
        assert not copies.got("q", "1")

    def test_it_remembers_the_newest_and_shares_what_is_the_same(self):
        copies = Copies()
        members = [str(n) for n in range(100)]
        for n in range(40_001):
            copies.add(f"p{n}", "a", members)
        assert not copies.got("p19999", "1")
        assert copies.got("p20000", "1")
        assert copies.got("p40000", "1")
        known = {**copies._older, **copies._newer}
        assert len(known) == 20_001
        assert len({id(ids) for sets in known.values() for ids in sets}) == 1

    def test_of_large_rooms_whose_members_change_all_the_time_it_remembers_fewer(self):
        copies = Copies()
        members = [str(n) for n in range(1000)]
        for n in range(2000):
            copies.add(f"p{n}", "a", members[n % 2 :])
        assert not copies.got("p0", "1")
        assert copies.got("p1500", "1")
        assert len(copies._older) + len(copies._newer) <= 2 * 512

    def test_what_was_replayed_is_remembered_until_its_recovery_is_over_and_the_last_of_it_until_it_goes(self):
        copies = Copies()
        for n in range(100):
            copies.add_replayed(f"p{n}", "1")
        assert copies.got("p0", "1")
        assert not copies.got("p99", "2")
        copies.end_replay("1")
        copies.end_replay("2")
        assert copies.got("p99", "1")
        assert not copies.got("p0", "1")
        copies.forget("1")
        copies.forget("1")
        assert not copies.got("p99", "1")
