"""The operator's socket: which users may open it, what it answers, and that no client can block the
others."""

from __future__ import annotations

import asyncio
import grp
import json
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from cachee_bridge.daemon import operator_socket as control_module
from cachee_bridge.daemon.operator_socket import CLIENTS_MAX, REQUEST_BYTES_MAX, OperatorSocket

Client = Callable[[bytes], Awaitable[bytes]]


def served(path: Path, test: Callable[[Client], Awaitable[None]], gid: int | None = None) -> None:
    async def client(request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(request)
        try:
            return await reader.read()
        except (ConnectionResetError, BrokenPipeError):  # it was closed before all was read
            return b""
        finally:
            writer.close()

    async def main() -> None:
        control = OperatorSocket(str(path), gid, lambda request: {"you said": request})
        await control.open()
        try:
            await test(client)
        finally:
            control.close()

    uvloop.run(main())


def test_one_question_has_one_answer(tmp_path: Path) -> None:
    async def test(ask: Client) -> None:
        assert json.loads(await ask(b'{"do": "peers"}\n')) == {"you said": {"do": "peers"}}

    served(tmp_path / "sock", test)


def test_an_answer_that_has_to_be_waited_for_comes_when_it_is_there_and_others_are_answered_meanwhile(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        goes_on = asyncio.Event()

        async def later(request: dict[str, object]) -> dict[str, object]:
            await goes_on.wait()
            return {"later": request}

        def answer(request: dict[str, object]) -> dict[str, object] | Awaitable[dict[str, object]]:
            return later(request) if request.get("do") == "wait" else {"now": True}

        control = OperatorSocket(str(tmp_path / "sock"), None, answer)
        await control.open()
        waiting = [await asyncio.open_unix_connection(str(tmp_path / "sock")) for _ in range(2)]
        for _, writer in waiting:
            writer.write(b'{"do": "wait"}\n{"do": "more"}\n')
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "sock"))
        writer.write(b"{}\n")
        assert json.loads(await reader.read()) == {"now": True}
        waiting[1][1].close()
        while control.clients > 1:
            await asyncio.sleep(0.001)
        goes_on.set()
        assert json.loads(await waiting[0][0].read()) == {"later": {"do": "wait"}}
        control.close()

    uvloop.run(main())


@pytest.mark.parametrize(
    "request_",
    [b"no JSON\n", b"[1]\n", b"[" * REQUEST_BYTES_MAX + b"\n", b"x" * (2 * REQUEST_BYTES_MAX) + b"\n"],
)
def test_an_invalid_question_has_no_answer_and_the_next_client_is_answered(
    tmp_path: Path, request_: bytes
) -> None:
    async def test(ask: Client) -> None:
        assert await ask(request_) == b""
        assert await ask(b"{}\n")

    served(tmp_path / "sock", test)


def test_a_question_that_does_not_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "PATIENCE_S", 1e6)

    async def test(ask: Client) -> None:
        assert await asyncio.wait_for(ask(b"x" * (REQUEST_BYTES_MAX + 1)), 20) == b""

    served(tmp_path / "sock", test)


def test_clients_that_say_nothing_are_let_go_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "PATIENCE_S", 0.3)

    async def test(ask: Client) -> None:
        silent = [await asyncio.open_unix_connection(str(tmp_path / "sock")) for _ in range(CLIENTS_MAX)]
        await asyncio.sleep(0.05)
        assert await ask(b"{}\n") == b""
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
        assert await ask(b"{}\n")

    served(tmp_path / "sock", test)


def test_without_a_group_only_its_own_user_may_open_it(tmp_path: Path) -> None:
    async def test(ask: Client) -> None:
        assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o600

    served(tmp_path / "sock", test)


@pytest.mark.needs("other users")
def test_with_a_group_its_members_may(tmp_path: Path) -> None:
    gid = grp.getgrnam("daemon").gr_gid

    async def test(ask: Client) -> None:
        status = (tmp_path / "sock").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, gid)

    served(tmp_path / "sock", test, gid)


def test_what_a_killed_bridge_left_is_replaced_and_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "sock"))

    async def test(ask: Client) -> None:
        assert await ask(b"{}\n")

    served(tmp_path / "sock", test)
    assert not (tmp_path / "sock").exists()


def test_one_whose_file_was_removed_is_found_again_once_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "sock"

    async def main() -> None:
        control = OperatorSocket(str(path), None, lambda request: {"you said": request})
        await control.open()
        assert not control.is_lost
        path.unlink()
        assert control.is_lost
        await control.open()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"{}\n")
        assert json.loads(await reader.read()) == {"you said": {}}
        writer.close()
        control.close()

    uvloop.run(main())
    assert not path.exists()


def test_where_it_cannot_be_made_the_bridge_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        uvloop.run(OperatorSocket(str(tmp_path / "none" / "sock"), None, lambda request: {}).open())
