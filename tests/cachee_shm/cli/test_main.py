"""The command itself: what it says of itself."""

import pytest

import cachee_shm
from cachee_shm.cli import main


def test_it_says_its_version_and_the_layout_of_its_segments(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    said = f"cachee {cachee_shm.__version__} (segment layout {cachee_shm._core.LAYOUT})\n"
    assert capsys.readouterr().out == said
