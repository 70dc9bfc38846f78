"""Customers of the shop: real HTTP at both hosts, every answer written down.

Each customer sends a request, to either host as a load balancer without stickiness would, thinks for a
moment, and sends the next (a closed loop). Most are reads; popular rows are read and written most, on both
hosts at once. A row that is being changed is read by rivals meanwhile, and afterwards by whoever has changed
it, on whichever host: there a careless shop keeps an old row, and there a stale cache shows.
"""

import argparse
import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import httpx

from cachee_shm.cli.demo.helper import REPORT_EVERY_S, asked_to_end, pairs, report
from cachee_shm.cli.demo.journal import UNANSWERED, Journal, Read, Write

PRODUCTS = 100
USERS = 50
WRITE_SHARE = 0.06
RIVALS = 2  # readers of a row while it is being changed
THINK_S = 0.025  # keeps two cores at about two thirds: a bridge that waits for a core measures the machine
TIMEOUT_S = 10.0
NICE = 10  # customers are not on the shop's machines, and must not take the cores that those would have
BODY = {"product": "stock", "price": "cents", "user": "visits"}  # the column that writes change


class Customer:
    """One closed loop. Its choices follow from its seed, their timing from the machine."""

    def __init__(self, client: httpx.AsyncClient, hosts: dict[str, str], journal: Journal, seed: int) -> None:
        self._client = client
        self._hosts = list(hosts.items())
        self._journal = journal
        self._random = random.Random(seed)
        self.requests = 0
        self.failed = 0

    async def shop(self, until: float) -> None:
        while time.monotonic() < until:
            if self._random.random() < WRITE_SHARE:
                await self.change_and_look()
            else:
                await self.look()
            await asyncio.sleep(self._random.expovariate(1 / THINK_S))

    async def look(self) -> None:
        kind = self._random.choice(("page", "page", "product", "price", "user"))
        await self.read(kind, self.popular(USERS if kind == "user" else PRODUCTS))

    async def change_and_look(self) -> None:
        kind = self._random.choice(("product", "price", "user"))
        id = self.popular(USERS if kind == "user" else PRODUCTS)
        await asyncio.gather(self.write(kind, id), *(self.read(kind, id) for _ in range(RIVALS)))
        await self.read(kind, id)

    def popular(self, count: int) -> int:
        """A row's number; the lower, the likelier: row 1 of 100 has a fifth of all requests."""
        return 1 + int(count * self._random.random() ** 3)

    async def read(self, kind: str, id: int) -> None:
        host, url = self._random.choice(self._hosts)
        start_ns = time.monotonic_ns()
        answer = await self.send("GET", f"{url}/{kind}s/{id}")
        end_ns = time.monotonic_ns()
        if answer is None:
            return
        rows = answer if kind == "page" else {kind: answer}
        for of, row in rows.items():
            self._journal.add(Read(host, f"{of}:{id}", row["version"], row[BODY[of]], start_ns, end_ns))

    async def write(self, kind: str, id: int) -> None:
        host, url = self._random.choice(self._hosts)
        start_ns = time.monotonic_ns()
        if kind == "price":
            row = await self.send("PUT", f"{url}/prices/{id}", {"cents": self._random.randrange(1, 100_000)})
        elif kind == "user":
            row = await self.send("POST", f"{url}/users/{id}/visits")
        else:
            row = await self.send(
                "POST", f"{url}/products/{id}/orders", {"quantity": self._random.randrange(1, 9)}
            )
        end_ns = time.monotonic_ns()
        version, body = (row["version"], row[BODY[kind]]) if row else (UNANSWERED, 0)
        self._journal.add(Write(host, f"{kind}:{id}", version, body, start_ns, end_ns))

    async def send(self, method: str, url: str, json: object = None) -> dict[str, Any] | None:
        """The answer's JSON; None where there was none, which is counted."""
        self.requests += 1
        try:
            response = await self._client.request(method, url, json=json)
            response.raise_for_status()
        except httpx.HTTPError as error:
            self.failed += 1
            report(failed=f"{method} {url}: {error!r}")
            return None
        answer: dict[str, Any] = response.json()
        return answer


async def shop(arguments: argparse.Namespace) -> None:
    until = time.monotonic() + arguments.seconds
    limits = httpx.Limits(
        max_connections=2 * arguments.customers, max_keepalive_connections=2 * arguments.customers
    )
    with Journal(arguments.journal) as journal:
        async with httpx.AsyncClient(
            limits=limits, timeout=TIMEOUT_S, trust_env=False, verify=False
        ) as client:
            hosts = pairs(arguments.hosts)
            customers = [
                Customer(client, hosts, journal, arguments.seed * 1000 + n)
                for n in range(arguments.customers)
            ]
            loops = asyncio.gather(*(customer.shop(until) for customer in customers))
            while not loops.done() and not asked_to_end():
                await asyncio.wait([loops], timeout=REPORT_EVERY_S)
                tell(customers)
            loops.cancel() if not loops.done() else loops.result()
    report(done=True)


def tell(customers: list[Customer]) -> None:
    report(requests=sum(one.requests for one in customers), failures=sum(one.failed for one in customers))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--customers", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("hosts", nargs="+", metavar="NAME=URL")
    os.nice(NICE)
    asyncio.run(shop(parser.parse_args()))


if __name__ == "__main__":
    main()
