"""wss: the fast path under uvicorn with a certificate."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from jararaca_ws.settings import WebSocketSettings
from tests.server.running import FAST, Note, running, until

SETTINGS = WebSocketSettings(
    max_queue_bytes=256 * 1024, write_timeout=timedelta(seconds=0.5), close_timeout=timedelta(seconds=0.3)
)
HANDSHAKE = (
    b"GET /room/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """uvicorn's options: a key and a certificate that it has signed itself."""
    directory: Path = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return {"ssl_keyfile": str(key), "ssl_certfile": str(certificate)}


def never_reads_again(port: int, trusting: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect(("127.0.0.1", port))
    client = trusting.wrap_socket(raw, server_hostname="127.0.0.1")
    client.sendall(HANDSHAKE)
    assert client.recv(12) == b"HTTP/1.1 101"
    return client


async def test_fan_out_and_a_stalled_reader_over_tls(certificate: dict[str, Any]):
    trusting = ssl.create_default_context(cafile=certificate["ssl_certfile"])
    async with running(FAST, settings=SETTINGS, **certificate) as server:
        url = f"wss://127.0.0.1:{server.port}/room/a"
        healthy = [await connect(url, ssl=trusting, compression=None, max_queue=None) for _ in range(3)]
        stalled = await asyncio.to_thread(never_reads_again, server.port, trusting)
        await until(lambda: len(server.manager.members("a")) == 4)
        port = stalled.getsockname()[1]
        (connection,) = [one for one in server.connections if one.scope["client"][1] == port]
        (protocol,) = [one for one in server.protocols if one.client[1] == port]
        most = 0
        for number in range(200):
            await server.manager.send(["a"], Note(n=number, text="x" * 30_000))
            async with asyncio.timeout(5):
                got = [json.loads(await client.recv())["message"]["n"] for client in healthy]
            assert got == [number] * 3
            most = max(most, protocol.transport.get_write_buffer_size())
            if not connection.alive:
                break
        assert connection.close_code == 4008
        assert most < 128 * 1024, "TLS buffers no more than a plain transport does"
        await until(lambda: protocol not in server.protocols, 3, "uvicorn has let it go")
        await until(lambda: not server.kernel_sockets(port), 1, "its socket is closed")
        assert len(server.manager.members("a")) == 3
        stalled.close()
        for client in healthy:
            await client.close()
