"""Runs what the documents show: the Python of each in one session, the configurations through the parser."""

import pathlib
import re
import subprocess
import sys
import textwrap
import uuid

import posix_ipc
import pytest

from cachee_shm import _core
from cachee_shm.config import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = ["README.md", "cachee_shm/README.md", "cachee_shm/VERBS.md", "cachee_shm/http/README.md"]
LINKING = [*DOCUMENTS, "bench/README.md", "bridge/README.md", "cachee_shm/cli/README.md", "CHANGELOG.md"]


def blocks(language: str, document: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_python_of_a_document_runs_from_top_to_bottom(tmp_path: pathlib.Path, document: str) -> None:
    host = f"readme-{uuid.uuid4().hex[:8]}"
    config = tmp_path / "cachee.toml"
    config.write_text(f'[host]\nname = "{host}"\n[defaults]\nmemory = "32MiB"\n')
    program = textwrap.dedent("\n".join(blocks("python", document)))
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"CACHEE_CONFIG": str(config)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    finally:
        posix_ipc.unlink_shared_memory(f"/cachee.{host}.default.{_core.LAYOUT}")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_configurations_of_a_document_are_accepted(document: str) -> None:
    for text in blocks("toml", document):
        Config.parse(tomllib.loads(text))


def links() -> list[tuple[str, str]]:
    return [
        (document, path)
        for document in LINKING
        for path in sorted(set(re.findall(r"\]\(([\w/.-]+)\)", (ROOT / document).read_text())))
    ]


@pytest.mark.parametrize(("document", "path"), links())
def test_what_a_document_links_to_is_there(document: str, path: str) -> None:
    assert (ROOT / document).parent.joinpath(path).exists()
