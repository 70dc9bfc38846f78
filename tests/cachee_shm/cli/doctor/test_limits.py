"""Certificates that end, and a container that is smaller than its segments: real ones."""

import datetime
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.bridge.certificates import Authority
from tests.cachee_shm.cli.doctor.conftest import of_check

TLS = '[bridge]\nlisten = "127.0.0.1:7946"\n[bridge.tls]\ncert = "{cert}"\nkey = "{key}"\nca = "{ca}"\n'


def issued(host, folder, days):
    """A configuration whose certificate is good for so many days more; the certificate."""
    authority = Authority(folder)
    now = datetime.datetime.now(datetime.timezone.utc)
    files = authority.issue(host.name, now + datetime.timedelta(days=days, minutes=5))
    host.write("2MiB", TLS.format(cert=files.cert, key=files.key, ca=authority.ca))
    return files.cert


@pytest.mark.parametrize(
    ("days", "said"), [(-3, "expired 3 d ago"), (13, "expires in 13 d"), (1, "expires in"), (15, "")]
)
def test_a_certificate_that_has_ended_or_soon_will_is_named(host, doctor, tmp_path, days, said):
    cert = issued(host, tmp_path / "tls", days)
    found = doctor(host.path, "certificates")
    if not said:
        assert found == []
        return
    assert [each["level"] for each in found] == ["problem"]
    assert found[0]["what"].startswith(f"bridge.tls.cert: {cert} {said}")
    issued(host, tmp_path / "tls", 365)  # what it says to do
    assert doctor(host.path, "certificates") == []


def test_of_several_certificates_in_a_file_the_first_to_end_counts(host, doctor, tmp_path):
    cert = issued(host, tmp_path / "tls", 300)
    good = Path(cert).read_text()
    Path(cert).write_text(good + Path(issued(host, tmp_path / "other", 2)).read_text())
    host.write("2MiB", TLS.format(cert=cert, key=tmp_path / "none", ca=tmp_path / "tls" / "ca.pem"))
    (found,) = doctor(host.path, "certificates")
    assert f"{cert} expires in" in found["what"]


@pytest.mark.parametrize("length", [0, 1, 40, 400])
def test_a_certificate_that_is_cut_short_or_is_none_is_unknown(host, doctor, tmp_path, length):
    cert = Path(issued(host, tmp_path / "tls", 300))
    begin, _, body = cert.read_text().partition("\n")
    cert.write_text(f"{begin}\n{body[: length // 4 * 4]}\n-----END CERTIFICATE-----\n")
    (found,) = doctor(host.path, "certificates")
    assert (found["level"], str(cert) in found["what"]) == ("unknown", True)


@pytest.fixture
def group():
    """A control group of 32 MiB below this process's own."""
    with open("/proc/self/cgroup") as file:
        own = next(line.rstrip("\n").split(":")[2] for line in file if ":memory:" in line)
    folder = Path("/sys/fs/cgroup/memory" + own) / f"cachee-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(32 << 20))
    yield folder
    folder.rmdir()


def doctor_in(group, config):
    program = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
        "os.execv(sys.executable, [sys.executable, '-m', 'cachee_shm.cli', *sys.argv[2:]])"
    )
    command = [sys.executable, "-c", program, str(group / "cgroup.procs")]
    done = subprocess.run(
        [*command, "doctor", "--json", "--config", str(config)], capture_output=True, text=True
    )
    assert done.stdout, done.stderr
    return of_check(done.returncode, done.stdout, "container")


@pytest.mark.needs("control groups")
def test_a_container_that_is_smaller_than_its_namespaces_is_named(host, group):
    host.write("2MiB", '[namespaces.shop]\nmemory = "48MiB"\n[namespaces.news]\nmemory = "2MiB"\n')
    (found,) = doctor_in(group, host.path)
    assert found["level"] == "problem"
    assert "may use 32 MiB, and the namespaces of the configuration have 50 MiB" in found["what"]
    host.write("2MiB", '[namespaces.shop]\nmemory = "16MiB"\n')
    assert doctor_in(group, host.path) == []


def test_a_namespace_that_fits_is_no_finding(host, doctor):
    assert doctor(host.path, "container") == []
