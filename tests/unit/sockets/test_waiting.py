from __future__ import annotations

import asyncio

from jararaca_ws.sockets.waiting import Flag, Mailbox, Waiters
from tests.unit.played import turns


async def test_all_who_wait_are_woken_once():
    waiters = Waiters()
    woken: list[int] = []

    async def wait(n: int) -> None:
        await waiters.wait()
        woken.append(n)

    tasks = [asyncio.create_task(wait(n)) for n in range(3)]
    await turns()
    assert woken == []
    waiters.wake()
    late = asyncio.create_task(wait(9))
    await turns()
    assert woken == [0, 1, 2]
    waiters.wake()
    await asyncio.gather(*tasks, late)
    assert woken == [0, 1, 2, 9]


async def test_one_who_is_cancelled_takes_nobody_with_it():
    waiters = Waiters()
    one, other = (asyncio.create_task(waiters.wait()) for _ in range(2))
    await turns()
    one.cancel()
    await turns()
    assert one.cancelled()
    assert not other.done()
    waiters.wake()
    await other


async def test_one_who_is_cancelled_in_the_moment_of_waking():
    waiters = Waiters()
    one, other = (asyncio.create_task(waiters.wait()) for _ in range(2))
    await turns()
    waiters.wake()
    one.cancel()
    await other
    await turns()
    assert one.done()
    waiters.wake()  # nobody is left


async def test_a_flag():
    flag = Flag()
    assert not flag.is_set()
    waiting = asyncio.create_task(flag.wait())
    await turns()
    assert not waiting.done()
    flag.set()
    flag.set()
    await waiting
    await flag.wait()
    flag.clear()
    again = asyncio.create_task(flag.wait())
    await turns()
    assert not again.done()
    flag.set()
    await again


async def test_a_flag_that_was_cleared_before_its_waiter_ran():
    flag = Flag()
    waiting = asyncio.create_task(flag.wait())
    await turns()
    flag.set()
    flag.clear()
    await turns()
    assert not waiting.done()
    flag.set()
    await waiting


async def test_a_mailbox_gives_what_it_got_in_order():
    mailbox: Mailbox[int] = Mailbox()
    assert mailbox.empty()
    getting = asyncio.create_task(mailbox.get())
    await turns()
    for n in range(3):
        mailbox.put_nowait(n)
    assert [await getting, await mailbox.get(), await mailbox.get()] == [0, 1, 2]
    assert mailbox.empty()


async def test_a_cancelled_get_loses_nothing():
    mailbox: Mailbox[int] = Mailbox()
    one, other = (asyncio.create_task(mailbox.get()) for _ in range(2))
    await turns()
    mailbox.put_nowait(1)
    one.cancel()
    assert await other == 1
    assert mailbox.empty()
