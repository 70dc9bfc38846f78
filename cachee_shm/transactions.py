"""Database transactions: what the cache does while one is open.

From its first statement that may write, a transaction reads nothing from the cache and stores nothing in
it, whatever the key. A row that it wrote, or a value that was made of one, must not be seen by others
before the commit. Keys that are set, deleted or invalidated meanwhile are announced when the transaction
ends; a set becomes a delete. A transaction that is rolled back announces them too: that costs loads, but some
changes outlive a rollback (DDL of MariaDB, tables without transactions, a COMMIT in SQL).

Before that statement, a transaction reads the cache as usual. What it loads is stored with the ring's
position from before its snapshot, because under REPEATABLE READ a row may be as old as the snapshot, however
late it is read.

**Unknown outcome.** A commit was sent, and its answer never came: a time-out, a lost connection, a death.
Then the transaction's keys are announced twice, at once and ``unknown_ttl`` later (30 s, an option of the
namespace); a value that any host loads in between lives until then at most. A commit that takes effect even
later is not announced: its rows may be stale for the rest of their lifetime. So configure the database to
give up sooner (PostgreSQL: ``tcp_user_timeout``, ``idle_in_transaction_session_timeout``; MariaDB:
``wait_timeout``).

Use ``cachee_shm.sqlalchemy`` or ``cachee_shm.django``, which call what is here. For another driver:

    with transactions.transaction() as transaction:    # before BEGIN
        transaction.statement("UPDATE ...")            # before each statement
        ...                                            # COMMIT

Transactions are found by a context variable. So a transaction is known to the thread or task that ran its
statements, and to tasks that are started there later. A load knows the statements of its loader, in any
thread.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cachee_shm import _core
from cachee_shm.errors import CacheeError
from cachee_shm.gathering import running_loads
from cachee_shm.segment import warn
from cachee_shm.statements import is_read

if TYPE_CHECKING:
    from cachee_shm.segment import Segment

__all__ = ["Transaction", "snapshot", "transaction"]

if TYPE_CHECKING:
    Kept = tuple[Segment, int, bytes]  # kind and name
KEY, TAG, ALL = 0, 1, 2  # kinds of what is kept, as in core/module_transactions.h
DUES_MAX = 16  # of one transaction; a segment has room for 256, for all commits that are under way
KEPT_MAX = 100_000  # of one transaction; beyond that, everything is invalidated at its end


class Transaction(_core.Transaction):
    """One transaction of a database. Make it before the database begins its own.

    Call its methods for each statement and for the end. If it is dropped without an end, its outcome is
    unknown.
    """

    __slots__ = ("__weakref__", "_dues", "_kept", "pending", "tokens")

    def __init__(self, pending: Callable[[], bool] | None = None) -> None:
        """``pending`` returns whether there are changes that no statement has written yet, as in a
        session."""
        self.tokens: dict[Segment, int] = _core.transaction_tokens()
        self.pending = pending
        self._kept: dict[Kept, int] = {}
        self._dues: dict[Kept, int] = {}
        self.join()

    def join(self) -> None:
        """Declare that this context belongs to the transaction. ``statement`` does so too."""
        there = here.get(())
        if self not in (each() for each in there):
            here.set((*(each for each in there if _is_open(each())), weakref.ref(self)))
        for running in running_loads():
            running.saw(None if self.is_writing else self.tokens)

    def statement(self, sql: str | bytes) -> None:
        """Call this before a statement runs."""
        if self.is_open and not self.is_writing and not is_read(sql):
            self._write()
        self.join()

    def may_write(self) -> None:
        """Call this before something other than a statement writes: COPY, a driver's own methods."""
        self._write()
        self.join()

    def committing(self) -> None:
        """Call this before its commit is sent. Its keys are then announced even if this process dies.

        Beyond `DUES_MAX` keys, everything is announced instead, because the table of dues is small.
        """
        if self._wrote():
            kept = list(self._kept)
            for due in kept if len(kept) <= DUES_MAX else {(segment, ALL, b"") for segment, *_ in kept}:
                segment, kind, name = due
                with suppress(CacheeError):
                    self._dues[due] = segment._owe(kind, name)

    def committed(self) -> None:
        """Its commit was confirmed: announce its keys."""
        self._over(_announce)

    def rolled_back(self) -> None:
        """It was rolled back: announce its keys as after a commit."""
        self._over(_announce)

    def ended_by(self, error: BaseException) -> None:
        """Its commit raised this. Unless the database refused it, its outcome is unknown."""
        self._over(_announce if is_refusal(error) else _announce_twice)

    def unknown(self) -> None:
        """Its commit was sent, and it is unknown whether it will take effect."""
        self._over(_announce_twice)

    def _wrote(self) -> bool:
        return self.is_writing or self.pending is not None

    def _over(self, announce: Callable[[Segment, int, bytes], None]) -> None:
        wrote = self._wrote()
        if not self._end():
            return
        kept, self._kept, self.tokens, self.pending = self._kept, {}, {}, None
        for each, intent in kept.items():
            if wrote:
                contextvars.Context().run(_try, announce, *each)
            _settle(*each, intent)
        dues, self._dues = self._dues, {}
        for (segment, kind, name), due in dues.items():
            with suppress(CacheeError):
                segment._owe_no_more(kind, name, due)

    def _keep(self, segment: Segment, kind: int, name: bytes) -> None:
        kept = (segment, kind, name) if len(self._kept) < KEPT_MAX else (segment, ALL, b"")
        if kept not in self._kept:
            self._kept[kept] = segment._intend(name) if kept[1] == KEY else 0

    def __del__(self) -> None:
        self.unknown()


