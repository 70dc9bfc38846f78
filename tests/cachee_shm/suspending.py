"""A machine that was suspended, as one process sees it: in a time namespace, CLOCK_BOOTTIME runs ahead."""

from __future__ import annotations

import functools
import subprocess
import sys

SUSPEND = """
import ctypes, os
CLONE_NEWTIME, libc = 0x80, ctypes.CDLL(None, use_errno=True)
def enter(path):
    '''Of a process with one thread.'''
    fd = os.open(path, os.O_RDONLY)
    assert libc.setns(fd, CLONE_NEWTIME) == 0, os.strerror(ctypes.get_errno())
    os.close(fd)
def suspended(seconds):
    '''From now on this process was suspended for so long, since the machine booted.'''
    assert libc.unshare(CLONE_NEWTIME) == 0, os.strerror(ctypes.get_errno())
    with open('/proc/self/timens_offsets', 'w') as offsets:
        offsets.write(f'boottime {seconds} 0')
    enter('/proc/self/ns/time_for_children')
"""


@functools.cache
def can_suspend() -> bool:
    """Whether this machine lets a test make time namespaces."""
    return (
        subprocess.run([sys.executable, "-c", f"{SUSPEND}suspended(1)"], capture_output=True).returncode == 0
    )
