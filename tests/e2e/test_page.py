"""The demo page in a real browser: what a person sees and clicks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.e2e.fleet import Instance, worker
from tests.servers import RabbitMQServer, RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def browser(chromium_path: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=chromium_path, args=FLAGS)
        yield chromium
        await chromium.close()


@asynccontextmanager
async def person(browser: Browser, instance: Instance, name: str, room: str = "lobby") -> AsyncIterator[Page]:
    """Somebody with a browser of their own, connected, with a name."""
    context = await browser.new_context()
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(f"{instance.http}/#{room}")
    await expect(page.locator("#state")).to_have_attribute("data-state", "connected")
    await page.locator("#name").fill(name)
    yield page
    assert problems == []
    await context.close()


async def say(page: Page, text: str) -> None:
    await page.locator("#text").fill(text)
    await page.locator("#send").click()


async def test_two_people_talk_on_the_embedded_default(browser: Browser, tmp_path: Path):
    instance = Instance(tmp_path)
    await asyncio.to_thread(instance.wait_until_up)
    async with person(browser, instance, "Ana") as ana, person(browser, instance, "Rui") as rui:
        await say(ana, "<b>hello</b>")
        for page in (ana, rui):
            await expect(page.locator("#messages li.message")).to_have_count(1)
            await expect(page.locator("#messages li.message p")).to_have_text("<b>hello</b>")  # as text, never as HTML
        await expect(ana.locator("#messages li.message[data-own]")).to_have_count(1)
        await expect(rui.locator("#messages li.message[data-own]")).to_have_count(0)

        await rui.locator("#notify").click()
        for page in (ana, rui):
            await expect(page.locator("#messages li.notification")).to_contain_text("Rui waves to everyone")

        await rui.locator("[data-room=kitchen]").click()
        await expect(rui.locator("#state")).to_have_attribute("data-state", "connected")
        await say(ana, "only the lobby")
        await expect(ana.locator("#messages li.message")).to_have_count(2)
        await expect(rui.locator("#messages li.message")).to_have_count(0)
    instance.process.terminate()


async def test_the_page_shows_a_lost_connection_and_comes_back_by_itself(browser: Browser, tmp_path: Path):
    instance = Instance(tmp_path)
    await asyncio.to_thread(instance.wait_until_up)
    async with person(browser, instance, "Ana") as ana:
        instance.process.kill()
        await expect(ana.locator("#state")).to_have_attribute("data-state", "waiting")
        again = Instance(tmp_path, port=instance.port)
        await asyncio.to_thread(again.wait_until_up)
        await expect(ana.locator("#state")).to_have_attribute("data-state", "connected", timeout=20_000)
        await say(ana, "back")
        await expect(ana.locator("#messages li.message p")).to_have_text("back")
        again.process.terminate()


@pytest.mark.redis
@pytest.mark.rabbitmq
async def test_two_people_on_two_instances(
    browser: Browser, tmp_path: Path, redis_server: RedisServer, rabbitmq_server: RabbitMQServer
):
    instances = [Instance(tmp_path, redis_server, rabbitmq_server) for _ in range(2)]
    working = worker(tmp_path, redis_server, rabbitmq_server)
    for instance in instances:
        await asyncio.to_thread(instance.wait_until_up)
    await asyncio.to_thread(working.wait_until, lambda: "chat consumes with" in working.output())
    async with person(browser, instances[0], "Ana") as ana, person(browser, instances[1], "Rui") as rui:
        await say(ana, "from one")
        await say(rui, "from two")
        for page in (ana, rui):
            await expect(page.locator("#messages li.message")).to_have_count(2)
            await expect(page.locator("#messages")).to_contain_text("from one")
            await expect(page.locator("#messages")).to_contain_text("from two")
        await ana.locator("#notify").click()
        for page in (ana, rui):
            await expect(page.locator("#messages li.notification")).to_contain_text("Ana waves to everyone")
        await expect(ana.locator("#info")).to_contain_text("rabbitmq")
        redis_server.kill()
        await say(ana, "nobody hears me")
        # The instance tries again until its publish timeout, 5 s, before it says so.
        await expect(ana.locator("#error")).to_contain_text("unavailable", timeout=20_000)
        await expect(ana.locator("#text")).to_have_value("nobody hears me")
    for process in (working, *(instance.process for instance in instances)):
        process.terminate()
