"""Addresses of peers from the DNS: dnspython asks, on the bridge's own event loop.

dns:NAME:PORT   each A and AAAA record of NAME is a host, at PORT (a headless service)
srv:NAME        each SRV record of NAME is one; where, say the A and AAAA records of its target

an answer       a complete list of addresses. It is empty if the name exists and has no record
Unresolved      the name does not exist, a server fails or is silent, a target has no address, or there are
                too many addresses: then no host counts as no longer named

All is asked over TCP. A datagram may hold a part of the records without saying so (Consul's hold three), and
a host that is not named may be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import NamedTuple, TypeVar

from dns import asyncresolver
from dns.exception import DNSException
from dns.rdatatype import RdataType
from dns.resolver import NXDOMAIN
from dns.resolver import Answer as Records

from cachee_bridge.membership.addresses import ADDRESSES_MAX
from cachee_shm.config import split_address, split_discover
from cachee_shm.errors import BridgeError

T = TypeVar("T")

QUERY_S = 5.0
"""For one question, all servers and repetitions together."""
ASK_S = 10.0
"""For one answer, all its questions together."""
TARGETS_AT_ONCE = 16
"""Of SRV records: the server is not to be flooded."""
NONE_TTL_S = 5.0
"""How long an answer without records is used: a new mesh begins without any."""


class Unresolved(BridgeError):
    """The query failed; the message says why."""


class Answer(NamedTuple):
    addresses: list[str]
    ttl_s: float


class Hosts(NamedTuple):
    """The addresses of one name, without a port."""

    found: list[str]
    ttl_s: float


class Resolver:
    """One way to discover peers. Not for two questions at one time."""

    def __init__(self, discover: str, nameserver: str | None) -> None:
        """As the configuration says them; `nameserver` None: the servers that /etc/resolv.conf names."""
        self.what = discover
        self._kind, self._name, self._port = split_discover(discover)
        self._nameserver = nameserver

    async def ask(self) -> Answer:
        """The addresses that are named now. Raises Unresolved."""
        try:
            return await asyncio.wait_for(
                self._services() if self._kind == "srv" else self._name_alone(), ASK_S
            )
        except asyncio.TimeoutError:
            raise Unresolved(f"it took more than {ASK_S:g} s") from None
        except (DNSException, OSError) as error:
            raise Unresolved(_reason(error)) from error

    async def _name_alone(self) -> Answer:
        hosts = await self._hosts(self._name)
        return _answer([(hosts, self._port)], hosts.ttl_s)

    async def _services(self) -> Answer:
        records = await self._query(self._name, RdataType.SRV)
        services = [(record.target.to_text(), record.port) for record in records.rrset or ()]
        names = sorted({name for name, _ in services})
        turn = asyncio.Semaphore(TARGETS_AT_ONCE)
        targets = dict(zip(names, await _all(self._target(name, turn) for name in names), strict=True))
        ttl_s = min([_ttl(records), *(hosts.ttl_s for hosts in targets.values())])
        return _answer([(targets[name], port) for name, port in services], ttl_s)

    async def _target(self, name: str, turn: asyncio.Semaphore) -> Hosts:
        async with turn:
            hosts = await self._hosts(name)
        if not hosts.found:
            raise Unresolved(f"the target {name} has no address")
        return hosts

    async def _hosts(self, name: str) -> Hosts:
        both = await asyncio.gather(
            *(self._query(name, kind) for kind in (RdataType.A, RdataType.AAAA)), return_exceptions=True
        )
        failed = [each for each in both if isinstance(each, BaseException)]
        told = [each for each in both if not isinstance(each, BaseException)]
        for error in failed:
            # A server may deny that there is a name where it has only records of the other kind.
            if not isinstance(error, NXDOMAIN) or not any(records.rrset for records in told):
                raise error
        found = [record.address for records in told for record in records.rrset or ()]
        return Hosts(found, min(_ttl(records) for records in told))

    async def _query(self, name: str, kind: RdataType) -> Records:
        """The machine's list of servers is read anew each time."""
        resolver = asyncresolver.Resolver(configure=self._nameserver is None)
        if self._nameserver is not None:
            host, port = split_address(self._nameserver)
            resolver.nameservers, resolver.port = [host], port
        return await resolver.resolve(
            name, kind, tcp=True, search=True, lifetime=QUERY_S, raise_on_no_answer=False
        )


async def _all(questions: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, once none is awaited any more; else the first failure."""
    told = await asyncio.gather(*questions, return_exceptions=True)
    for each in told:
        if isinstance(each, BaseException):
            raise each
    return [each for each in told if not isinstance(each, BaseException)]


def _ttl(records: Records) -> float:
    """Of the shortest-lived record on the way, aliases too; inf if nothing is said."""
    return float(records.chaining_result.minimum_ttl) if records.rrset else float("inf")


def _answer(services: list[tuple[Hosts, int]], ttl_s: float) -> Answer:
    named = sum(len(hosts.found) for hosts, _ in services)
    if named > ADDRESSES_MAX:
        raise Unresolved(f"it names {named} addresses; at most {ADDRESSES_MAX} are taken")
    addresses = {_address(host, port) for hosts, port in services for host in hosts.found}
    return Answer(sorted(addresses), ttl_s if addresses else NONE_TTL_S)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: Exception) -> str:
    """One line: dnspython tells of each server and attempt."""
    return " ".join(str(error).split())[:300] or type(error).__name__
