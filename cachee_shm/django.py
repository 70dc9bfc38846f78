"""Django: its transactions and the cache.

    INSTALLED_APPS = [..., "cachee_shm.django.Transactions"]

From then on ``cachee_shm.transactions`` rules what is read, loaded and invalidated within
``transaction.atomic``, for each database; so it does with ATOMIC_REQUESTS, durable blocks, savepoints, and
without autocommit. Functions of ``transaction.on_commit`` run after what was invalidated has been
announced. In autocommit there is no transaction: each statement is committed as it returns.

A ``TestCase`` wraps each test in a transaction that is never committed. After its first write, the cache is
bypassed. Test what is cached in a ``TransactionTestCase``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.backends.signals import connection_created

from cachee_shm.transactions import Transaction

__all__ = ["Transactions", "may_write", "watch"]

OURS = "cachee_shm_transaction"  # an attribute of django's connections


class Transactions(AppConfig):  # type: ignore[misc]  # django has no types
    """The application that watches transactions."""

    name = "cachee_shm.django"
    label = "cachee_shm"
    verbose_name = "Cachee"

    def ready(self) -> None:
        watch()


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


def _transaction_of(connection: Any) -> Transaction | None:
    """None where each statement is committed by itself."""
    if connection.autocommit:
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
    """Django's wrappers of statements do not see a stored procedure. What it does, nobody knows."""

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


def _setting_autocommit(connection: Any, method: Callable[..., None]) -> Callable[..., None]:
    """Turning autocommit on ends what was begun without it."""

    @wraps(method)
    def sets(*args: Any, **kwargs: Any) -> None:
        method(*args, **kwargs)
        transaction = _taken(connection) if connection.autocommit else None
        if transaction is not None:
            transaction.committed()

    return sets
