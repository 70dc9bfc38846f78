"""Checks of this machine: shared memory, message queues, clocks, and logind's removal of segments."""

from __future__ import annotations

import configparser
import ctypes
import glob
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator

import posix_ipc

from cachee_shm.attaching import spec_for
from cachee_shm.cli.doctor.finding import Finding, Level, Patient
from cachee_shm.cli.existing import looked_into
from cachee_shm.cli.segments import found_segments
from cachee_shm.cli.terminal import ago, size
from cachee_shm.errors import CacheeError
from cachee_shm.segment import EMBEDDED_MEMORY_BYTES, SHARED_MEMORY, segment_path

GIB = 1 << 30
LOGIND_PRESENT = "/run/systemd/seats"
LOGIND_CONF = (
    "/usr/lib/systemd/logind.conf.d/*.conf",
    "/run/systemd/logind.conf.d/*.conf",
    "/etc/systemd/logind.conf.d/*.conf",
)
SYSTEM_USERS_BELOW = 1000  # /etc/login.defs: SYS_UID_MAX
STA_UNSYNC = 0x40
TIMEX = ctypes.c_long * 32  # struct timex: modes, offset, freq, maxerror, esterror, status, ...
TIMEX_STATUS = 5
STEP_S = 1.0
"""Smaller differences between two clocks are not reported."""


# Shared memory


def shared_memory(patient: Patient) -> Iterator[Finding]:
    """Checks that every user may make files there, and that there is room for the configured namespaces."""
    mode = os.stat(SHARED_MEMORY).st_mode
    if stat.S_IMODE(mode) != 0o1777:
        what = f"{SHARED_MEMORY} has mode {stat.S_IMODE(mode):04o}, not 1777"
        state = "users without access cannot attach, or users can remove each other's segments"
        yield Finding("shared memory", Level.PROBLEM, what, state, f"chmod 1777 {SHARED_MEMORY}")
    missing = _missing(patient)
    needed, free = sum(missing.values()), shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        total = shutil.disk_usage(SHARED_MEMORY).total
        names = ", ".join(missing)
        what = (
            f"{SHARED_MEMORY} has {size(free)} left, and segments that are not made yet need "
            f"{size(needed)} ({names})"
        )
        wanted = -(-(total - free + needed) // GIB)
        mend = (
            f"mount -o remount,size={wanted}G {SHARED_MEMORY} (in /etc/fstab too; Docker: "
            f"--shm-size={wanted}g; "
            f"Kubernetes: an emptyDir of medium Memory), or less `memory` for the namespaces"
        )
        yield Finding(
            "shared memory", Level.PROBLEM, what, "attach() raises NoSpace; nothing is cached", mend
        )


def _missing(patient: Patient) -> dict[str, int]:
    """Namespaces that have no segment yet, and the memory that each takes."""
    if patient.config is None:
        return {} if patient.namespaces or patient.path else {"default": EMBEDDED_MEMORY_BYTES}
    names = list(patient.config.namespaces)
    if not names and not patient.namespaces:
        names = ["default"]
    return {
        name: table.memory
        for name in names
        if name not in patient.namespaces and (table := patient.settings(name)) is not None
    }


# logind


def removal_by_logind(patient: Patient) -> Iterator[Finding]:
    """Checks that logind keeps the segments. By default it removes the files of an ordinary user from
    /dev/shm when the user's last session ends."""
    if not os.path.isdir(LOGIND_PRESENT) or not _removes_ipc():
        return
    for found in found_segments():
        if found.host == patient.host and found.uid >= SYSTEM_USERS_BELOW:
            user = _name_of(found.uid)
            what = f"segment /{found.name} is ordinary user {user}'s, and logind has RemoveIPC=yes"
            state = (
                "it is removed when the last session of that user ends; the workers then begin with "
                "an empty one"
            )
            mend = (
                "printf '[Login]\\nRemoveIPC=no\\n' > /etc/systemd/logind.conf.d/cachee.conf; systemctl "
                "restart "
                f"systemd-logind; or run the workers as a system user; or: loginctl enable-linger {user}"
            )
            yield Finding("removal by logind", Level.PROBLEM, what, state, mend)
            return


def _removes_ipc() -> bool:
    """Reads the files as logind does: the main one, then the others by name; the last setting counts."""
    by_name = {os.path.basename(path): path for pattern in LOGIND_CONF for path in sorted(glob.glob(pattern))}
    said = "yes"
    for path in ("/etc/systemd/logind.conf", *(by_name[name] for name in sorted(by_name))):
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):
            continue
        said = parser.get("Login", "RemoveIPC", fallback=said) or said
    return said.lower() in ("yes", "true", "on", "1", "y", "t")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# Message queues


