"""Permissions that are revoked everywhere before the answer: Flask and SQLite, with Cachee between.

A user's permissions are made of the roles that the user has. So they carry a tag for each role, and one
`delete_tags` revokes for all users of a role on all hosts.
"""

import os
import sqlite3
from contextlib import closing

from flask import Flask, abort, jsonify, request

import cachee_shm

DATABASE = os.environ.get("PERMISSIONS_DATABASE", "permissions.sqlite3")
ARRIVED_S = 2.0  # how long a revocation waits for the other hosts

app = Flask(__name__)
cache = cachee_shm.attach("shop")

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS members (user TEXT, role TEXT, PRIMARY KEY (user, role));
CREATE TABLE IF NOT EXISTS grants (role TEXT, permission TEXT, PRIMARY KEY (role, permission));
INSERT OR IGNORE INTO members VALUES
  ('ada', 'editor'), ('bob', 'editor'), ('bob', 'reader'), ('eve', 'reader');
INSERT OR IGNORE INTO grants VALUES ('editor', 'write'), ('editor', 'read'), ('reader', 'read');
"""

GRANTED = "SELECT DISTINCT permission FROM grants JOIN members USING (role) WHERE user = ? ORDER BY 1"


def permissions_of(user: str) -> list[str]:
    return cache.get_or_load(f"permissions:{user}", load_permissions, user, ttl=3600)


def load_permissions(user: str) -> list[str]:
    with closing(sqlite3.connect(DATABASE)) as database:
        roles = [role for (role,) in database.execute("SELECT role FROM members WHERE user = ?", [user])]
        load = cachee_shm.current_load()
        load.tags = [f"user:{user}", *(f"role:{role}" for role in roles)]
        rows = database.execute(GRANTED, [user])
        return [permission for (permission,) in rows]


@app.get("/documents/<name>")
def read(name: str):
    require("read")
    return jsonify(document=name)


@app.put("/documents/<name>")
def write(name: str):
    require("write")
    return jsonify(document=name, written=True)


def require(permission: str) -> None:
    if permission not in permissions_of(request.headers.get("X-User", "")):
        abort(403)


@app.delete("/roles/<role>/permissions/<permission>")
def revoke(role: str, permission: str):
    run("DELETE FROM grants WHERE role = ? AND permission = ?", role, permission)
    return revoked(f"role:{role}")


@app.put("/roles/<role>/permissions/<permission>")
def grant(role: str, permission: str):
    run("INSERT OR IGNORE INTO grants VALUES (?, ?)", role, permission)
    return revoked(f"role:{role}")


@app.delete("/users/<user>/roles/<role>")
def leave(user: str, role: str):
    run("DELETE FROM members WHERE user = ? AND role = ?", user, role)
    return revoked(f"user:{user}")


@app.put("/users/<user>/roles/<role>")
def join(user: str, role: str):
    run("INSERT OR IGNORE INTO members VALUES (?, ?)", user, role)
    return revoked(f"user:{user}")


def run(statement: str, *values: str) -> None:
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute(statement, values)


def revoked(tag: str):
    """After the commit. `everywhere`: every host that can be reached has dropped what it had."""
    cache.delete_tags(tag)
    return jsonify(everywhere=cache.wait_synced(ARRIVED_S), unreachable=cache.health().unreachable)


def create() -> None:
    with closing(sqlite3.connect(DATABASE)) as database:
        database.executescript(SCHEMA)


if __name__ == "__main__":
    create()
