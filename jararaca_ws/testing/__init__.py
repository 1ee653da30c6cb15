"""What users of jararaca_ws test with: a WebSocket client in the loop, and the contract that every backend keeps."""

from __future__ import annotations

from jararaca_ws.testing.backend_contract import BACKEND_CONTRACT
from jararaca_ws.testing.client import InLoopWebSocket, WebSocketClosed, connect, lifespan

__all__ = ["BACKEND_CONTRACT", "InLoopWebSocket", "WebSocketClosed", "connect", "lifespan"]
