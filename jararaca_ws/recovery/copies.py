"""Which messages that came to several rooms have reached which connections: who is in two of the rooms gets one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from weakref import WeakValueDictionary

__all__ = ["Copies"]

_MAX_IDS = 20_000
"""The copies of one publication arrive together, but where one of the rooms is being healed, or recovered."""

_MIN_IDS = 512
_MAX_SHARED = 500_000
"""Where the members of large rooms change all the time: fewer publications then, so that memory is bounded."""

_MAX_RECENT = 64
"""Of what was replayed to one connection, once its recovery is over: only the last may still come by another room."""


class Copies:
    """Remembers, for the newest publications, the ids of the connections that got them.

    At least the last 20,000 publications, at most twice as many; of a recovery, which may take long from one of two
    rooms to the other, all is remembered until it is over.
    """

    def __init__(self) -> None:
        self._newer: dict[str, list[frozenset[str]]] = {}
        self._older: dict[str, list[frozenset[str]]] = {}
        # The last ones of each room: as long as its members stay the same, all publications share one set.
        self._shared: WeakValueDictionary[str, frozenset[str]] = WeakValueDictionary()
        # How many ids are in the sets that were made for the newer ones.
        self._made = 0
        # What was replayed to one connection alone.
        self._replayed: dict[str, OrderedDict[str, None]] = {}

    def got(self, publication_id: str, connection_id: str) -> bool:
        """Whether the connection has this publication, as far as is remembered."""
        if publication_id in self._replayed.get(connection_id, ()):
            return True
        found = (known.get(publication_id, ()) for known in (self._newer, self._older))
        return any(connection_id in ids for sets in found for ids in sets)

    def add(self, publication_id: str, room: str, connection_ids: Iterable[str]) -> None:
        """These connections get it now, through this room."""
        ids = frozenset(connection_ids)
        shared = self._shared.get(room)
        if shared is None or shared != ids:
            shared = self._shared[room] = ids
            self._made += len(ids)
        count = len(self._newer)
        if count >= _MAX_IDS or (count >= _MIN_IDS and self._made >= _MAX_SHARED):
            self._newer, self._older, self._made = {}, self._newer, 0
        self._newer.setdefault(publication_id, []).append(shared)

    def add_replayed(self, publication_id: str, connection_id: str) -> None:
        """It is replayed to this connection now."""
        self._replayed.setdefault(connection_id, OrderedDict())[publication_id] = None

    def end_replay(self, connection_id: str) -> None:
        """All of its rooms are recovered, for now."""
        replayed = self._replayed.get(connection_id, OrderedDict())
        while len(replayed) > _MAX_RECENT:
            replayed.popitem(last=False)

    def forget(self, connection_id: str) -> None:
        """The connection has gone."""
        self._replayed.pop(connection_id, None)
