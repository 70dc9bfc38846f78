"""Django's transactions and the cache: what ``cachee_shm.transactions`` has to be told.

Functions of ``transaction.on_commit`` run after what was invalidated has been announced. In autocommit
there is no transaction: each statement is committed as it returns.

A ``TestCase`` wraps each test in a transaction that is never committed. Django marks it, and does not count
it where it asks whether a block is the outermost one; nor is it a transaction here. Within it, the
outermost block of the code under test is one, which ends with its savepoint.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

from cachee_shm.transactions import Transaction

__all__ = ["OURS", "may_write", "watch"]

OURS = "cachee_shm_transaction"  # an attribute of django's connections


def watch() -> None:
    """Watch every database of this project. Once is enough; more calls do nothing."""
    connection_created.connect(_connected, dispatch_uid=OURS)
    for connection in connections.all(initialized_only=True):
        _watch(connection)


def may_write(using: str = "default") -> None:
    """Say that the transaction of a database is about to write by other means than django's statements.

    That is by COPY, or by a driver's own methods (``cursor.copy``, ``connection.connection``).
    """
    connection = connections[using]
    _watch(connection)
    transaction = _transaction_of(connection)
    if transaction is not None:
        transaction.may_write()


def _connected(connection: Any, **_: object) -> None:
    _watch(connection)


def _watch(connection: Any) -> None:
    if OURS in vars(connection):
        return
    setattr(connection, OURS, None)
    connection.execute_wrappers.append(_statement)
    for name in ("make_cursor", "make_debug_cursor"):
        setattr(connection, name, _making_cursors(connection, getattr(connection, name)))
    # The methods without _ may refuse, within a block, to do what they are called for.
    connection._commit = _ending(connection, connection._commit, True)
    connection._rollback = _ending(connection, connection._rollback, False)
    connection._close = _ending(connection, connection._close, False)
    connection.set_autocommit = _setting_autocommit(connection, connection.set_autocommit)
    connection.savepoint_commit = _leaving(connection, connection.savepoint_commit, True)
    connection.savepoint_rollback = _leaving(connection, connection.savepoint_rollback, False)
    begun = _transaction_of(connection) if connection.connection is not None else None
    if begun is not None:
        begun.may_write()  # nobody has seen its statements so far


def _is_of_a_test(connection: Any) -> bool:
    """Whether all open blocks are those that a ``TestCase`` is wrapped in."""
    blocks = connection.atomic_blocks
    return bool(blocks) and all(block._from_testcase for block in blocks)


def _transaction_of(connection: Any) -> Transaction | None:
    """None where each statement is committed by itself."""
    if connection.autocommit:
        return None
    if _is_of_a_test(connection):
        left = _taken(connection)  # of a block without a savepoint
        if left is not None:
            left.committed()
        return None
    transaction = getattr(connection, OURS)
    if transaction is None:
        transaction = Transaction()
        setattr(connection, OURS, transaction)
    return transaction  # type: ignore[no-any-return]


def _statement(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    transaction = _transaction_of(context["connection"])
    if transaction is not None:
        transaction.statement(sql if isinstance(sql, (str, bytes)) else "")  # a composed statement may write
    return execute(sql, params, many, context)


def _making_cursors(connection: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """Django's wrappers of statements do not see a stored procedure, which may write."""

    @wraps(method)
    def makes(cursor: Any) -> Any:
        made = method(cursor)
        callproc = made.callproc

        def calls(*args: Any, **kwargs: Any) -> Any:
            transaction = _transaction_of(connection)
            if transaction is not None:
                transaction.may_write()
            return callproc(*args, **kwargs)

        made.callproc = calls
        return made

    return makes


def _taken(connection: Any) -> Transaction | None:
    transaction = getattr(connection, OURS)
    setattr(connection, OURS, None)
    return transaction  # type: ignore[no-any-return]


def _ending(connection: Any, method: Callable[..., None], is_commit: bool) -> Callable[..., None]:
    """A method of the connection; then the end of its transaction."""

    @wraps(method)
    def ends() -> None:
        begun = getattr(connection, OURS)
        if begun is not None and is_commit:
            begun.committing()
        try:
            method()
        except BaseException as error:
            transaction = _taken(connection)
            if transaction is not None:
                transaction.ended_by(error) if is_commit else transaction.rolled_back()
            raise
        transaction = _taken(connection)
        if transaction is not None:
            transaction.committed() if is_commit else transaction.rolled_back()

    return ends


def _leaving(connection: Any, method: Callable[[str], None], is_commit: bool) -> Callable[[str], None]:
    """The end of a savepoint; then that of the transaction, if it was a test's outermost block."""

    @wraps(method)
    def leaves(sid: str) -> None:
        method(sid)
        transaction = _taken(connection) if _is_of_a_test(connection) else None
        if transaction is not None:
            transaction.committed() if is_commit else transaction.rolled_back()

    return leaves


def _setting_autocommit(connection: Any, method: Callable[..., None]) -> Callable[..., None]:
    """Turning autocommit on ends what was begun without it."""

    @wraps(method)
    def sets(*args: Any, **kwargs: Any) -> None:
        method(*args, **kwargs)
        transaction = _taken(connection) if connection.autocommit else None
        if transaction is not None:
            transaction.committed()

    return sets
