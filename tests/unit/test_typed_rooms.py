from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from typing import Any, Literal, NewType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jararaca_ws import (
    BadRoom,
    CloseCode,
    ConfigurationError,
    DuplicateRoomPattern,
    Microservice,
    NotCarried,
    PermissionDenied,
    Post,
    RestController,
    Room,
    WebSocketConnection,
    WebSocketConnectionManager,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketMessageBase,
    create_http_server,
    provide_ws_manager,
    recoverable,
    use_ws_manager,
)
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.testing import connect
from jararaca_ws.typed_rooms import RoomClasses, room_named
from tests.unit.apps import end_of, running


class Changed(WebSocketMessage):
    MESSAGE_ID = "test_typed_rooms.changed"

    state: str = "new"


class LoudlyChanged(Changed): ...


class Shipped(WebSocketMessage):
    MESSAGE_ID = "test_typed_rooms.shipped"
    DELIVERY = recoverable(size=10)


class Unrelated(WebSocketMessage):
    MESSAGE_ID = "test_typed_rooms.unrelated"


class OrderRoom(Room[Changed | Shipped], pattern="order-{order_id}"):
    order_id: int

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return connection.user_id == f"owner-{self.order_id}"


class Kind(Enum):
    TALK = "talk"
    NEWS = "news"


Number = NewType("Number", int)


class TeamRoom(Room, pattern="team-{team}:{kind}/{day}"):
    team: str
    kind: Kind
    day: date


class PairRoom(Room, pattern="pair-{left}-{right}"):
    left: str
    right: str


class FileRoom(Room[Unrelated], pattern="{id}"):
    id: UUID


class MoodRoom(Room, pattern="mood-{mood}-{number}"):
    mood: Literal["good", "bad"]
    number: Number


class Lobby(Room[Any], pattern="lobby"): ...


SOME_ID = UUID("0f8b10cf-7dc2-491e-8f6b-cae80d24f072")
ROOMS = [
    (OrderRoom(order_id=42), "order-42"),
    (OrderRoom(order_id=-42), "order-%2D42"),
    (TeamRoom(team="a:b/c", kind=Kind.NEWS, day=date(2026, 1, 2)), "team-a%3Ab%2Fc:news/2026%2D01%2D02"),
    (PairRoom(left="ä b", right="%2D"), "pair-ä%20b-%252D"),
    (FileRoom(id=SOME_ID), str(SOME_ID)),
    (MoodRoom(mood="bad", number=Number(7)), "mood-bad-7"),
    (Lobby(), "lobby"),
]
each = pytest.mark.parametrize(("room", "name"), ROOMS, ids=lambda value: str(value))


@each
def test_a_room_has_a_name_and_a_name_has_a_room(room: Room[Any], name: str):
    assert str(room) == name
    assert room_named(name, [type(other) for other, _ in ROOMS]) == room


@given(st.lists(st.text(min_size=1, max_size=8), min_size=4, max_size=4))
def test_no_values_make_the_name_of_another_room(texts: list[str]):
    one = PairRoom(left=texts[0], right=texts[1])
    other = PairRoom(left=texts[2], right=texts[3])
    assert (str(one) == str(other)) == (one == other)


def test_no_value_makes_the_name_of_a_room_of_another_class():
    class OneRoom(Room, pattern="pair-{both}"):
        both: str

    assert str(OneRoom(both="1-2")) != str(PairRoom(left="1", right="2"))
    assert room_named(str(PairRoom(left="1", right="2-3")), [OrderRoom, TeamRoom, FileRoom]) is None


@pytest.mark.parametrize("name", ["order-042", "order-+42", "order-", "order-4%32", "order-x", "order-42\n", "Or-42"])
def test_only_one_way_of_writing_a_name_is_its_rooms(name: str):
    assert room_named(name, [OrderRoom]) is None


async def test_a_name_that_cannot_be_one_is_refused_where_it_is_used():
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        with provide_ws_manager(manager):
            for team in ("", "x" * 300, "e\u0301"):
                with pytest.raises(BadRoom):
                    await Unrelated().send(PairRoom(left=team, right="x"))
        with pytest.raises(BadRoom, match="brackets"):
            await manager.send(Lobby(), Unrelated())  # type: ignore[arg-type]


