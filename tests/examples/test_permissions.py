"""The story of a revoked permission: two hosts, Flask under gunicorn, real HTTP."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.examples.stories import Site, check_guide, story

pytestmark = [pytest.mark.needs("message queues"), pytest.mark.needs("frameworks")]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("permissions") / "permissions.sqlite3"


@pytest.fixture(scope="module")
def sites(database: Path) -> Iterator[list[Site]]:
    server = ["gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--workers", "2"]
    with story(database.parent, "permissions", server, PERMISSIONS_DATABASE=str(database)) as both:
        yield both


def may(site: Site, user: str, permission: str) -> bool:
    method = "PUT" if permission == "write" else "GET"
    status = site.http.request(method, "/documents/plan", headers={"X-User": user}).status_code
    assert status in (200, 403)
    return status == 200


def changed(site: Site, method: str, path: str) -> None:
    assert site.http.request(method, path).json() == {"everywhere": True, "unreachable": []}


def test_what_is_revoked_on_one_host_is_granted_on_none_when_the_answer_comes(sites: list[Site]) -> None:
    one, other = sites
    for _ in range(10):
        assert all(may(site, user, "write") for site in sites for user in ("ada", "bob"))
        changed(one, "DELETE", "/roles/editor/permissions/write")
        assert not any(may(site, user, "write") for site in sites for user in ("ada", "bob"))
        changed(other, "PUT", "/roles/editor/permissions/write")


def test_a_user_who_leaves_a_role_keeps_what_other_roles_grant(sites: list[Site]) -> None:
    one, other = sites
    assert may(other, "bob", "write") and may(other, "bob", "read")
    changed(one, "DELETE", "/users/bob/roles/editor")
    assert not may(other, "bob", "write") and may(other, "bob", "read")
    assert may(other, "ada", "write")
    changed(one, "PUT", "/users/bob/roles/editor")
    assert may(other, "bob", "write")


def test_one_role_says_nothing_of_the_users_of_another(sites: list[Site], database: Path) -> None:
    """They are still served what was loaded: the database is not asked."""
    one, other = sites
    assert may(other, "eve", "read") and not may(other, "eve", "write")
    with closing(sqlite3.connect(database)) as behind, behind:
        behind.execute("INSERT INTO grants VALUES ('reader', 'write')")
    changed(one, "DELETE", "/roles/editor/permissions/write")
    assert not may(other, "eve", "write")
    changed(one, "PUT", "/roles/reader/permissions/write")
    assert may(other, "eve", "write")


def test_nobody_may_do_anything(sites: list[Site]) -> None:
    assert not any(may(site, user, "read") for site in sites for user in ("", "stranger"))


def test_the_guide() -> None:
    check_guide("permissions")
