"""Dials: from an address to a connection, by the first of its IP addresses that answers.

An address that leads to this host itself is not dialled (own.py). Where nobody has to prove anything, nothing
beyond loopback is dialled. An answer may take CONNECT_TIMEOUT_S.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cachee_bridge.carriers.connection import reason_of
from cachee_bridge.carriers.names import Names, is_loopback
from cachee_bridge.carriers.own import Own

if TYPE_CHECKING:
    from cachee_bridge.carriers.connection import Connection

CONNECT_TIMEOUT_S = 3.0  # a SYN and its first repetition


class Dialler:
    """Of one network."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leads_here: Callable[[str], None]) -> None:
        """`leads_here(address)`: it is an address of this host itself, which was not dialled, or did not
        answer."""
        self._loop, self._leads_here = loop, leads_here
        self.names = Names(loop)
        self.own = Own()
        self.only_loopback = False
        """Dial nothing beyond this machine: there is nothing by which anybody could prove who it is."""

    async def dial(self, connection: Connection, address: str, host: str, port: int) -> None:
        """Ends when `connection` is made or has failed, or `leads_here` was called."""
        try:
            found = self.own.others(await self.names.addresses(host), port)
        except Exception as error:  # OSError, mostly; without an answer it would never be dialled again
            connection.fail(reason_of(error))
            return
        if not found:
            self._leads_here(address)
            return
        connection.dialled = found
        give_up = partial(connection.give_up, asyncio.current_task())
        deadline = self._loop.call_later(CONNECT_TIMEOUT_S, give_up)
        try:
            await self._connect(connection, found, port)
        except Exception as error:  # OSError, mostly; whatever it is, it is this dial's alone
            if self.own.if_nobody_answers(found, port):
                self._leads_here(address)
            else:
                connection.fail(reason_of(error))
        finally:
            deadline.cancel()

    async def _connect(self, connection: Connection, found: list[str], port: int) -> None:
        """By the first of the addresses that answers."""
        if self.only_loopback and not all(map(is_loopback, found)):
            raise PermissionError("it is beyond loopback, and there is no secret_file and no [bridge.tls]")
        for host in found[:-1]:
            try:
                await self._loop.create_connection(lambda: connection, host, port)
                return
            except OSError:
                continue
        await self._loop.create_connection(lambda: connection, found[-1], port)
