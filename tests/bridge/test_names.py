"""Names whose servers are silent, lie or change their mind: real askers of servers that are made up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from cachee_bridge.carriers import names as names_module
from cachee_bridge.carriers.names import ADDRESSES_MAX, Names, is_address, look_up, look_up_all

WAIT_S = 20.0
Test = Callable[[Names], Awaitable[None]]


class Servers:
    """What the name servers do: names that begin with `hangs` get no answer before `release`."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.answers: dict[str, list[str] | Exception] = {}
        self.asked: list[str] = []

    def ask(self, name: str) -> list[str]:
        self.asked.append(name)
        if name.startswith("hangs"):
            self.release.wait(WAIT_S)
        answer = self.answers.get(name, ["10.0.0.1"])
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "DEADLINE_S", 0.1)


def run(servers: Servers, test: Test) -> None:
    async def main() -> None:
        names = Names(asyncio.get_running_loop(), servers.ask)
        names._askers_max = 8
        try:
            await asyncio.wait_for(test(names), WAIT_S)
        finally:
            servers.release.set()
            names.stop()

    uvloop.run(main())


async def outcome(names: Names, name: str) -> list[str] | str:
    try:
        return await names.addresses(name)
    except OSError as error:
        return str(error)


def test_a_name_whose_server_is_silent_is_given_up_after_the_deadline() -> None:
    async def test(names: Names) -> None:
        assert "no name server answers for 'hangs'" in await outcome(names, "hangs")  # type: ignore[operator]

    run(Servers(), test)


def test_names_that_were_slow_leave_half_of_the_askers_to_others() -> None:
    servers = Servers()

    async def test(names: Names) -> None:
        slow = [f"hangs-{number}" for number in range(60)]
        await asyncio.gather(*(outcome(names, name) for name in slow))
        servers.release.set()
        while names._asked or names._waiting:
            await asyncio.sleep(0.001)
        servers.release.clear()
        names._slow.update(slow)
        again = [asyncio.ensure_future(outcome(names, name)) for name in slow]
        assert await names.addresses("good") == ["10.0.0.1"]
        assert len(names._asked) == 4
        servers.release.set()
        await asyncio.gather(*again)

    run(servers, test)


def test_askers_are_bounded_and_a_name_is_asked_for_by_one() -> None:
    servers = Servers()

    async def test(names: Names) -> None:
        many = [outcome(names, f"hangs-{number % 30}") for number in range(300)]
        asking = asyncio.gather(*many)
        await asyncio.sleep(0.05)
        assert len(names._asked) == 8
        assert len(servers.asked) == len(set(servers.asked)) == 8
        await asking

    run(servers, test)


@pytest.mark.parametrize(
    "fault", [OSError("no such name"), UnicodeError("too long"), ValueError("a mistake"), []]
)
def test_the_last_good_address_is_kept(fault: list[str] | Exception) -> None:
    servers = Servers()

    async def test(names: Names) -> None:
        assert await names.addresses("web-2") == ["10.0.0.1"]
        servers.answers["web-2"] = fault
        assert await names.addresses("web-2") == ["10.0.0.1"]
        servers.answers["web-2"] = ["10.0.0.2"]
        assert await names.addresses("web-2") == ["10.0.0.2"]
        servers.answers["web-3"] = fault
        assert isinstance(await outcome(names, "web-3"), str)

    run(servers, test)


def test_an_answer_that_comes_late_is_kept_for_the_next_question() -> None:
    servers = Servers()
    servers.answers["hangs"] = ["10.0.0.7"]

    async def test(names: Names) -> None:
        assert isinstance(await outcome(names, "hangs"), str)
        servers.release.set()
        while names._asked:
            await asyncio.sleep(0.001)
        servers.release.clear()
        assert await names.addresses("hangs") == ["10.0.0.7"]

    run(servers, test)


def test_a_server_that_lies_gives_at_most_a_few_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [(2, 1, 6, "", (f"10.0.{n // 256}.{n % 256}", 0)) for n in range(5000)]
    monkeypatch.setattr("socket.getaddrinfo", lambda *arguments, **options: many)
    assert len(look_up("liar")) == ADDRESSES_MAX


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "KNOWN_MAX", 5)

    async def test(names: Names) -> None:
        for number in range(20):
            await names.addresses(f"web-{number}")
        assert len(names._known) == 5

    run(Servers(), test)


def test_addresses_in_figures_ask_nobody() -> None:
    servers = Servers()

    async def test(names: Names) -> None:
        for address in ("127.0.0.1", "::1", "fe80::1%lo"):
            assert await names.addresses(address) == [address]
        assert servers.asked == []

    run(servers, test)
    assert not any(map(is_address, ("localhost", "1.2.3", "web-1", "")))


HANGS_FOR_EVER = """
import asyncio, time, uvloop
from cachee_bridge.carriers.names import Names

async def main():
    names = Names(asyncio.get_running_loop(), lambda name: time.sleep(1000))
    asked = [asyncio.ensure_future(names.addresses(f"host-{n}")) for n in range(60)]
    await asyncio.sleep(0.1)
    names.stop()
    print("stopped", flush=True)

uvloop.run(main())
"""


def test_a_process_ends_though_its_askers_do_not() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGS_FOR_EVER], capture_output=True, timeout=WAIT_S, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "stopped\n")


def test_where_no_thread_can_be_made_the_question_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def test(names: Names) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        said = await asyncio.gather(*(outcome(names, f"web-{number}") for number in range(20)))
        assert all("can't start new thread" in told for told in said)
        monkeypatch.undo()

    run(Servers(), test)


def test_without_a_thread_a_name_has_no_address_and_figures_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert look_up_all(["localhost", "127.0.0.1"], 1.0) == {"127.0.0.1": ["127.0.0.1"]}
