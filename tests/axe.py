"""axe-core, which checks the accessibility of a page. npm fetches one version once; its digest is checked.

    browser.evaluate(axe.source())
    assert axe.violations(browser) == []

What is fetched stays in ``build/foreign``.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests import machine
from tests.chromium import Chromium

__all__ = ["source", "violations"]

VERSION = "4.14.1"
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
FETCHED = Path(__file__).resolve().parents[1] / "build" / "foreign"
FETCH_S = 120


def source() -> str:
    """The whole of it as one script. Skips the calling test where npm cannot fetch it."""
    FETCHED.mkdir(parents=True, exist_ok=True)
    kept = FETCHED / f"axe-core-{VERSION}.tgz"
    with (FETCHED / "lock-axe").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _fetch(kept)
    found = base64.b64encode(hashlib.sha512(kept.read_bytes()).digest()).decode()
    assert found == SHA512, f"{kept} is not axe-core {VERSION}: its digest is {found}"
    with tarfile.open(kept) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def violations(browser: Chromium) -> list[str]:
    """What breaks WCAG 2.2 A and AA, or axe-core's best practices, in the page as it is now."""
    browser.evaluate(f"{source()}\n;0")
    found = browser.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(all => all.violations.map(each =>"
        " `${each.id}: ${each.nodes.map(node => `${node.target} (${node.failureSummary})`).join('; ')}`))"
    )
    return list(found)


def _fetch(kept: Path) -> None:
    """By a rename at the end: a fetch that is interrupted leaves nothing that looks whole."""
    with tempfile.TemporaryDirectory(dir=FETCHED) as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"axe-core@{VERSION}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, cwd=folder)
        except (OSError, subprocess.TimeoutExpired) as error:
            machine.skip("axe-core", f"npm cannot fetch it: {error}")
        if done.returncode:
            machine.skip("axe-core", f"npm cannot fetch it: {done.stderr.strip().splitlines()[-1:]}")
        (archive,) = Path(folder).glob("*.tgz")
        archive.rename(kept)