# --- what is refused when the class is created ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "fields", "problem"),
    [
        ("a-{id}-{other}", {"id": int}, "each field stands in it once: id"),
        ("a-{id}", {"id": int, "other": int}, "each field stands in it once: id, other"),
        ("a-{id}-{id}", {"id": int}, "once"),
        ("a-{id}{other}", {"id": str, "other": str}, "between the fields"),
        ("a-{id}and{other}", {"id": str, "other": str}, "between the fields"),
        ("a-{id}%{other}", {"id": str, "other": str}, "no %"),
        ("a-{id:d}", {"id": int}, "nothing else"),
        ("a-{id.x}", {"id": int}, "nothing else"),
        ("a-{id", {"id": int}, "expected"),
        ("a-{id}", {"id": float}, "no place"),
        ("a-{id}", {"id": int | None}, "no place"),
        ("a-{id}", {"id": Literal[1, 2]}, "no place"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(pattern: str, fields: dict[str, Any], problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        type("Wrong", (Room,), {"__annotations__": fields, "__module__": __name__}, pattern=pattern)


def test_a_class_without_a_pattern_is_there_to_be_derived_from():
    class Tenant(Room[Changed]):
        tenant: str

    class Orders(Tenant, pattern="orders-{tenant}"): ...

    with pytest.raises(ConfigurationError, match="Tenant has no pattern"):
        str(Tenant(tenant="x"))
    assert str(Orders(tenant="x")) == "orders-x"
    with pytest.raises(ConfigurationError, match="other"):

        class More(Orders):
            other: int


Slug = NewType("Slug", str)


class Channel(Enum):
    NEWS = "news"
    ODD = "a-b"


SCOPE = {"type": "websocket", "path": "/", "headers": []}


def rooms(name: str, pattern: str, **fields: Any) -> type[Room[Any]]:
    return type(name, (Room,), {"__annotations__": fields, "__module__": __name__}, pattern=pattern)


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        (("orders", {}), ("orders", {}), True),
        (("orders", {}), ("order", {}), False),
        (("x-{a}", {"a": str}), ("x-{b}", {"b": str}), True),
        (("x-{a}", {"a": str}), ("x-new", {}), True),
        (("x-{a}", {"a": int}), ("x-new", {}), False),
        (("x-{a}", {"a": int}), ("x-{b}", {"b": Slug}), True),
        (("x-{a}", {"a": Slug}), ("{b}-y", {"b": str}), True),
        (("x-{a}", {"a": str}), ("x-{a}-{b}", {"a": str, "b": str}), False),
        (("x-{a}:{b}", {"a": str, "b": str}), ("x-{a}-{b}", {"a": str, "b": str}), False),
        (("{a}", {"a": UUID}), ("{b}", {"b": str}), False),
        (("{a}", {"a": UUID}), (str(UUID(int=5)), {}), True),
        (("x-{a}", {"a": UUID}), ("{b}", {"b": UUID}), False),
        (("{a}", {"a": UUID}), ("{p}-{q}-{r}-{s}-{t}", dict.fromkeys("pqrst", int)), True),
        (("x-{a}", {"a": Channel}), ("x-news", {}), True),
        (("x-{a}", {"a": Channel}), ("x-{b}", {"b": Literal["a-b", "c"]}), True),
        (("x-{a}", {"a": Channel}), ("x-{b}", {"b": Literal["b", "c"]}), False),
        (("x-{a}", {"a": date}), ("x-{b}", {"b": int}), False),
        (("x-{a}", {"a": date}), ("x-{b}", {"b": datetime}), True),
        (("x-{a}", {"a": date}), ("x-{b}", {"b": date}), True),
        (("x-{a}", {"a": bool}), ("x-True", {}), True),
        (("x-{a}", {"a": bool}), ("x-{b}", {"b": int}), False),
        (("é-{a}", {"a": str}), ("{b}-é", {"b": str}), True),
        (("é{a}", {"a": int}), ("{b}", {"b": int}), False),
    ],
)
def test_of_two_classes_that_can_make_one_name_the_second_is_refused(one: Any, other: Any, is_one: bool):
    first, second = rooms("First", one[0], **one[1]), rooms("Second", other[0], **other[1])
    classes = RoomClasses()
    classes.add(first)
    if not is_one:
        classes.add(second)
        return
    for _ in range(2):  # it is not added, so it is refused again
        with pytest.raises(DuplicateRoomPattern) as caught:
            classes.add(second)
        assert (caught.value.first, caught.value.second) == (first, second)


def test_classes_that_derive_from_each_other_and_modules_that_are_loaded_again_may_share_names():
    again = rooms("First", "same"), rooms("First", "same")

    class Derived(again[0], pattern="same"): ...  # type: ignore[misc,valid-type]

    class Heir(again[0]): ...  # type: ignore[misc,valid-type]

    class OtherHeir(again[0]): ...  # type: ignore[misc,valid-type]

    RoomClasses().add(*again)
    RoomClasses().add(Derived, again[0])
    RoomClasses().add(Heir, OtherHeir)


async def test_connections_of_one_manager_join_rooms_of_one_of_them_only():
    first, second = rooms("First", "mine-{a}", a=str), rooms("Second", "mine-{b}", b=str)
    one, other = WebSocketConnection(SCOPE), WebSocketConnection(SCOPE)
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        await manager.join([first(a="a")], one)
        with pytest.raises(DuplicateRoomPattern):
            await manager.join(["other", second(b="b")], one)
        assert manager.rooms_of(one) == ["mine-a"]
        one.finish(1000, "")
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as another:  # of another application
        await another.join([second(b="b")], other)
        other.finish(1000, "")


def test_an_application_whose_clients_may_join_rooms_of_both_is_not_built():
    both = rooms("First", "mine-{a}", a=str), rooms("Second", "mine-{b}", b=str)

    @RestController("/")
    class Sockets:
        @WebSocketEndpoint("/one", client_rooms=both[:1])
        async def one(self, connection: WebSocketConnection) -> None: ...

        @WebSocketEndpoint("/two", client_rooms=both[1:])
        async def two(self, connection: WebSocketConnection) -> None: ...

    with pytest.raises(DuplicateRoomPattern):
        create_http_server(Microservice(controllers=[Sockets], interceptors=[WebSocketInterceptor()]))


# --- what they carry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (OrderRoom(order_id=1), Changed()),
        (OrderRoom(order_id=1), LoudlyChanged()),
        (OrderRoom(order_id=1), Shipped()),
        (Lobby(), Unrelated()),
        (PairRoom(left="x", right="y"), Unrelated()),
    ],
)
async def test_a_room_takes_what_it_carries(room: Room[Any], message: WebSocketMessage):
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        await manager.send([room], message)
        with provide_ws_manager(manager):
            await message.send("anything", room)


