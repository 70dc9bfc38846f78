"""The guide of examples/sessions, run as it stands: a forced log-out on one host ends the session on all."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples import guides

EXAMPLE = guides.ROOT / "examples" / "sessions"
GUIDE = (EXAMPLE / "README.md").read_text()

pytestmark = pytest.mark.timeout(900)  # a wheel is built, and an environment installed: minutes when busy
USERS = ("ada", "bob")
MAKE = "DJANGO_SUPERUSER_PASSWORD=lovelace python manage.py createsuperuser --noinput --email a@example.org"


@pytest.fixture(scope="module")
def service(folder: Path, environment: dict[str, str]) -> Iterator[tuple[list[guides.Host], Path]]:
    with guides.followed(EXAMPLE, folder, environment, "/me", 401) as (made, project):
        for name in USERS:
            made[0].run(f"{MAKE} --username {name}", project)
        yield made, project


def test_the_settings_of_the_guide_are_those_of_the_project() -> None:
    (shown,) = guides.blocks(GUIDE, "python")
    settings = (EXAMPLE / "accounts" / "settings.py").read_text()
    whole = {ast.unparse(node) for node in ast.parse(settings).body}
    assert {ast.unparse(node) for node in ast.parse(shown).body} <= whole


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#]+)\)", GUIDE))
def test_what_the_guide_links_to_is_there(path: str) -> None:
    assert (EXAMPLE / path).resolve().exists()


def test_what_the_guide_shows_happens(service: tuple[list[guides.Host], Path]) -> None:
    (first, _), project = service
    guides.shows(first, GUIDE, project)


def test_a_log_out_of_one_user_leaves_the_others_logged_in(
    service: tuple[list[guides.Host], Path],
) -> None:
    (first, second), project = service
    for name in USERS:
        first.run(
            f"curl -sf -c {name} -d 'name={name}&password=lovelace' http://localhost:8000/login", project
        )
        second.run(f"curl -sf -b {name} http://localhost:8000/me", project)
    first.run("python manage.py log_out ada", project)
    second.until("curl -s -b ada http://localhost:8000/me", '{"host": "web-2", "user": null}', project)
    assert "bob" in second.run("curl -sf -b bob http://localhost:8000/me", project)


def test_the_checks_of_the_project_find_nothing_until_sessions_are_in_the_cache_alone(
    service: tuple[list[guides.Host], Path],
) -> None:
    (first, _), project = service
    assert "no issues" in first.run("python manage.py check", project)
    settings = "from accounts.settings import *; SESSION_ENGINE = 'django.contrib.sessions.backends.cache'"
    (project / "wrong.py").write_text(settings)
    said = first.run("python manage.py check --settings wrong 2>&1 || true", project)
    assert "cachee_shm.E002" in said and "cached_db" in said
