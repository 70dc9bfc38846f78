"""The origin of the examples: users in a SQLite file."""

import os
import sqlite3
from contextlib import closing

DATABASE = os.environ.get("MIGRATING_DATABASE", "migrating.sqlite3")


def load_user(uid: int) -> dict:
    with closing(sqlite3.connect(DATABASE)) as database:
        name, version = database.execute("SELECT name, version FROM users WHERE id = ?", [uid]).fetchone()
    return {"id": uid, "name": name, "version": version}


def save_user(uid: int, name: str) -> None:
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("UPDATE users SET name = ?, version = version + 1 WHERE id = ?", [name, uid])


def newest_version() -> int:
    with closing(sqlite3.connect(DATABASE)) as database:
        return database.execute("SELECT max(version) FROM users").fetchone()[0]


def create() -> None:
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, version INTEGER)")
        database.executemany("INSERT INTO users VALUES (?, ?, 1)", [(7, "Ada"), (8, "Bob")])


if __name__ == "__main__":
    create()
