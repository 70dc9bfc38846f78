"""``cachee doctor``: what is wrong with this host, and the command that repairs it.

finding    what a check finds, and the checked host     machine    /dev/shm, message queues, logind, clocks
files      the configuration and the files it names     segments   stale ones, other sizes, owners
limits     certificates that end, a container's memory
bridge     dead, hung, in another's place, unreachable  mesh       peers, and what isolates this host

It changes nothing. Exit codes: 0 no problem (there may be notes), 1 problems, 3 no problem was found, but
something could not be checked: a script must not take "unknown" for "no problem".
"""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from cachee_shm.attaching import CONFIG_PATH
from cachee_shm.cli.doctor import bridge, files, limits, machine, mesh, segments
from cachee_shm.cli.doctor.finding import Check, Finding, Level, Patient
from cachee_shm.cli.terminal import columns, paint, shown
from cachee_shm.config import load
from cachee_shm.errors import CacheeError, ConfigError

CHECKS: dict[str, Check] = {
    "configuration": files.group,
    "secrets": files.secrets,
    "certificates": limits.certificates,
    "shared memory": machine.shared_memory,
    "container": limits.container,
    "segments": segments.segments,
    "removal by logind": machine.removal_by_logind,
    "bridge": bridge.bridge,
    "own address": bridge.own_address,
    "releases": bridge.releases,
    "message queues": machine.message_queues,
    "clocks": machine.clocks,
    "peers": mesh.peers,
    "refused links": mesh.refused,
    "isolation": mesh.isolation,
    "staleness": mesh.staleness,
}
COLOURS = {Level.PROBLEM: "red", Level.NOTE: "", Level.UNKNOWN: "yellow"}
OK, PROBLEMS, UNKNOWN = 0, 1, 3


def doctor(options: argparse.Namespace) -> int:
    """Make every check, print what was found, and return the exit code."""
    path = options.config or os.environ.get("CACHEE_CONFIG") or CONFIG_PATH
    is_named = bool(options.config or os.environ.get("CACHEE_CONFIG"))
    patient, found = _admitted(path, is_named)
    for name, check in CHECKS.items():
        found += _made(name, check, patient)
    if options.json:
        print(_as_json(patient, found))
    else:
        print(*_report(patient, found), sep="\n")
    return _exit_code(found)


def _admitted(path: str, is_named: bool) -> tuple[Patient, list[Finding]]:
    if not is_named and not os.path.exists(path):
        what = f"there is no configuration ({path}, $CACHEE_CONFIG)"
        state = "this user's processes share 32 MiB; there is no bridge, so other hosts are not coherent"
        return Patient(None, None), [Finding("configuration", Level.NOTE, what, state, "cachee init")]
    try:
        return Patient(path, load(path)), []
    except ConfigError as error:
        state = "no worker attaches and no bridge starts with it; only the machine can be looked at"
        mend = f"correct {path}, then: cachee-bridge --config {path} --check"
        return Patient(path, None), [Finding("configuration", Level.PROBLEM, str(error), state, mend)]


def _made(name: str, check: Check, patient: Patient) -> list[Finding]:
    found: list[Finding] = []
    try:
        for each in check(patient):
            found.append(each)
    except (OSError, CacheeError) as error:
        state = "nothing is known of this; the other checks went on"
        found.append(Finding(name, Level.UNKNOWN, f"{name}: {error}", state, "run cachee doctor as root"))
    return found


def _exit_code(found: Sequence[Finding]) -> int:
    levels = {each.level for each in found}
    return PROBLEMS if Level.PROBLEM in levels else UNKNOWN if Level.UNKNOWN in levels else OK


# For programs


def _as_json(patient: Patient, found: Sequence[Finding]) -> str:
    rows = [{**asdict(each), "level": each.level.value} for each in found]
    return json.dumps(
        {
            "ok": _exit_code(found) == OK,
            "host": patient.host,
            "configuration": patient.path,
            "checks": ["configuration", *(name for name in CHECKS if name != "configuration")],
            "findings": rows,
        }
    )


# For people


def _report(patient: Patient, found: Sequence[Finding]) -> Iterator[str]:
    of = f"configuration {patient.path}" if patient.path else "no configuration"
    yield paint(f"host {shown(patient.host)}, {shown(of)}", "bold")
    order = list(Level)
    for each in sorted(found, key=lambda each: order.index(each.level)):
        yield ""
        yield from _paragraph(each)
    yield ""
    counts = [(sum(each.level is level for each in found), level.value) for level in Level]
    said = [f"{many} {word}{'s' if many > 1 and word != 'unknown' else ''}" for many, word in counts if many]
    yield f"{', '.join(said) or 'nothing found'}; {len(CHECKS)} checks"


def _paragraph(each: Finding) -> Iterator[str]:
    label = f"{each.level.value}:"
    first, *more = _wrapped(each.what, len(label) + 1)
    yield f"{paint(label, COLOURS[each.level])} {first}"
    yield from (f"  {line}" for line in more)
    commands = [part.strip() for part in shown(each.mend).split("; ")]  # not wrapped, to be copied
    for name, (first, *more) in (("state", _wrapped(each.state, 9)), ("mend", commands)):
        yield f"  {name + ':':<7}{first}"
        yield from (f"         {line}" for line in more)


def _wrapped(text: str, indent: int) -> list[str]:
    lines = []
    for line in shown(text, kept="\n").splitlines():
        room = max(40, columns() - max(indent, 9))
        lines += textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
    return lines or [""]
