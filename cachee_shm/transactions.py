"""Database transactions: within one, the cache is not the truth.

From its first statement that may write, a transaction reads nothing from the cache and stores nothing in
it, whatever the key. A row that it wrote, or a value that was made of one, must not be seen by others
before the commit. What is set, deleted or invalidated meanwhile is announced when the transaction ends;
what is set is deleted. A transaction that is rolled back announces too: that costs loads, but some changes
outlive a rollback (DDL of MariaDB, tables without transactions, a COMMIT in SQL).

Before that statement, a transaction reads as everybody does. What it loads is stored with the ring's
position from before its snapshot: under REPEATABLE READ a row may be as old as the snapshot, however late
it is asked for.

Use ``cachee_shm.sqlalchemy`` or ``cachee_shm.django``, which call what is here. For another driver:

    with transactions.transaction() as transaction:    # before BEGIN
        transaction.statement("UPDATE ...")            # before each statement
        ...                                            # COMMIT

Transactions are found by a context variable. So a transaction is known to the thread or task that ran its
statements, and to the tasks that are begun there later. A load knows the statements of its loader, in
whatever thread they run.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cachee_shm import _core
from cachee_shm.errors import CacheeError
from cachee_shm.segment import warn
from cachee_shm.statements import is_read

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Transaction", "transaction"]

KEY, TAG, ALL = 0, 1, 2  # kinds of what is kept, as in core/module_transactions.h
KEPT_MAX = 100_000  # of one transaction; beyond, everything is invalidated at its end


class Transaction(_core.Transaction):
    """One transaction of a database. Make it before the database begins its own.

    It has to be told of its statements and its end. One that is dropped without its end has ended unknown.
    """

    __slots__ = ("__weakref__", "_kept", "pending", "tokens")

    def __init__(self, pending: Callable[[], bool] | None = None) -> None:
        """``pending`` says whether there are changes that no statement has written yet, as in a session."""
        self.tokens: dict[Segment, int] = _core.transaction_tokens()
        self.pending = pending
        self._kept: dict[tuple[Segment, int, bytes], int] = {}
        self.join()

    def join(self) -> None:
        """Say that what runs here belongs to this transaction. ``statement`` does so too."""
        there = here.get(())
        if self not in (each() for each in there):
            here.set((*(each for each in there if _is_open(each())), weakref.ref(self)))
        running = _core.flight.get(None)
        if running is not None:
            running.saw(None if self.is_writing else self.tokens)

    def statement(self, sql: str | bytes) -> None:
        """Say that this statement is about to run."""
        if self.is_open and not self.is_writing and not is_read(sql):
            self._write()
        self.join()

    def may_write(self) -> None:
        """Say that something else than a statement is about to write: COPY, a driver's own methods."""
        self._write()
        self.join()

    def committed(self) -> None:
        """Its commit was confirmed: what was invalidated meanwhile is announced."""
        self._over()

    def rolled_back(self) -> None:
        """It was rolled back. What was invalidated is announced all the same."""
        self._over()

    def ended_by(self, error: BaseException | None) -> None:
        """Its commit raised this, or returned."""
        self._over()

    def _over(self) -> None:
        wrote = self.is_writing or self.pending is not None
        if not self._end():
            return
        kept, self._kept, self.tokens, self.pending = self._kept, {}, {}, None
        for (segment, kind, name), intent in kept.items():
            if wrote:
                contextvars.Context().run(_announce, segment, kind, name)
            if kind == KEY:
                _settle(segment, intent)

    def _keep(self, segment: Segment, kind: int, name: bytes) -> None:
        kept = (segment, kind, name) if len(self._kept) < KEPT_MAX else (segment, ALL, b"")
        if kept not in self._kept:
            self._kept[kept] = segment._intend(name) if kept[1] == KEY else 0

    def __del__(self) -> None:
        self._over()


def _announce(segment: Segment, kind: int, name: bytes) -> None:
    """Outside of all transactions."""
    try:
        if kind == KEY:
            segment.delete(name)
        elif kind == TAG:
            segment.delete_tags(name)  # type: ignore[arg-type]  # as the core has it
        else:
            segment.clear()
    except CacheeError as error:
        warn(
            "namespace %s: what a transaction has invalidated could not be announced. Others may serve it "
            "until its lifetime ends. Close a cache after its transactions: %s",
            segment.namespace,
            error,
        )


def _settle(segment: Segment, intent: int) -> None:
    with suppress(CacheeError):  # it is closed: _announce has said so
        segment._settle(intent)


here = _core.transactions


def _is_open(transaction: Transaction | None) -> bool:
    return transaction is not None and transaction.is_open


def _open() -> list[Transaction]:
    found = (each() for each in here.get(()))
    return [each for each in found if each is not None and each.is_open]


def _hides() -> bool:
    """Whether a read of here has to miss."""
    return any(each.is_writing for each in _open())


def _keeps(segment: Segment, kind: int, name: bytes) -> bool:
    """Whether an invalidation waits for a transaction's end. One that has not written yet repeats it then."""
    transactions = _open()
    for each in transactions:
        each._keep(segment, kind, name)
    return any(each.is_writing for each in transactions)


def _snapshot(segment: Segment) -> int | bool | None:
    """The token of a load that runs here; None: the one of now; False: it must not be stored."""
    oldest: int | None = None
    for each in _open():
        token = each.tokens.get(segment)
        if token is None or each.is_writing or (each.pending is not None and each.pending()):
            return False
        if oldest is None or token < oldest:
            oldest = token
    return oldest


_core.transaction_hooks(_hides, _keeps, _snapshot)


@contextmanager
def transaction() -> Iterator[Transaction]:
    """A transaction that is committed at the end of the block, and rolled back where it raises."""
    one = Transaction()
    try:
        yield one
    except BaseException:
        one.rolled_back()
        raise
    one.committed()
