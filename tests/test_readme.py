"""What the documents show is run: their Python in one session each, the configuration through the parser."""

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
README = (ROOT / "README.md").read_text()
VERBS = (ROOT / "cachee_shm" / "VERBS.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("text", [README, VERBS], ids=["README", "VERBS"])
def test_the_python_of_a_document_runs_from_top_to_bottom(tmp_path: pathlib.Path, text: str) -> None:
    host = f"readme-{uuid.uuid4().hex[:8]}"
    config = tmp_path / "cachee.toml"
    config.write_text(f'[host]\nname = "{host}"\n[defaults]\nmemory = "32MiB"\n')
    program = textwrap.dedent("\n".join(blocks("python", text)))
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


def test_the_configuration_of_the_readme_is_accepted(tmp_path: pathlib.Path) -> None:
    near, whole = [Config.parse(tomllib.loads(text)).namespace("shop") for text in blocks("toml")]
    assert near.near_cache_entries == 1024
    assert whole.memory == 256 << 20


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w/.-]+)\)", README))))
def test_what_the_readme_links_to_is_there(path: str) -> None:
    assert (ROOT / path).exists()
