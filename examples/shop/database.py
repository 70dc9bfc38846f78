"""The shop's origin: products, prices and users in one SQLite file.

Every function returns the whole row as a dict, or None where there is no such row. A row's `version` grows by
one with each write of it, in the same transaction; `history` remembers when. The shop itself needs neither:
with them `cachee demo` proves that no reader was ever shown an old row.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Row = dict[str, Any]

PATH = os.environ.get("SHOP_DATABASE", "shop.sqlite3")
CATEGORY_PRODUCTS = 20  # so many products are in category 1, the next in category 2

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS products
  (id INTEGER PRIMARY KEY, title TEXT, category INTEGER, stock INTEGER, version INTEGER);
CREATE INDEX IF NOT EXISTS categories ON products (category);
CREATE TABLE IF NOT EXISTS prices   (id INTEGER PRIMARY KEY, cents INTEGER, version INTEGER);
CREATE TABLE IF NOT EXISTS users    (id INTEGER PRIMARY KEY, name TEXT, visits INTEGER, version INTEGER);
CREATE TABLE IF NOT EXISTS history  (key TEXT, version INTEGER, at_ns INTEGER, PRIMARY KEY (key, version));
"""


def create(path: str = PATH, *, products: int = 100, users: int = 50) -> None:
    """Makes the tables and fills them, each row at version 1; what is already there stays."""
    db = sqlite3.connect(path)
    db.executescript(SCHEMA)
    with db:
        for id in range(1, products + 1):
            row = (id, f"Product {id}", 1 + (id - 1) // CATEGORY_PRODUCTS)
            db.execute("INSERT OR IGNORE INTO products VALUES (?, ?, ?, 1000, 1)", row)
            db.execute("INSERT OR IGNORE INTO prices VALUES (?, ?, 1)", (id, 100 * id))
        for id in range(1, users + 1):
            db.execute("INSERT OR IGNORE INTO users VALUES (?, ?, 0, 1)", (id, f"User {id}"))
    db.close()


def product(id: int) -> Row | None:
    return _row("SELECT * FROM products WHERE id = ?", id)


def price(id: int) -> Row | None:
    return _row("SELECT * FROM prices WHERE id = ?", id)


def user(id: int) -> Row | None:
    return _row("SELECT * FROM users WHERE id = ?", id)


def category(number: int) -> list[int]:
    """The products of a category, by their ids."""
    rows = _connection().execute("SELECT id FROM products WHERE category = ? ORDER BY id", (number,))
    return [id for (id,) in rows]


def products(ids: Iterable[int]) -> dict[int, Row]:
    return _rows("SELECT * FROM products WHERE id IN ({})", ids)


def prices(ids: Iterable[int]) -> dict[int, Row]:
    return _rows("SELECT * FROM prices WHERE id IN ({})", ids)


def set_price(id: int, cents: int) -> Row | None:
    return _write(f"price:{id}", "UPDATE prices SET cents = ?, version = version + 1 WHERE id = ?", cents, id)


def order(id: int, quantity: int) -> Row | None:
    return _write(
        f"product:{id}",
        "UPDATE products SET stock = stock - ?, version = version + 1 WHERE id = ?",
        quantity,
        id,
    )


def visit(id: int) -> Row | None:
    return _write(
        f"user:{id}", "UPDATE users SET visits = visits + 1, version = version + 1 WHERE id = ?", id
    )


def discount(category: int, percent: int) -> list[int]:
    """Lowers every price of a category, in one transaction; the ids of those that are lower now."""
    lower = (
        "UPDATE prices SET cents = cents * (100 - ?) / 100, version = version + 1 "
        "WHERE id IN (SELECT id FROM products WHERE category = ?) RETURNING id, version"
    )
    with _transaction() as db:
        changed = db.execute(lower, (percent, category)).fetchall()
        for id, version in changed:
            _remember(db, f"price:{id}", version)
    return [id for id, _ in changed]


_thread = threading.local()


def _connection() -> sqlite3.Connection:
    """This thread's connection, made on first use: after the fork of a preloaded application."""
    if not hasattr(_thread, "db"):
        # isolation_level None: transactions are begun and committed in _transaction, nowhere else.
        _thread.db = sqlite3.connect(PATH, isolation_level=None, timeout=30)
        _thread.db.row_factory = sqlite3.Row
        _thread.db.execute("PRAGMA synchronous = NORMAL")
    db: sqlite3.Connection = _thread.db
    return db


@contextmanager
def _transaction() -> Iterator[sqlite3.Connection]:
    """Committed when the block ends, rolled back when it raises; writers wait for each other at its start."""
    db = _connection()
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _row(query: str, id: int) -> Row | None:
    row = _connection().execute(query, (id,)).fetchone()
    return dict(row) if row else None


def _rows(query: str, ids: Iterable[int]) -> dict[int, Row]:
    asked = list(ids)
    rows = _connection().execute(query.format(", ".join("?" * len(asked))), asked)
    return {row["id"]: dict(row) for row in rows}


def _write(key: str, update: str, *values: int) -> Row | None:
    with _transaction() as db:
        row = db.execute(update + " RETURNING *", values).fetchone()
        if row:
            _remember(db, key, row["version"])
    return dict(row) if row else None


def _remember(db: sqlite3.Connection, key: str, version: int) -> None:
    db.execute("INSERT INTO history VALUES (?, ?, ?)", (key, version, time.monotonic_ns()))
