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

_MAX_ITEMS = 8192
"""Of one array of a client. The unpacker makes room for all that an array says it has, 1,024 deep: 64 MiB in all."""


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


def unpack(data: bytes, max_items: int = _MAX_ITEMS) -> str:
    """What a client has packed, as JSON. NaN and infinity become the words that whoever reads JSON refuses.

    Raises:
        ValueError: it is no msgpack, or holds what JSON has no form for: binary data, extension types, keys that are
            no strings; or it is deeper than JSON may be, or an array is longer than ``max_items``.
    """
    max_items = min(max_items, len(data))  # each element takes a byte, so more than that is a lie
    value = msgpack.unpackb(
        data, raw=False, strict_map_key=True, max_array_len=max_items, max_bin_len=0, ext_hook=_refuse
    )
    return to_json(value, inf_nan_mode="constants").decode()


def _refuse(code: int, data: bytes) -> Any:
    raise ValueError("an extension type")