async def test_what_it_does_not_carry_is_refused_and_nothing_is_sent():
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        rooms: list[Any] = ["anything", OrderRoom(order_id=1)]
        with pytest.raises(NotCarried, match=r"OrderRoom does not carry .*Unrelated"):
            await manager.send(rooms, Unrelated())
        with provide_ws_manager(manager):
            for send in (Unrelated().send, Unrelated().send_now):
                with pytest.raises(NotCarried):
                    await send(*rooms)
        assert manager.counters.sent == 0


def test_a_generic_class_of_the_application_carries_what_its_parameter_says():
    assert Room[Changed | Shipped].__carries__ == (Changed, Shipped)
    assert OrderRoom.__carries__ == (Changed, Shipped)
    assert Lobby.__carries__ == ()
    assert TeamRoom.__carries__ == ()
    assert Room[WebSocketMessageBase].__carries__ == (WebSocketMessageBase,)


# --- joining ----------------------------------------------------------------------------------------------------------


@RestController("/orders")
class Orders:
    @WebSocketEndpoint("/{order_id}")
    async def follow(self, connection: WebSocketConnection, order_id: int, user: str, through: str = "") -> None:
        await connection.identify(user)
        if through == "manager":
            await use_ws_manager().join(iter(["first", OrderRoom(order_id=order_id)]), connection)
        else:
            await connection.join("first", OrderRoom(order_id=order_id))
        await connection.send(Unrelated())
        async for _ in connection:
            await connection.leave(OrderRoom(order_id=order_id))
            await connection.send(Unrelated())

    @Post("/{order_id}")
    async def change(self, order_id: int) -> None:
        await Changed(state="paid").send(OrderRoom(order_id=order_id))

    @Post("/denied/now")
    async def deny(self) -> None:
        raise PermissionDenied("order-1")

    @Post("/wrong/{order_id}")
    async def wrong(self, order_id: int) -> None:
        room: Any = OrderRoom(order_id=order_id)
        await Unrelated().send(room)


@pytest.mark.parametrize("through", ["connection", "manager"])
async def test_who_may_join_gets_what_is_sent_to_the_room_until_it_leaves(through: str):
    async with running(Orders) as app:
        async with connect(app.asgi, f"/orders/42?user=owner-42&through={through}") as socket:
            await socket.receive_json()
            assert set(app.manager.rooms) == {"first", "order-42"}
            assert len(app.manager.members(OrderRoom(order_id=42))) == 1
            await app.http.post("/orders/42")
            assert (await socket.receive_json())["message"] == {"state": "paid"}
            await socket.send_text('{"MESSAGE_ID":"test_typed_rooms.unrelated","message":{}}')
            await socket.receive_json()
            assert set(app.manager.rooms) == {"first"}


@pytest.mark.parametrize("through", ["connection", "manager"])
async def test_who_may_not_is_closed_with_4507_and_has_joined_nothing(through: str):
    async with running(Orders) as app:
        closed = await end_of(app, f"/orders/42?user=owner-43&through={through}")
        assert (closed.code, closed.reason) == (CloseCode.PERMISSION_DENIED, "permission denied")
        assert not app.manager.rooms


async def test_http_answers_403():
    async with running(Orders) as app:
        answer = await app.http.post("/orders/denied/now")
        told = answer.json()
        assert (answer.status_code, told["detail"], told["code"]) == (403, "permission denied", "permission_denied")


async def test_the_wrong_message_fails_the_request_where_it_is_sent():
    async with running(Orders) as app:
        assert (await app.http.post("/orders/wrong/1")).status_code == 500


async def test_histories_and_presence_take_typed_rooms():
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        await manager.send([OrderRoom(order_id=1)], Shipped())
        history = await manager.history(OrderRoom(order_id=1))
        assert [entry.offset for entry in history.messages] == [1]
