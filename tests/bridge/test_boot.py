"""The file that numbers the lives of this shared memory."""

import os
import stat

import pytest

from cachee_bridge.system.boot import boot_of_shared_memory

STRANGER, GROUP = 65534, 4242


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "cachee.web-1.boot")


def test_the_first_bridge_makes_it_and_those_after_it_read_it(path, tmp_path):
    boot = boot_of_shared_memory(path, None)
    assert 0 <= boot < 2**32
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert boot_of_shared_memory(path, None) == boot
    assert os.listdir(tmp_path) == ["cachee.web-1.boot"]


def test_a_life_without_it_is_another_one(path):
    boots = set()
    for _ in range(3):
        boots.add(boot_of_shared_memory(path, None))
        os.unlink(path)
    assert len(boots) == 3


def test_two_that_make_it_at_once_agree(path, monkeypatch):
    lexists = os.path.lexists

    def missing(asked):
        monkeypatch.setattr(os.path, "lexists", lexists)
        made.append(boot_of_shared_memory(path, None))  # another bridge, between the look and the making
        return False

    made: list[int] = []
    monkeypatch.setattr(os.path, "lexists", missing)
    assert boot_of_shared_memory(path, None) == made[0]


@pytest.mark.parametrize("content", [b"", b"12345", b"123456789", b"no digit", b"\xff" * 8])
def test_what_was_not_made_by_a_bridge_is_refused_and_left_alone(path, content):
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(PermissionError, match="does not hold 8 hexadecimal digits; it was not touched"):
        boot_of_shared_memory(path, None)
    with open(path, "rb") as file:
        assert file.read() == content


def test_a_link_is_not_followed(path, tmp_path):
    (tmp_path / "other").write_bytes(b"12345678")
    os.symlink(tmp_path / "other", path)
    with pytest.raises(OSError):
        boot_of_shared_memory(path, None)


def test_a_pipe_of_that_name_keeps_nobody_waiting(path):
    os.mkfifo(path)
    with pytest.raises(PermissionError, match="is no regular file"):
        boot_of_shared_memory(path, None)


@pytest.mark.needs("other users")
def test_a_file_of_another_user_is_refused_and_one_of_the_configured_group_is_read(path):
    boot = boot_of_shared_memory(path, GROUP)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    os.chown(path, STRANGER, GROUP)
    assert boot_of_shared_memory(path, GROUP) == boot
    with pytest.raises(PermissionError, match="belongs to user 65534"):
        boot_of_shared_memory(path, None)
