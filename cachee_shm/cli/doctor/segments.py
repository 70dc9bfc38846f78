"""Checks of this machine's segments: those that no process will use again, and those that cannot be used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cachee_shm import _core
from cachee_shm.attaching import spec_for
from cachee_shm.cli.doctor.finding import Finding, Level, Patient
from cachee_shm.cli.existing import NoSegment, looked_into
from cachee_shm.cli.segments import Found, found_segments, is_in_use
from cachee_shm.cli.terminal import size
from cachee_shm.errors import CacheeError, ConfigError

NAMED_MAX = 5
RESTART = "restart all workers of this host, and its bridge"


def segments(patient: Patient) -> Iterator[Finding]:
    """Checks that each segment of this host can be attached and has this build's layout and the configured
    size, and that each segment of another host name is in use."""
    strangers = []
    for found in sorted(found_segments(), key=lambda found: found.name):
        if found.host != patient.host:
            strangers.append(found)
        elif found.layout != _core.LAYOUT:
            yield from _of_another_build(found)
        else:
            yield from _of_this_build(patient, found)
    yield from _of_other_hosts(strangers)


def _of_another_build(found: Found) -> Iterator[Finding]:
    try:
        used = is_in_use(found)
    except OSError as error:
        state, mend = "nothing is known of who uses it", "run cachee doctor as root"
        yield Finding("segments", Level.UNKNOWN, f"/{found.name}: {error.strerror}", state, mend)
        return
    if used:
        what = (
            f"/{found.name} is of another build's layout ({found.layout}; this one has "
            f"{_core.LAYOUT}) and in use"
        )
        state = "old and new workers run side by side; with a bridge they are coherent, and share nothing"
        yield Finding("segments", Level.NOTE, what, state, "end the upgrade: restart the old workers")
        return
    what = f"/{found.name} is of another build's layout ({found.layout}), and nobody uses it"
    state = f"it takes {size(found.size)} of /dev/shm"
    yield Finding("segments", Level.PROBLEM, what, state, f"cachee segment rm /{found.name}")


def _of_this_build(patient: Patient, found: Found) -> Iterator[Finding]:
    try:
        spec = spec_for(found.namespace, patient.path, False)
    except ConfigError:
        if patient.config is not None:
            what = f"/{found.name} is of a namespace that the configuration does not have"
            state = f"no process attaches to it any more; it takes {size(found.size)} of /dev/shm"
            yield Finding("segments", Level.PROBLEM, what, state, f"cachee segment rm /{found.name}")
        return
    try:
        with looked_into(spec) as cache:
            actual = cache.stats()["memory_bytes"]
    except NoSegment:
        return
    except CacheeError as error:
        state = "no process of this user attaches; its cache misses, and its writes are announced nowhere"
        yield Finding(
            "segments", Level.PROBLEM, str(error), state, f"cachee segment rm /{found.name}, or see above"
        )
        return
    if actual != spec.memory_bytes:
        what = f"/{found.name} has {size(actual)}, and the configuration says {size(spec.memory_bytes)}"
        state = "the existing one is used until nobody is attached to it, the bridge too"
        yield Finding("segments", Level.PROBLEM, what, state, RESTART)


def _of_other_hosts(found: list[Found]) -> Iterator[Finding]:
    """Segments that were left by a host that was renamed, or by another host name that no process uses
    now."""
    unused = []
    for each in found:
        with contextlib.suppress(OSError):  # another user's
            if not is_in_use(each):
                unused.append(each)
    if unused:
        names = ", ".join(f"/{each.name}" for each in unused[:NAMED_MAX])
        names += f" and {len(unused) - NAMED_MAX} more" if len(unused) > NAMED_MAX else ""
        what = f"nobody uses {len(unused)} segments of hosts with other names: {names}"
        state = f"they take {size(sum(each.size for each in unused))} of /dev/shm"
        mend = "if this machine is no longer called so: cachee segment ls; cachee segment rm NAME ..."
        yield Finding("segments", Level.NOTE, what, state, mend)
