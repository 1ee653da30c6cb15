"""uvicorn's WebSocket protocol with a way to write frames straight to the transport.

Chosen with ``uvicorn --ws jararaca_ws.server:WebSocketProtocol --http jararaca_ws.server:HTTPProtocol``; `jararaca-ws
serve` does so by itself.
"""

from __future__ import annotations

import re
from importlib.metadata import version

# Before, uvicorn's sans-I/O protocol has no write flow control, or is not there at all.
_LOWEST = (0, 52, 1)

if tuple(map(int, re.findall(r"\d+", version("uvicorn"))[:3])) < _LOWEST:
    raise ImportError(
        f"jararaca_ws.server takes uvicorn >= {'.'.join(map(str, _LOWEST))}, and {version('uvicorn')} is installed: "
        'pip install "jararaca-ws[server]"'
    )

from jararaca_ws.server.draining import DrainingServer  # noqa: E402  # only where they can work
from jararaca_ws.server.heads import HTTPProtocol  # noqa: E402
from jararaca_ws.server.protocol import WebSocketProtocol  # noqa: E402

__all__ = ["DrainingServer", "HTTPProtocol", "WebSocketProtocol"]
