"""What users of jararaca_ws test with: a client in the loop, the contract of backends, a network that fails."""

from __future__ import annotations

from jararaca_ws.testing.backend_contract import BACKEND_CONTRACT
from jararaca_ws.testing.client import InLoopWebSocket, WebSocketClosed, connect, lifespan
from jararaca_ws.testing.proxy import FaultProxy

__all__ = [
    "BACKEND_CONTRACT",
    "FaultProxy",
    "InLoopWebSocket",
    "WebSocketClosed",
    "connect",
    "lifespan",
]
