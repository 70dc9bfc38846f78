"""SQLAlchemy: its transactions and the cache, for sync and async engines, with sessions and without.

    import cachee_shm.sqlalchemy
    cachee_shm.sqlalchemy.watch()            # once a process: every engine and session; or watch(engine)

From then on ``cachee_shm.transactions`` rules what is read, loaded and invalidated within a transaction. A
connection in AUTOCOMMIT has no transactions: each statement is committed as it returns.

What does not pass through SQLAlchemy is not seen: a driver's own cursor, or COPY. Call
``may_write(session)`` first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import Pool

from cachee_shm.transactions import Transaction

__all__ = ["may_write", "watch"]

OURS = "cachee_shm.transaction"  # in the `info` of a database connection and of a session


def watch(engine: Engine | AsyncEngine | None = None) -> None:
    """Watch this engine, or all. Once is enough; more calls do nothing.

    A transaction that is under way now is not watched: call it before the first one.
    """
    for target, name, listener in _listeners(engine):
        if not event.contains(target, name, listener):
            event.listen(target, name, listener)


def _listeners(engine: Engine | AsyncEngine | None) -> list[tuple[Any, str, Callable[..., None]]]:
    watched: Any = Engine if engine is None else getattr(engine, "sync_engine", engine)
    return [
        (watched, "begin", _begin),
        (watched, "begin_twophase", _begin_twophase),
        (watched, "before_cursor_execute", _before_cursor_execute),
        (Pool if engine is None else watched.pool, "checkin", _checkin),
        (Session, "after_transaction_create", _session_begins),
        (Session, "after_transaction_end", _session_ends),
    ]


def may_write(where: Session | AsyncSession | Connection | AsyncConnection) -> None:
    """Say that its transaction is about to write by other means than SQLAlchemy's statements."""
    sync: Any = getattr(where, "sync_session", None) or getattr(where, "sync_connection", None) or where
    connection = sync.connection() if isinstance(sync, Session) else sync
    _transaction_of(connection).may_write()


def _is_autocommit(connection: Connection) -> bool:
    return connection._is_autocommit_isolation()


def _begin(connection: Connection) -> None:
    _watch_dialect(connection.dialect)
    if not _is_autocommit(connection):
        _over(connection.info)  # an earlier transaction of this connection that was not ended
        connection.info[OURS] = Transaction()


def _begin_twophase(connection: Connection, xid: object) -> None:
    _begin(connection)


def _transaction_of(connection: Connection) -> Transaction:
    transaction = connection.info.get(OURS)
    if transaction is None:
        transaction = connection.info[OURS] = Transaction()
    return transaction


def _before_cursor_execute(connection: Connection, cursor: object, statement: str, *_: object) -> None:
    if not _is_autocommit(connection):
        _transaction_of(connection).statement(statement)


def _checkin(dbapi_connection: object, record: Any) -> None:
    _over(record.info)


def _over(info: dict[Any, Any]) -> None:
    transaction = info.pop(OURS, None)
    if transaction is not None:
        transaction.rolled_back()


# The events of a commit come before it. A dialect's methods are what commits, for connections of all kinds.


def _watch_dialect(dialect: Dialect) -> None:
    if OURS in vars(dialect):
        return
    setattr(dialect, OURS, True)
    for name, is_commit in (
        ("do_commit", True),
        ("do_rollback", False),
        ("do_commit_twophase", True),
        ("do_rollback_twophase", False),
    ):
        setattr(dialect, name, _ending(getattr(dialect, name), is_commit))


def _ending(method: Callable[..., None], is_commit: bool) -> Callable[..., None]:
    """The method of a dialect, whose first argument is a connection; then the end of its transaction."""

    def ends(connection: Any, *args: Any, **kwargs: Any) -> None:
        transaction = connection.info.pop(OURS, None)
        if transaction is not None and is_commit:
            transaction.committing()
        try:
            method(connection, *args, **kwargs)
        except BaseException as error:
            if transaction is not None:
                transaction.ended_by(error) if is_commit else transaction.rolled_back()
            raise
        if transaction is not None:
            transaction.committed() if is_commit else transaction.rolled_back()

    return ends


# A session has changes that no statement has written yet: what is loaded then may contain them.


def _session_begins(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[OURS] = Transaction(lambda: bool(session.new or session.dirty or session.deleted))


def _session_ends(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        _over(session.info)
