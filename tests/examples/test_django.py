"""The guide of examples/django, run as it stands: from pip install to two hosts that agree."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples import guides

EXAMPLE = guides.ROOT / "examples" / "django"
GUIDE = (EXAMPLE / "README.md").read_text()

pytestmark = pytest.mark.timeout(900)  # a wheel is built, and an environment installed: minutes when busy


@pytest.fixture(scope="module")
def service(folder: Path, environment: dict[str, str]) -> Iterator[tuple[list[guides.Host], Path]]:
    with guides.followed(EXAMPLE, folder, environment, "/health", 200) as made:
        yield made


def test_the_guide_is_short() -> None:
    assert len(GUIDE.split()) <= 1000
    assert len(guides.commands(GUIDE)) <= 6


def test_the_settings_of_the_guide_are_those_of_the_project() -> None:
    (shown,) = guides.blocks(GUIDE, "python")
    settings = (EXAMPLE / "profiles" / "settings.py").read_text()
    whole = {ast.unparse(node) for node in ast.parse(settings).body}
    assert {ast.unparse(node) for node in ast.parse(shown).body} <= whole


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#]+)\)", GUIDE))
def test_what_the_guide_links_to_is_there(path: str) -> None:
    assert (EXAMPLE / path).resolve().exists()


def test_what_the_guide_shows_happens(service: tuple[list[guides.Host], Path]) -> None:
    (first, _), project = service
    guides.shows(first, GUIDE, project)


def test_a_profile_that_is_changed_on_either_host_is_shown_on_the_other(
    service: tuple[list[guides.Host], Path],
) -> None:
    made, project = service
    for number in range(20):
        writer, reader = made[number % 2], made[1 - number % 2]
        writer.run(f"curl -sf -X PUT -d name=n{number} http://localhost:8000/profiles/2", project)
        wanted = f'{{"host": "{reader.name}", "name": "n{number}"}}'
        reader.until("curl -s http://localhost:8000/profiles/2", wanted, project)


def test_a_host_asks_the_database_once_for_all_its_workers(service: tuple[list[guides.Host], Path]) -> None:
    (_, second), project = service
    before = int(loads(second, project))
    second.run("curl -sf -X PUT -d name=Ada http://localhost:8000/profiles/3", project)
    second.run("for i in 1 2 3 4 5 6 7 8 9 10; do curl -sf http://localhost:8000/profiles/3; done", project)
    assert int(loads(second, project)) - before == 1


def loads(host: guides.Host, project: Path) -> str:
    """What the segment has counted."""
    code = "import cachee_shm; print(cachee_shm.attach('profiles').stats()['loads'])"
    return host.run(f'python -c "{code}"', project)
