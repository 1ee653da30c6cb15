"""A uvicorn that is too old, or of an unusual version: said at once, and served the slow way."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Iterator

import pytest
import uvicorn

from jararaca_ws.cli import serve
from jararaca_ws.settings import WebSocketSettings


@pytest.fixture(autouse=True)
def fresh_import(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`jararaca_ws.server` is imported again, and is afterwards what it was."""
    kept = {name: module for name, module in sys.modules.items() if name.startswith("jararaca_ws.server")}
    for name in kept:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.startswith("jararaca_ws.server")]:
        del sys.modules[name]
    sys.modules.update(kept)


def uvicorn_is(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "uvicorn" else real(name))


@pytest.mark.parametrize("version", ["0.30.6", "0.52.0", "0.52"])
def test_too_old(version: str, monkeypatch: pytest.MonkeyPatch):
    uvicorn_is(version, monkeypatch)
    with pytest.raises(ImportError, match=r"takes uvicorn >= 0\.52\.1") as refusal:
        importlib.import_module("jararaca_ws.server")
    assert version in str(refusal.value)
    assert 'pip install "jararaca-ws[server]"' in str(refusal.value)


@pytest.mark.parametrize("version", ["0.52.1", "0.54", "0.55.0rc1", "0.55.0b2", "1.0.0", "1.0.0a1", "0.54.0+local.1"])
def test_new_enough(version: str, monkeypatch: pytest.MonkeyPatch):
    uvicorn_is(version, monkeypatch)
    assert importlib.import_module("jararaca_ws.server").WebSocketProtocol


def test_the_command_line_falls_back_with_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    uvicorn_is("0.30.6", monkeypatch)
    assert serve._fastest(5, WebSocketSettings()) == (uvicorn.Server, {})
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert "0.30.6" in line.getMessage()
    assert "\n" not in line.getMessage()


@pytest.mark.parametrize("value", ["lots", "", "1e5"])
def test_a_send_buffer_that_is_none_is_refused_by_name(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JARARACA_WS_SEND_BUFFER_BYTES", value)
    with pytest.raises(Exception, match="JARARACA_WS_SEND_BUFFER_BYTES"):  # of which kind is not our business
        importlib.import_module("jararaca_ws.server")
