from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel

from jararaca_ws import (
    ConfigurationError,
    MemoryWebSocketConnectionBackend,
    PresenceSettings,
    RedisWebSocketConnectionBackend,
    WebSocketConnectionManager,
)
from jararaca_ws.configuring import Settings, unknown_variables, warn_of_unknown_variables
from jararaca_ws.settings import WebSocketSettings


@pytest.fixture(autouse=True)
def said_nothing() -> Iterator[None]:
    warn_of_unknown_variables.cache_clear()
    yield
    warn_of_unknown_variables.cache_clear()


def source_of(settings: Settings, name: str) -> tuple[str, str]:
    (found,) = [one for one in settings.effective() if one.name == name]
    return found.value, found.source


def test_an_argument_counts_more_than_the_environment_and_that_more_than_the_default(monkeypatch: pytest.MonkeyPatch):
    assert source_of(WebSocketSettings(), "max_rooms") == ("128", "default")
    monkeypatch.setenv("JARARACA_WS_MAX_ROOMS", "7")
    assert WebSocketSettings().max_rooms == 7
    assert source_of(WebSocketSettings(), "max_rooms") == ("7", "JARARACA_WS_MAX_ROOMS")
    assert WebSocketSettings(max_rooms=9).max_rooms == 9
    assert source_of(WebSocketSettings(max_rooms=9), "max_rooms") == ("9", "argument")


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("0.5", 0.5), ("0", 0), ("1e2", 100)])
def test_a_time_is_written_in_seconds(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JARARACA_WS_WRITE_TIMEOUT", text)
    assert WebSocketSettings().write_timeout == timedelta(seconds=seconds)


def test_none_can_be_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JARARACA_WS_HANDSHAKE_RATE", "none")
    assert WebSocketSettings().handshake_rate is None
    assert source_of(WebSocketSettings(), "handshake_rate") == ("none", "JARARACA_WS_HANDSHAKE_RATE")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_rooms", "0"),
        ("max_rooms", "-1"),
        ("max_rooms", "many"),
        ("max_rooms", ""),
        ("max_rooms", "1.5"),
        ("max_rooms", "none"),
        ("write_timeout", "-1"),
        ("write_timeout", "nan"),
        ("write_timeout", "inf"),
        ("write_timeout", "1e300"),
        ("write_timeout", "PT3S"),
        ("write_timeout", "soon"),
    ],
)
def test_a_wrong_value_of_the_environment_is_refused_by_name(name: str, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"JARARACA_WS_{name.upper()}", text)
    with pytest.raises(ConfigurationError, match=rf"^{name}=.*JARARACA_WS_{name.upper()}\)"):
        WebSocketSettings()


@pytest.mark.parametrize(("name", "value"), [("max_rooms", True), ("max_rooms", 1.0), ("write_timeout", 5)])
def test_an_argument_of_another_type_is_refused(name: str, value: object):
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        WebSocketSettings.model_validate({name: value})


def test_a_setting_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="no 'max_roms': did you mean max_rooms"):
        WebSocketSettings.model_validate({"max_roms": 5})


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        WebSocketSettings().max_rooms = 5  # type: ignore[misc]


def test_b34_a_value_stays_in_its_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JARARACA_WS_MAX_ROOMS", "5\r\nx\x1b[31m" + "y" * 1000)
    with pytest.raises(ConfigurationError) as refused:
        WebSocketSettings()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


class TestSecrets:
    class Secrets(Settings):
        model_config = SettingsConfigDict(env_prefix="TEST_SECRETS_")

        key: SecretStr | None = None

    def test_a_secret_is_not_shown(self):
        assert source_of(self.Secrets(key=SecretStr("hunter2")), "key") == ("***", "argument")

    def test_a_secret_that_cannot_be_is_not_shown_either(self):
        with pytest.raises(ConfigurationError) as refused:
            self.Secrets.model_validate({"key": ["hunter2"]})
        assert "hunter2" not in str(refused.value)
        assert "TEST_SECRETS_KEY" in str(refused.value)


class TestUnknownVariables:
    def test_a_typo_is_found_with_the_nearest(self):
        problems = unknown_variables([f"JARARACA_WS_{name}" for name in ("MAX_ROMS", "MAX_ROOMS", "PRESENCE_TTL")])
        assert unknown_variables(["HOME", "JARARACA_URL"]) == []
        assert problems == ["'JARARACA_WS_MAX_ROMS' is not a setting: did you mean JARARACA_WS_MAX_ROOMS?"]

    def test_what_kubernetes_makes_is_left_alone(self):
        names = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8000_TCP", "PORT_8000_TCP_ADDR"]
        assert unknown_variables([f"JARARACA_WS_{name}" for name in names]) == []

    async def test_it_is_said_once_when_the_first_manager_starts(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        monkeypatch.delenv("JARARACA_WS_LIVE", raising=False)  # of scripts/test
        monkeypatch.setenv("JARARACA_WS_MAX_ROMS", "5")
        for _ in range(2):
            async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()):
                pass
        (line,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "JARARACA_WS_MAX_ROMS" in line.getMessage()


class TestEffective:
    def test_a_manager_says_all_of_it(self):
        backend = RedisWebSocketConnectionBackend("redis://ana:hunter2@redis.internal:6380/2", prefix="shop")
        manager = WebSocketConnectionManager(backend, presence=PresenceSettings(threshold=3))
        said = manager.effective_settings()
        assert list(said) == ["WebSocketSettings", "PresenceSettings", "RedisWebSocketConnectionBackend"]
        assert ("threshold", "3", "argument") in said["PresenceSettings"]
        redis = {name: value for name, value, _ in said["RedisWebSocketConnectionBackend"]}
        assert redis["conn"] == "redis://ana:***@redis.internal:6380/2"
        assert (redis["prefix"], redis["publish_timeout"]) == ("shop", "5")
        assert "hunter2" not in str(said)

    @pytest.mark.parametrize(
        ("conn", "shown"),
        [
            ("redis://:hunter2@a", "redis://:***@a:6379/0"),
            ("redis://a/3", "redis://a:6379/3"),
            ("rediss://a:1", "rediss://a:1/0"),
            ("unix://:hunter2@/run/redis.sock", "unix://:***@/run/redis.sock"),
            (Redis(host="a", password="hunter2"), "redis://:***@a:6379/0"),
            (
                Sentinel([("a", 1)], sentinel_kwargs={"password": "hunter2"}).master_for("shop", password="hunter2"),
                "the master shop of a Sentinel",
            ),
            (
                RedisCluster(startup_nodes=[ClusterNode("a", 1)], password="hunter2"),
                "a cluster: redis://:***@a:1/0",
            ),
        ],
        ids=str,
    )
    def test_where_redis_is_without_its_password(self, conn: Redis | RedisCluster | str, shown: str):
        (where, *_) = RedisWebSocketConnectionBackend(conn).effective()
        assert where.value == shown

    def test_a_backend_that_says_nothing(self):
        manager = WebSocketConnectionManager(MemoryWebSocketConnectionBackend())
        assert list(manager.effective_settings()) == ["WebSocketSettings"]