def message_queues(patient: Patient) -> Iterator[Finding]:
    """Checks that the bridge has its doorbell, and that workers with this command's user and namespaces can
    ring it."""
    if patient.told is None:
        return
    why = patient.told.get("bridge", {}).get("no_doorbell", "")
    state = "the bridge looks for writes every 3 ms instead of being woken: later announcements, and more CPU"
    if why:
        mend = (
            "systemctl edit cachee-bridge ([Service] LimitMSGQUEUE=infinity); sysctl "
            "fs.mqueue.queues_max=1024; then "
            "systemctl restart cachee-bridge"
        )
        yield Finding("message queues", Level.PROBLEM, f"the bridge has no doorbell: {why}", state, mend)
        return
    name = f"/cachee.{patient.host}"
    try:
        posix_ipc.MessageQueue(name, read=False).close()
    except posix_ipc.ExistentialError:
        what = f"message queue {name}, the bridge's doorbell, is not visible from here"
        mend = "give workers and bridge one IPC namespace (Docker: --ipc=container:BRIDGE or --ipc=host)"
        yield Finding("message queues", Level.PROBLEM, what, state, mend)
    except posix_ipc.PermissionsError:
        what = f"message queue {name}, the bridge's doorbell, may not be opened by user {os.geteuid()}"
        mend = "name a [host] group that bridge and workers are in, and restart the bridge"
        yield Finding("message queues", Level.PROBLEM, what, state, mend)


# Clocks


def clocks(patient: Patient) -> Iterator[Finding]:
    """Checks the clocks. An incarnation begins with the wall time, so it shows whether a clock was set
    back."""
    if not patient.has_bridge:
        return
    if _is_unsynchronized():
        what = "the kernel says that this machine's clock is not synchronized (adjtimex: STA_UNSYNC)"
        state = "coherence does not depend on it; times in `cachee explain` and in logs may be wrong"
        yield Finding("clocks", Level.NOTE, what, state, "timedatectl set-ntp true, or start chrony")
    for namespace in patient.namespaces:
        ahead = _ahead(_incarnation(patient, namespace))
        if ahead > STEP_S:
            what = (
                f"segment {segment_path(patient.host, namespace)} was made {ago(ahead)} from now, by "
                f"this clock"
            )
            state = (
                "the clock was set back since. Its successors go on from there, and peers follow; times "
                "in `cachee "
                "explain` do not fit together"
            )
            yield Finding(
                "clocks",
                Level.PROBLEM,
                what,
                state,
                "chronyc makestep, or: systemctl restart systemd-timesyncd",
            )
    for peer in (patient.told or {"peers": []})["peers"]:
        ahead = max((_ahead(stream["incarnation"]) for stream in peer["namespaces"].values()), default=0.0)
        if ahead > STEP_S:
            what = (
                f"the clock of {peer['name']} is ahead of this host's by {ago(ahead)}, or was when "
                f"its segment was made"
            )
            state = (
                "coherence does not rest on it; should that segment be lost, its successor may be "
                "refused for a while"
            )
            mend = f"run `timedatectl` on {peer['name']} and here, and set the wrong one"
            yield Finding("clocks", Level.PROBLEM, what, state, mend)


def _incarnation(patient: Patient, namespace: str) -> int:
    try:
        with looked_into(spec_for(namespace, patient.path, False)) as cache:
            return cache.incarnation
    except CacheeError:  # the check of segments reports it
        return 0


def _ahead(incarnation: int) -> float:
    """By how many seconds the wall time in an incarnation is in the future."""
    return (incarnation - time.time_ns()) / 1e9


def _is_unsynchronized() -> bool:
    timex = TIMEX()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return False
    return bool(ctypes.cast(timex, ctypes.POINTER(ctypes.c_int))[TIMEX_STATUS * 2] & STA_UNSYNC)
