"""The guides of the frameworks: their Python is run from top to bottom, and each says what is per host."""

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GUIDES = ("aiocache", "cashews", "celery", "dogpile", "fastapi", "flask", "jinja", "litestar")

pytestmark = pytest.mark.needs("frameworks")


def text_of(guide: str) -> str:
    return (EXAMPLES / guide / "README.md").read_text()


@pytest.mark.parametrize("guide", GUIDES)
def test_the_python_of_a_guide_runs_from_top_to_bottom(guide: str, tmp_path: Path) -> None:
    host = f"guide-{uuid.uuid4().hex[:8]}"
    config = tmp_path / "cachee.toml"
    config.write_text(f'[host]\nname = "{host}"\n[namespaces.shop]\nmemory = "4MiB"\n')
    program = "\n".join(re.findall(r"```python\n(.*?)```", text_of(guide), re.DOTALL))
    (tmp_path / "guide.py").write_text(program)
    try:
        done = subprocess.run(
            [sys.executable, str(tmp_path / "guide.py")],
            cwd=tmp_path,
            env={**os.environ, "CACHEE_CONFIG": str(config)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "cannot be attached" not in done.stderr
    finally:
        for name in os.listdir("/dev/shm"):
            if name.startswith(f"cachee.{host}."):
                os.unlink(f"/dev/shm/{name}")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_tells_what_is_per_host_and_links_to_what_is_there(guide: str) -> None:
    text = text_of(guide)
    assert "## What is per host" in text
    assert "| no |" in text or guide == "jinja"
    for path in re.findall(r"\]\(([\w/.-]+)\)", text):
        assert (EXAMPLES / guide / path).exists()
