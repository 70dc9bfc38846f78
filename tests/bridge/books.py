"""An address book, and what tests ask of it."""

import random

from cachee_bridge.membership.addresses import FAILURES_MAX, AddressBook


def new_book() -> AddressBook:
    return AddressBook("web-1", first_s=0.1, max_s=5.0, rng=random.Random(1))


def nobody(name: str) -> bool:
    return False


def everybody(name: str) -> bool:
    return True


def due(book: AddressBook, now: float, up=nobody, missed=nobody) -> list[str]:
    return book.due(now, up, missed)


def fail_often(book: AddressBook, address: str, missed=nobody) -> None:
    for _ in range(FAILURES_MAX + 1):
        due(book, 1e9, missed=missed)
        book.failed(address, 0.0)
    due(book, 1e9, missed=missed)


def named(book: AddressBook, *addresses: str, now: float = 0.0) -> list[str]:
    return book.discovered(addresses, now)


def up(*names: str):
    return lambda name: name in names
