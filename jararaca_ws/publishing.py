"""What one instance publishes for all: to rooms, users and connections, and what it asks of the other instances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

from jararaca_ws.auth.tickets import MAX_TICKET_LIFE
from jararaca_ws.auth.tokens import Tokens
from jararaca_ws.auth.user import User
from jararaca_ws.backends.base import BatchingBackend, Publication, WebSocketConnectionBackend
from jararaca_ws.calling import RemoteCalls
from jararaca_ws.commands import Command, Deliver, Disconnect, Leave, Reauthorize, encode_command
from jararaca_ws.delivering import LocalDelivery
from jararaca_ws.errors import ConfigurationError
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.preparing import Preparation
from jararaca_ws.rooms import ALL_INSTANCES, check_rooms, instance_of, instance_room
from jararaca_ws.rpc import CALL_TIMEOUT, Reply, WebSocketRequest
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.typed_rooms import AnyRoom, Room
from jararaca_ws.users import room_of_user
from jararaca_ws.wire.close_codes import check_close
from jararaca_ws.wire.protocol import CloseCode

__all__ = ["Publishing"]

_Message = TypeVar("_Message", bound=WebSocketMessageBase)


class Publishing:
    """The half of a `WebSocketConnectionManager` that reaches rooms, users and connections, wherever they are."""

    # Made at each start anew, by who starts it.
    tokens: Tokens

    def __init__(self, backend: WebSocketConnectionBackend, preparation: Preparation, delivery: LocalDelivery) -> None:
        self.backend = backend
        self.delivery = delivery
        self._preparation = preparation
        self._batcher = backend if isinstance(backend, BatchingBackend) else None
        self._calls = RemoteCalls(preparation.instance_id, self._commands)
        self._started = False

    # --- to rooms and to all ------------------------------------------------------------------------------------------

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Hand prepared messages to the backend, in order.

        Raises:
            BackendUnavailable: at least one was not accepted; those before it may have been.
        """
        self._check_started()
        await self._carry(publications)
        self.delivery.counters.sent += len(publications)

    async def _carry(self, publications: Sequence[Publication]) -> None:
        if self._batcher is not None:
            await self._batcher.send_many(publications)
        else:
            for publication in publications:
                await self.backend.send(publication.rooms, publication.payload)

    def _check_started(self) -> None:
        if not self._started:
            raise ConfigurationError(
                "the connection manager was never started",
                "enter the application's lifespan first; in a test with jararaca_ws.testing.lifespan(app)",
            )

    async def send(
        self,
        rooms: Sequence[str | Room[_Message]],
        message: _Message,
        *,
        id: str | None = None,
        exclude: WebSocketConnection | str | None = None,
    ) -> None:
        """Send to every connection in any of the rooms, on every instance, at once; to each connection once.

        Returns when the backend has accepted it: at most once, in order for each room and sender; see `recoverable`
        for more. Cancellation leaves open whether it was accepted.

        ``id`` is the caller's own name for this send, 1 to 255 bytes of printable characters. A send with the id of an
        earlier one reaches nobody again, for as long as the backend remembers (five minutes, with ours); so what has
        failed may be tried again.

        ``exclude`` is a connection, or its id, that does not get it: the sender's own, say. Where the rooms keep the
        message, that holds for as long as the connection does: who comes back with a new one gets it.

        Raises:
            BadRoom, NotCarried, BadConnectionId, MessageIdUnset, MessageNotEncodable: nothing was sent.
            ConfigurationError: it is `recoverable`, and the backend keeps no histories; nothing was sent.
            ValueError: the id is none; nothing was sent.
            BackendUnavailable: the backend did not accept it.
        """
        await self.publish([self.prepare(rooms, message, id=id, exclude=exclude)])

    async def broadcast(self, message: bytes | WebSocketMessageBase) -> None:
        """Send to every connection on every instance, at once.

        Args:
            message: a message, or the UTF-8 bytes of a text frame, which go out as they are.

        Raises:
            UnicodeDecodeError: the bytes are not UTF-8; nothing was sent.
            ValueError: they are more than the outbound queue of a connection takes; nothing was sent.
            MessageIdUnset, MessageNotEncodable: nothing was sent.
            ConfigurationError: it is `recoverable`; nothing was sent.
            BackendUnavailable: the backend did not accept it.
        """
        payload = self._preparation.broadcast(message)
        self._check_started()
        await self.backend.broadcast(payload)
        self.delivery.counters.sent += 1

    def prepare(
        self,
        rooms: Sequence[AnyRoom],
        message: WebSocketMessageBase,
        *,
        id: str | None = None,
        exclude: WebSocketConnection | str | None = None,
    ) -> Publication:
        """Check the rooms and encode the message: everything that can be wrong with a send, before it is staged."""
        excluded = exclude.id if isinstance(exclude, WebSocketConnection) else exclude
        return self._preparation.publication(rooms, message, id, excluded)

    # --- users --------------------------------------------------------------------------------------------------------

    async def send_to_user(self, user_id: str, message: WebSocketMessageBase) -> None:
        """Send to every connection that `WebSocketConnection.identify` gave to this user, on every instance, at once.

        At most once, in order for each user and sender; a user without a connection is no error.

        Raises:
            BadUserId, MessageIdUnset, MessageNotEncodable: nothing was sent.
            ConfigurationError: it is `recoverable`; nothing was sent.
            BackendUnavailable: the backend did not accept it.
        """
        await self.publish([self._preparation.for_user(room_of_user(user_id), message)])

    async def disconnect_user(self, user_id: str, code: int = CloseCode.DISCONNECTED, reason: str = "") -> None:
        """Close every connection of a user, on every instance, after what is queued for it has been written.

        Returns when the backend has accepted it: at most once. Who connects from now on is not concerned.

        Raises:
            BadUserId: nobody was disconnected.
            ValueError: a code that may not be sent, or a reason of more than 123 bytes of UTF-8.
            BackendUnavailable: the backend did not accept it.
        """
        check_close(code, reason)
        await self._command([room_of_user(user_id)], Disconnect(code=code, reason=reason))

    async def leave_user(self, user_id: str, rooms: Iterable[AnyRoom]) -> None:
        """Take every connection of a user out of rooms, on every instance. Not being in one is no error.

        Returns when the backend has accepted it: at most once. What is sent to the rooms from then on comes to none of
        these connections (in a Redis Cluster: from moments later on). Clients that understand control messages are told
        ``jararaca.left``. Nothing keeps the user from joining again, where `Room.authorize` lets it.

        Raises:
            BadUserId, BadRoom: no room was left.
            BackendUnavailable: the backend did not accept it.
        """
        await self._command([room_of_user(user_id)], Leave(rooms=check_rooms(rooms)))

    async def reauthorize_user(self, user_id: str) -> None:
        """Have the typed rooms of every connection of a user asked again, on every instance: `Room.authorize`.

        For when what a user may has changed. A connection leaves the rooms that refuse, and those that raise; a client
        that understands control messages is told ``jararaca.left``. Returns when the backend has accepted it: at most
        once. Where nothing may come after the call has returned, use `leave_user`.

        Raises:
            BadUserId: nobody was asked.
            BackendUnavailable: the backend did not accept it.
        """
        await self._command([room_of_user(user_id)], Reauthorize())

    async def call_user(
        self, user_id: str, request: WebSocketRequest[Reply], timeout: timedelta = CALL_TIMEOUT
    ) -> Reply:
        """Ask every connection of a user, on every instance, and wait for the first reply.

        At most once, and a connection that goes, or is not there, cannot be told from one that does not answer: a user
        without any costs the whole timeout. Cancellation, and every error, leave nothing behind; what is answered
        then is swallowed.

        Args:
            user_id: whom to ask.
            request: its class says what the reply is: ``WebSocketRequest[Reply]``.
            timeout: for the question to be published and the first answer to come.

        Raises:
            CallTimeout: there was no answer in time.
            CallFailed: the first answer was an error (its ``reason``) or not a reply of this type (``bad_reply``), or
                this instance stops meanwhile (``stopped``).
            BadUserId, MessageIdUnset, MessageNotEncodable: nobody was asked.
            ConfigurationError: the class does not say what the reply is.
            BackendUnavailable: the backend did not accept the question.
        """
        room = room_of_user(user_id)
        return await self._calls.call(room, request, self._preparation.unkept(request, "a user"), timeout)

    # --- tokens -------------------------------------------------------------------------------------------------------

    async def revoke(
        self, *, user_id: str | None = None, token_id: str | None = None, lifetime: timedelta = timedelta(days=1)
    ) -> None:
        """Have tokens count no more: all of a user that were issued until now, or the one with this id.

        When it returns, every instance refuses them at new handshakes. Connections that were opened with them are
        closed with 4500, on every instance, within moments.

        Args:
            user_id: whose tokens. Those issued later count again; without a `User.issued_at` none does.
            token_id: which one, as `User.token_id` has it.
            lifetime: the longest that one of your tokens lives; for so long it is remembered.

        Raises:
            ValueError: both were given, or none; or a lifetime that is none.
            ConfigurationError: the backend keeps nothing: see `KeepingBackend`.
            BackendUnavailable: the backend did not accept it: ask again.
        """
        self._check_started()
        await self._command([ALL_INSTANCES], await self.tokens.revocations.add(user_id, token_id, lifetime))

    async def mint_ticket(self, user: User, life: timedelta = MAX_TICKET_LIFE) -> str:
        """A ticket for an endpoint with a `QueryTicket`: lets one connection in as this user, once, on any instance.

        Args:
            user: who `WebSocketConnection.user` will be; its claims are JSON.
            life: how soon it has to be used; at most 30 s.

        Raises:
            ValueError: it would live for longer; or claims that are no JSON.
            ConfigurationError: the backend keeps nothing: see `KeepingBackend`.
            BackendUnavailable: there is no ticket.
        """
        self._check_started()
        return await self.tokens.tickets.mint(user, life)

    # --- connections --------------------------------------------------------------------------------------------------

    async def send_to_connection(self, connection_id: str, message: WebSocketMessageBase) -> None:
        """Send to one connection by its id, on whichever instance it is, at once.

        At most once, in order for each connection and sender; a connection that has gone is no error.

        Raises:
            BadConnectionId, MessageIdUnset, MessageNotEncodable: nothing was sent.
            ConfigurationError: it is `recoverable`; nothing was sent.
            BackendUnavailable: the backend did not accept it.
        """
        room = instance_room(instance_of(connection_id))
        payload = self._preparation.unkept(message, "a connection").payload
        await self._command([room], Deliver(connection=connection_id, payload=payload.decode()))
        self.delivery.counters.sent += 1

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _command(self, rooms: Iterable[str], command: Command) -> None:
        """Ask something of all instances that have members in these rooms of ours."""
        await self._commands([(room, command) for room in rooms])

    async def _commands(self, commands: Sequence[tuple[str, Command]]) -> None:
        self._check_started()
        await self._carry([self._preparation.command(room, encode_command(command)) for room, command in commands])
