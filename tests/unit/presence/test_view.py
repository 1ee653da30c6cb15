from __future__ import annotations

from typing import Any

from jararaca_ws.backends.presence import PresenceEntry, PresenceMember
from jararaca_ws.presence.view import View, first_leave_ms
from jararaca_ws.wire.protocol import PresenceUpdate


def member(
    connection: str, user: str | None = None, *, at_ms: int = 0, left_ms: int | None = None, **metadata: Any
) -> PresenceMember:
    return PresenceMember(PresenceEntry(connection, "instance", user, metadata), at_ms, left_ms)


def said(update: PresenceUpdate | None) -> tuple[str, int, list[str], list[str], list[str]]:
    assert update is not None
    joined, updated = ([present.identity for present in named] for named in (update.joined, update.updated))
    return update.kind, update.count, joined, updated, update.left


def test_the_first_reading_is_the_state_and_the_same_again_is_nothing():
    view = View("a", 10)
    assert view.count is None
    assert said(view.update([member("c1"), member("c2", "ana")])) == (
        *("state", 2, ["connection:c1", "user:ana"]),
        *([], []),
    )
    assert view.update([member("c2", "ana"), member("c1")]) is None


def test_an_empty_room_is_a_state_too():
    assert said(View("a", 10).update([])) == ("state", 0, [], [], [])


def test_an_identity_is_there_until_the_last_of_its_connections_has_been_gone_for_the_grace_period():
    view = View("a", 10)
    view.update([member("c1", "ana"), member("c2", "ana")])
    assert view.update([member("c1", "ana", left_ms=5), member("c2", "ana")]) is None
    assert view.update([member("c1", "ana", left_ms=9), member("c2", "ana", left_ms=5)]) is None
    assert view.update([member("c2", "ana", left_ms=8)]) is None
    assert said(view.update([])) == ("diff", 0, [], [], ["user:ana"])


def test_its_newest_connection_that_is_there_speaks_for_it():
    def shown(*members: PresenceMember) -> dict[str, Any]:
        update = View("a", 10).update(members)
        assert update is not None
        [present] = update.joined
        return present.metadata

    old, new = member("c1", "ana", at_ms=1, n=1), member("c2", "ana", at_ms=2, n=2)
    assert shown(old, new) == shown(new, old) == {"n": 2}
    left = member("c3", "ana", at_ms=3, left_ms=0, n=3)
    assert shown(left, old) == shown(old, left) == {"n": 1}
    left_before = member("c4", "ana", at_ms=2, left_ms=1, n=4)
    assert shown(left, left_before) == shown(left_before, left) == {"n": 3}
    # Of two of one moment every instance takes the same.
    twin = member("c5", "ana", at_ms=2, n=5)
    assert shown(twin, new) == shown(new, twin)


def test_a_user_is_not_an_anonymous_connection_of_that_name():
    update = View("a", 10).update([member("c1"), member("c2", "c1"), member("c3", "connection:c1")])
    assert said(update)[:2] == ("state", 3)


def test_what_is_new_changed_and_gone_is_told_apart():
    view = View("a", 10)
    view.update([member("c1", "ana"), member("c2", "bob"), member("c3", "cleo")])
    update = view.update([member("c1", "ana"), member("c2", "bob", away=True), member("c4", "dan")])
    assert said(update) == ("diff", 3, ["user:dan"], ["user:bob"], ["user:cleo"])


def test_above_the_threshold_there_is_a_count_and_below_it_the_state_again():
    view = View("a", 1)
    assert said(view.update([member("c1"), member("c2")])) == ("count", 2, [], [], [])
    assert said(view.state()) == ("count", 2, [], [], [])
    assert view.update([member("c1"), member("c3")]) is None  # others, but as many
    assert said(view.update([member("c1"), member("c2"), member("c3")])) == ("count", 3, [], [], [])
    assert said(view.update([member("c3")])) == ("state", 1, ["connection:c3"], [], [])
    assert said(view.update([member("c3"), member("c4")])) == ("count", 2, [], [], [])


def test_names_that_were_taken_back_are_told_again_with_the_next_change():
    view = View("a", 10)
    view.update([member("c1")])
    assert said(view.only_count()) == ("count", 1, [], [], [])
    assert said(view.update([member("c1")])) == ("state", 1, ["connection:c1"], [], [])


def test_when_the_first_leaves():
    assert first_leave_ms([], 100) is None
    assert first_leave_ms([member("c1"), member("c2", "ana"), member("c3", "ana", left_ms=40)], 100) is None
    gone = [member("c1", at_ms=1, left_ms=40), member("c2", "ana", at_ms=2, left_ms=30)]
    assert first_leave_ms(gone, 100) == 60
    # The later of one identity's counts.
    assert first_leave_ms([*gone, member("c3", "ana", at_ms=0, left_ms=90)], 100) == 60
