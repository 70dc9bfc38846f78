"""Questions from outside of the mesh, over real segments and real TCP."""

from __future__ import annotations

from cachee_bridge.ports.effects import Answered
from cachee_bridge.wire.messages import HOLDS, SHARED, Asked
from tests.bridge.shells import Side, run, until


def test_each_linked_peer_is_asked_and_says_what_it_holds() -> None:
    async def test(left: Side, right: Side) -> None:
        right.cache.set("k", 1)
        asked = (Asked(right.cache._hash("k")), Asked(right.cache._hash("none")))
        answers = await left.shell.inquiries.of_all(HOLDS, "shop", asked)
        assert list(answers) == ["right"]
        answer = answers["right"].answer
        assert answer is not None
        assert [holding.held for holding in answer.holdings] == [SHARED, 0]
        assert answer.tail == right.cache.tail

    run(test)


def test_with_nobody_to_ask_the_answer_is_empty() -> None:
    async def test(left: Side, right: Side) -> None:
        assert await left.shell.inquiries.of_all(HOLDS, "none", (Asked(1),)) == {}

    run(test)


def test_a_callback_may_ask_again_at_once_and_bytes_stay_in_order() -> None:
    async def test(left: Side, right: Side) -> None:
        told: list[Answered] = []

        def again(answered: Answered) -> None:
            told.append(answered)
            if len(told) < 20:
                left.shell.inquiries.ask("right", HOLDS, "shop", (Asked(1),), again)

        left.cache.set("k", 1)
        left.shell.inquiries.ask("right", HOLDS, "shop", (Asked(1),), again)
        left.shell.inputs.perform()
        await until(lambda: len(told) == 20)
        assert all(answered.answer for answered in told)
        assert left.up() == ["right"]

    run(test)


def test_a_client_that_waits_no_longer_gets_no_answer_and_nothing_is_remembered() -> None:
    async def test(left: Side, right: Side) -> None:
        waiting = left.shell.inquiries.of_all(HOLDS, "shop", (Asked(1),))
        waiting.send(None)
        waiting.close()
        await until(lambda: not left.shell.inquiries._told)
        assert left.broken == []

    run(test)
