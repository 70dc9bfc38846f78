"""Whose answer is believed, of all who could listen beside the segments."""

import os
import struct

import pytest

from cachee_shm import asking
from cachee_shm.errors import AccessDenied

STRANGER, GROUP = os.geteuid() + 4242, 4343


class Socket:
    """A connected socket; the kernel says who listens."""

    def __init__(self, uid: int, gid: int) -> None:
        self.listener = struct.pack("3i", 1, uid, gid)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return self.listener[:size]


@pytest.mark.parametrize(
    ("uid", "gid", "group", "groups_of_user"),
    [
        (0, 0, None, []),
        (os.geteuid(), 7, None, []),
        (STRANGER, GROUP, GROUP, []),
        (STRANGER, 7, GROUP, [GROUP]),
    ],
    ids=["root", "this user", "its group is the configured one", "its user is in the configured group"],
)
def test_root_this_user_and_the_configured_group_are_believed(monkeypatch, uid, gid, group, groups_of_user):
    monkeypatch.setattr(asking, "_groups_of", lambda asked: groups_of_user if asked == uid else [])
    asking.check_owner(Socket(uid, gid), "/dev/shm/cachee.x.sock", group)


@pytest.mark.parametrize(("gid", "group"), [(GROUP, None), (7, GROUP)], ids=["no group", "another group"])
def test_a_stranger_is_not(monkeypatch, gid, group):
    monkeypatch.setattr(asking, "_groups_of", lambda uid: [7])
    with pytest.raises(AccessDenied, match=f"served by user {STRANGER}, not by root.*Nothing was asked"):
        asking.check_owner(Socket(STRANGER, gid), "/dev/shm/cachee.x.sock", group)
