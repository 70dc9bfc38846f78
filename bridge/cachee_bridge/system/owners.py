"""Who may have made what the bridge finds under a name that anybody on the machine could have taken first."""

from __future__ import annotations

import os
import stat


def wrong_owner(found: os.stat_result, gid: int | None) -> str:
    """Why it is not to be trusted; "" if it is: made by this user, by root, or given to the configured group
    (which only a member or root can do), and, if not this user's, not open to everybody.

    `found`: of the open descriptor, where it has one. `gid`: of the configured group, None without one.
    """
    if found.st_uid == os.geteuid():
        return ""
    if found.st_uid != 0 and (gid is None or found.st_gid != gid):
        return f"belongs to user {found.st_uid}, not to root, to this user or to the configured group"
    if found.st_mode & stat.S_IRWXO:
        return f"is open to everybody: its mode is {stat.S_IMODE(found.st_mode):o}"
    return ""
