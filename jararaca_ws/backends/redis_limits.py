"""What each instance holds of what is limited for all of them, in Redis: a hash for each, which dies with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jararaca_ws.backends.redis_keys import Keys
from jararaca_ws.backends.redis_scripts import CLAIM, Call, Executor

__all__ = ["RedisLimits"]


class RedisLimits:
    """One instance's `LimitStore`.

    Its hash has a TTL, so what an instance held that was killed is free again when that is over, and nobody has to
    clean up. All keys have one slot: a claim looks at the hashes of all instances in one step.
    """

    def __init__(self, reader: Executor, keys: Keys, instance_id: str, *, ttl_ms: int) -> None:
        self._reader = reader
        self._keys = keys
        self._instance_id = instance_id
        self._ttl_ms = ttl_ms

    async def claim(
        self, held: Mapping[str, int], claims: Sequence[Mapping[str, int]], *, anew: bool
    ) -> list[str | None] | None:
        arguments: list[object] = [self._instance_id, self._keys.held(""), self._ttl_ms, int(anew), len(held)]
        for name, count in held.items():
            arguments += (name, count)
        for claim in claims:
            arguments.append(len(claim))
            for name, limit in claim.items():
                arguments += (name, limit)
        keys = (self._keys.lives, self._keys.held(self._instance_id))
        [answers] = await self._reader.execute([Call(CLAIM, keys, tuple(arguments))])
        if answers is None:
            return None
        return [None if full == 0 else list(claim)[full - 1] for claim, full in zip(claims, answers, strict=True)]

    async def retire(self) -> None:
        await self._reader.execute([("DEL", self._keys.held(self._instance_id))])
