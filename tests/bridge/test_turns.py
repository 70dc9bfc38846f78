"""The queue of requests: what hostile clients make of it is in test_hostile_http.py."""

import asyncio

from cachee_bridge.http.turns import Turns


def test_a_waiter_gets_no_turn_after_the_stop_even_if_an_answer_stops_it():
    async def answered() -> list[str]:
        seen: list[str] = []
        turns = Turns(asyncio.get_running_loop())

        def stops() -> None:
            seen.append("stops")
            turns.stop()

        turns.take(stops)
        turns.take(lambda: seen.append("waited"))
        while not seen:
            await asyncio.sleep(0)
        later = asyncio.Event()
        turns.take(later.set)
        await asyncio.wait_for(later.wait(), 10)
        return seen

    assert asyncio.run(answered()) == ["stops"]


def test_turns_come_in_the_order_in_which_they_were_taken():
    async def answered() -> list[int]:
        seen: list[int] = []
        turns = Turns(asyncio.get_running_loop())
        for number in range(20):
            turns.take(lambda number=number: seen.append(number))  # type: ignore[misc]
        assert seen == [], "never from within the call"
        last = asyncio.Event()
        turns.take(last.set)
        await asyncio.wait_for(last.wait(), 10)
        return seen

    assert asyncio.run(answered()) == list(range(20))
