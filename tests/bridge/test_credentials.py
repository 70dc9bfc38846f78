"""Secrets and certificates in files: read, looked at, read again."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from cachee_bridge.carriers.credentials import Credentials, read_secrets
from cachee_shm.config import Bridge, Config
from cachee_shm.errors import ConfigError
from tests.bridge.certificates import YESTERDAY, Authority

OLD, NEW = b"the one before this one", b"sixteen bytes or more"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    write(path, NEW + b"\n")
    return path


def write(path: Path, content: bytes) -> None:
    """As deployments do: a new file takes the place of the old one."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.chmod(0o640)
    os.replace(new, path)


def put(files: object, into: object) -> None:
    for name in ("cert", "key", "ca"):
        if getattr(files, name) != getattr(into, name):
            write(Path(getattr(into, name)), Path(getattr(files, name)).read_bytes())


def bridge_of(**lines: object) -> Bridge:
    bridge = Config.parse({"defaults": {}, "bridge": lines}).bridge
    assert bridge is not None
    return bridge


def with_tls(files: object) -> Bridge:
    return bridge_of(tls={name: getattr(files, name) for name in ("cert", "key", "ca")})


# Secrets


@pytest.mark.parametrize("content", [NEW, NEW + b"\n", NEW + b"\r\n", b"\n" + NEW + b"\n\n"])
def test_a_secret_is_the_line_without_its_end(content: bytes, secret: Path) -> None:
    write(secret, content)
    assert read_secrets(str(secret)) == (NEW,)


def test_two_lines_are_two_secrets_in_their_order(secret: Path) -> None:
    write(secret, NEW + b"\n" + OLD + b"\n")
    assert read_secrets(str(secret)) == (NEW, OLD)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"too short\n",
        NEW + b"\nshort",
        b"x" * 5000,
        b"\n".join([NEW, OLD, b"a third one, too"]),
    ],
)
def test_what_cannot_be_a_secret_is_refused_with_its_file(content: bytes, secret: Path) -> None:
    write(secret, content)
    with pytest.raises(ConfigError, match=str(secret)) as caught:
        Credentials(bridge_of(secret_file=str(secret)), "web-1")
    assert "short" not in str(caught.value)


def test_a_secret_that_cannot_be_read_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such-file.*cannot be read"):
        Credentials(bridge_of(secret_file=str(tmp_path / "no-such-file")), "web-1")


