"""msgpack, into which JSON is packed at the edge of a connection that speaks it; all within is JSON.

So there is one model of what a value may be, JSON's, one validation, and one form that backends carry.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from jararaca_ws.errors import ConfigurationError

try:
    import msgpack as _installed
except ImportError:
    _installed = None

__all__ = ["can_pack", "check_can_pack", "pack", "unpack"]

msgpack: Any = _installed
"""None where the extra is not installed."""

_LOOKED_THROUGH_BYTES = 1024
"""The unpacker makes room for all that an array says it has, 1,024 deep, before any of it has come. So what is longer
than this is looked through first: an array that is there takes no more room than its elements."""


def can_pack() -> bool:
    """Whether the extra is installed."""
    return msgpack is not None


def check_can_pack() -> None:
    """Called where an application has chosen msgpack by itself.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    if not can_pack():
        raise ConfigurationError("msgpack is not installed", 'pip install "jararaca-ws[msgpack]"')


def pack(json: bytes) -> bytes | None:
    """JSON as msgpack; None where it is no JSON, or has an integer beyond 64 bits."""
    try:
        packed: bytes = msgpack.packb(from_json(json, allow_inf_nan=False))
    except (ValueError, OverflowError):
        return None
    return packed


def unpack(data: bytes) -> str:
    """What a client has packed, as JSON. NaN and infinity become the words that whoever reads JSON refuses.

    Raises:
        ValueError: it is no msgpack, or holds what JSON has no form for: binary data, extension types, keys that are
            no strings; or it is deeper than JSON may be.
    """
    if len(data) > _LOOKED_THROUGH_BYTES:
        _look_through(data)
    value = msgpack.unpackb(data, raw=False, strict_map_key=True, max_bin_len=0, ext_hook=_refuse)
    return to_json(value, inf_nan_mode="constants").decode()


def _look_through(data: bytes) -> None:
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    try:
        unpacker.skip()
    except (msgpack.OutOfData, RecursionError):
        raise ValueError("incomplete, or too deep") from None


def _refuse(code: int, data: bytes) -> Any:
    raise ValueError("an extension type")
