"""The microsecond timer in a real event loop."""

from __future__ import annotations

import asyncio
import os
import select

import pytest
import uvloop

from cachee_bridge.shell.timer import Timer


def test_it_wakes_an_event_loop_once_for_each_shot() -> None:
    shots: list[int] = []

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        timer = Timer()

        def passed() -> None:
            timer.passed()
            shots.append(len(shots))
            if len(shots) < 3:
                timer.after(50)
            else:
                done.set_result(None)

        loop.add_reader(timer.fileno(), passed)
        timer.after(50)
        await asyncio.wait_for(done, 10)
        await asyncio.sleep(0.01)
        loop.remove_reader(timer.fileno())
        timer.close()

    uvloop.run(wait())
    assert shots == [0, 1, 2]


def test_a_second_shot_replaces_the_first() -> None:
    timer = Timer()
    timer.after(900_000)
    timer.after(1)
    assert select.select([timer.fileno()], [], [], 10)[0]
    timer.passed()
    assert not select.select([timer.fileno()], [], [], 0)[0]
    timer.close()


def test_to_say_passed_without_a_shot_waits_for_nothing() -> None:
    timer = Timer()
    timer.passed()
    timer.close()


def test_a_delay_beyond_a_second_is_refused() -> None:
    timer = Timer()
    with pytest.raises(OSError, match=os.strerror(22)):
        timer.after(1_000_000)
    timer.close()