def test_a_pipe_in_the_place_of_a_secret_or_a_key_is_refused_and_nobody_waits_for_its_writer(
    authority: Authority, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    files = vars(authority.issue("web-1"))
    for bridge in (
        bridge_of(secret_file=str(pipe)),
        *(bridge_of(tls={**files, name: str(pipe)}) for name in files),
    ):
        with pytest.raises(ConfigError, match=r"pipe.*no regular file"):
            Credentials(bridge, "web-1")


def test_files_that_everybody_may_read_are_warned_of(
    secret: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.issue("web-1")
    for path in (str(secret), files.key):
        os.chmod(path, 0o644)
    tls = {"cert": files.cert, "key": files.key, "ca": files.ca}
    Credentials(bridge_of(secret_file=str(secret), tls=tls), "web-1")
    warned = [message for message in caplog.messages if "open to every user" in message]
    assert [str(secret) in warned[0], files.key in warned[1]] == [True, True]


# Certificates


def test_a_certificate_for_another_host_is_refused_with_both_names(authority: Authority) -> None:
    with pytest.raises(ConfigError, match="found 'web-2'; accepted: one for 'web-1'"):
        Credentials(with_tls(authority.issue("web-2")), "web-1")


def test_its_namespaces_are_this_hosts(authority: Authority) -> None:
    words = authority.issue_words("cachee://web-1/shop", "cachee://web-2/news")
    assert Credentials(with_tls(words), "web-1").namespaces == {"shop"}


def test_at_the_start_one_that_has_run_out_is_used_and_said(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    expired = authority.issue("web-1", not_after=YESTERDAY)
    assert Credentials(with_tls(expired), "web-1").tls is not None
    assert "expired; no link comes up until it is replaced" in caplog.text


# Read again


def test_a_changed_file_is_read_once_it_has_been_left_alone(secret: Path) -> None:
    credentials = Credentials(bridge_of(secret_file=str(secret)), "web-1")
    assert not credentials.look()
    write(secret, NEW + b"\n" + OLD)
    assert not credentials.look()
    assert credentials.look()
    assert credentials.secrets == (NEW, OLD)
    assert not credentials.look()


def test_when_told_it_is_read_at_once(secret: Path) -> None:
    credentials = Credentials(bridge_of(secret_file=str(secret)), "web-1")
    write(secret, OLD)
    assert credentials.reload()
    assert credentials.secrets == (OLD,)
    assert not credentials.look()


def test_a_new_certificate_is_taken(authority: Authority) -> None:
    files = authority.issue("web-1")
    credentials = Credentials(with_tls(files), "web-1")
    before = credentials.tls
    put(authority.issue("web-1", file="next"), files)
    assert [credentials.look(), credentials.look()] == [False, True]
    assert credentials.tls is not before


def test_one_that_is_replaced_behind_a_link_is_noticed(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes mounts secrets: the files are links into a folder that is exchanged as a whole."""
    for name, files in (("1", authority.issue("web-1")), ("2", authority.issue("web-1", file="next"))):
        (tmp_path / name).mkdir()
        for part in ("cert", "key", "ca"):
            shutil.copy(getattr(files, part), tmp_path / name / part)
    (tmp_path / "data").symlink_to("1")
    paths = {part: str(tmp_path / "data" / part) for part in ("cert", "key", "ca")}
    credentials = Credentials(bridge_of(tls=paths), "web-1")
    (tmp_path / "new").symlink_to("2")
    os.replace(tmp_path / "new", tmp_path / "data")
    assert [credentials.look(), credentials.look()] == [False, True]


def broken(authority: Authority, kind: str) -> object:
    if kind == "run out":
        return authority.issue("web-1", not_after=YESTERDAY, file="next")
    if kind == "of another host":
        return authority.issue("web-2", file="next")
    if kind == "of another ca":
        other = Authority(authority.folder / "other").issue("web-1")
        return type(other)(other.cert, other.key, str(authority.ca))
    return authority.issue_words("cachee://web-1/shop", file="next")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("run out", "certificate has expired"),
        ("of another host", "accepted: one for 'web-1'"),
        ("of another ca", "unable to get local issuer certificate"),
        ("of other namespaces", "it allows shop and the one in use all namespaces; restart"),
    ],
)
def test_a_new_one_that_cannot_be_used_is_said_once_and_the_old_one_stays(
    authority: Authority, secret: Path, kind: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.issue("web-1")
    tls = {"cert": files.cert, "key": files.key, "ca": files.ca}
    credentials = Credentials(bridge_of(secret_file=str(secret), tls=tls), "web-1")
    before = credentials.tls, credentials.secrets
    write(secret, OLD)
    put(broken(authority, kind), files)
    assert [credentials.look() for _ in range(4)] == [False] * 4
    assert (credentials.tls, credentials.secrets) == before
    (line,) = [message for message in caplog.messages if told in message]
    assert "the bridge goes on with what it had read before" in line
    put(authority.issue("web-1", file="good"), files)
    assert [credentials.look(), credentials.look()] == [False, True]
    assert credentials.secrets == (OLD,)


@pytest.mark.parametrize("content", [b"", b"short", b"not a PEM file at all, but long enough"])
def test_half_a_file_changes_nothing(authority: Authority, content: bytes) -> None:
    files = authority.issue("web-1")
    credentials = Credentials(with_tls(files), "web-1")
    before = credentials.tls
    write(Path(files.key), content)
    assert not credentials.reload()
    assert credentials.tls is before


def test_a_file_that_is_gone_changes_nothing(secret: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        credentials = Credentials(bridge_of(secret_file=str(secret)), "web-1")
        secret.unlink()
        assert [credentials.look() for _ in range(3)] == [False] * 3
    assert credentials.secrets == (NEW,)
    assert len(caplog.messages) == 1
