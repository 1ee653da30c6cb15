"""The benchmarks' smoke run: everything that is sent arrives, and every table is made. No figure is judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.workloads import WORKLOADS
from tests.servers import OwnedProcess

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", directory]
    with OwnedProcess(command, log=directory / "bench.log", cwd=ROOT) as bench:
        assert bench.wait(timeout=150) == 0, bench.output()
    return directory


@pytest.fixture(scope="module")
def runs(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads((output / "results.json").read_text())["runs"]
    return {(run["system"], run["workload"]): run for run in found}


def has_redis(runs: dict[tuple[str, str], dict[str, Any]]) -> bool:
    return runs["ours-redis", "fanout-500"]["failed"] != "redis-server is not installed"


@pytest.mark.parametrize("system", ["ours", "ours-redis", "starlette"])
def test_every_frame_of_every_round_arrives(runs: dict[tuple[str, str], dict[str, Any]], system: str) -> None:
    if system == "ours-redis" and not has_redis(runs):
        pytest.skip("redis-server is not installed")
    counted = {"fanout-500": 1, "fanout-5000": 1, "burst": 2, "deflate": 1, "solo-rooms": 1, "stalled": 2}
    for workload, results in counted.items():
        run = runs[system, workload]
        assert run["failed"] is None
        assert len(run["results"]) == results
        for result in run["results"]:
            assert result["expected"] == result["rounds"] * result["members"] * result["burst"] > 0
            assert result["delivered"] == result["expected"]


@pytest.mark.parametrize("system", ["ours", "ours-uvicorn", "starlette"])
def test_every_message_of_a_client_is_answered(runs: dict[tuple[str, str], dict[str, Any]], system: str) -> None:
    (result,) = runs[system, "inbound"]["results"]
    assert result["delivered"] == result["expected"] == result["rounds"] * 5 > 0


@pytest.mark.redis
@pytest.mark.parametrize(("workload", "members"), [("publish", 0), ("publish-local", 1)])
def test_every_send_through_redis_arrives(
    runs: dict[tuple[str, str], dict[str, Any]], workload: str, members: int
) -> None:
    if not has_redis(runs):
        pytest.skip("redis-server is not installed")
    (result,) = runs["ours-redis", workload]["results"]
    assert result["delivered"] == result["expected"] == 5 * 4 * members


def test_sends_beside_many_rooms_arrive(runs: dict[tuple[str, str], dict[str, Any]]) -> None:
    few, many = runs["ours", "rooms"]["results"]
    assert (few["other_rooms"], many["other_rooms"]) == (10, 200)
    assert few["delivered"] == few["expected"] == many["delivered"] == many["expected"] == 5 * 20 * 5


def test_idle_connections_come_and_go_twice(runs: dict[tuple[str, str], dict[str, Any]]) -> None:
    (result,) = runs["ours", "idle"]["results"]
    assert result["connections"] == 50
    assert len(result["rss_after"]) == 2


def test_what_a_system_cannot_do_has_a_reason(runs: dict[tuple[str, str], dict[str, Any]], output: Path) -> None:
    run = runs["starlette", "rooms"]
    assert run["results"] == []
    assert run["failed"] in (output / "RESULTS.md").read_text()


def test_the_report_names_every_workload_and_version(output: Path) -> None:
    text = (output / "RESULTS.md").read_text()
    for workload in WORKLOADS:
        assert f"\n## {workload.title}\n" in text
    assert "jararaca-ws 0." in text
    assert "A smoke run" in text


def test_the_picture_is_well_formed_and_has_a_bar_for_each_figure(output: Path) -> None:
    picture = ElementTree.parse(output / "benchmark.svg").getroot()
    bars = [element for element in picture.iter() if element.tag.endswith("rect")]
    assert len(bars) in (6, 9)  # three panels; without Redis two systems