def _announce(segment: Segment, kind: int, name: bytes) -> None:
    if kind == KEY:
        segment.delete(name)
    elif kind == TAG:
        segment.delete_tags(name)  # type: ignore[arg-type]  # as the core has it
    else:
        segment.clear()


def _announce_twice(segment: Segment, kind: int, name: bytes) -> None:
    segment._delete_unknown(kind, name)


def _try(announce: Callable[[Segment, int, bytes], None], segment: Segment, kind: int, name: bytes) -> None:
    """Announce outside of all transactions."""
    try:
        announce(segment, kind, name)
    except CacheeError as error:
        warn(
            "namespace %s: keys that a transaction has invalidated could not be announced. Others may "
            "serve them until their lifetimes end. Close a cache after its transactions: %s",
            segment.namespace,
            error,
        )


def _settle(segment: Segment, kind: int, name: bytes, intent: int) -> None:
    with suppress(CacheeError):  # it is closed: _try has said so
        if kind == KEY:
            segment._settle(intent)


UNKNOWN_STATES = ("08", "40003", "57", "58", "XX")
"""Beginnings of SQLSTATEs that do not say whether the commit has happened."""
REFUSALS = range(1000, 2000)  # error numbers of MariaDB's server; higher ones are its clients'
SHUTDOWNS = (
    1053,
    1077,
    1152,
    1158,
    1159,
    1160,
    1161,
    1184,
    1317,
)  # except these: the server was shutting down, or the commit was interrupted


def is_refusal(error: BaseException) -> bool:
    """Whether an error is the database's own answer to a commit: it has not happened."""
    for each in (error, error.__cause__):
        state = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
        if isinstance(state, str):
            return not state.startswith(UNKNOWN_STATES)
        number = each.args[0] if each is not None and each.args else None
        if isinstance(number, int) and number in REFUSALS:
            return number not in SHUTDOWNS
    return False


here = _core.transactions


def _is_open(transaction: Transaction | None) -> bool:
    return transaction is not None and transaction.is_open


def _open() -> list[Transaction]:
    found = (each() for each in here.get(()))
    return [each for each in found if each is not None and each.is_open]


def _hides() -> bool:
    """Whether a read in this context must miss."""
    return any(each.is_writing for each in _open())


def _keeps(segment: Segment, kind: int, name: bytes) -> bool:
    """Whether an invalidation waits for a transaction's end. A transaction that has not written yet repeats
    it at its end."""
    transactions = _open()
    waits = any(each.is_writing for each in transactions)
    for each in transactions:
        if not waits or each.pending is None:  # a session's connection has one of its own by then
            each._keep(segment, kind, name)
    return waits


def snapshot(segment: Segment) -> int | bool | None:
    """The token for a load in this context; None: the current position; False: the value must not be
    stored."""
    oldest: int | None = None
    for each in _open():
        token = each.tokens.get(segment)
        if token is None or each.is_writing or (each.pending is not None and each.pending()):
            return False
        if oldest is None or token < oldest:
            oldest = token
    return oldest


_core.transaction_hooks(_hides, _keeps, snapshot)


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
