"""TLS without a socket: who comes to an understanding, and what is said where nobody does."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import ssl
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from cachee_bridge.carriers.tls import Channel, Contexts, Files, load
from cachee_shm.errors import AuthError, ConfigError
from tests.bridge.certificates import TOMORROW, YESTERDAY, Authority, pem_of


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other-ca"))


def carry(dialler: Channel, acceptor: Channel) -> tuple[bytes, bytes]:
    """Bytes to and fro until both are silent; what each could read."""
    read = {dialler: b"", acceptor: b""}
    read[dialler] += dialler.feed(b"")
    while moved := [(acceptor, dialler.out()), (dialler, acceptor.out())]:
        if not any(data for _, data in moved):
            break
        for end, data in moved:
            read[end] += end.feed(data)
    return read[dialler], read[acceptor]


def pair(here: Files, there: Files) -> tuple[Channel, Channel]:
    return Contexts(here).dial(), Contexts(there).accept()


def refusal(dialler: Channel, acceptor: Channel) -> dict[str, str]:
    """What each side says, the one that complains first and then the one that hears of it."""
    said: dict[str, str] = {}
    ends = {"dialler": dialler, "acceptor": acceptor}
    waiting = {"dialler": b"", "acceptor": b""}
    for _ in range(4):
        for name, other in (("dialler", "acceptor"), ("acceptor", "dialler")):
            if name not in said:
                try:
                    ends[name].feed(waiting[name])
                except AuthError as error:
                    said[name] = str(error)
            waiting[name] = b""
            waiting[other] += ends[name].out()
    return said


def test_two_hosts_of_one_ca_know_each_others_names(authority: Authority) -> None:
    dialler, acceptor = pair(authority.issue("web-1"), authority.issue("web-2"))
    carry(dialler, acceptor)
    assert dialler.identity is not None
    assert acceptor.identity is not None
    assert dialler.identity.limits("web-2") is None
    assert acceptor.identity.limits("web-1") is None


def test_a_certificate_may_come_with_those_between_it_and_the_ca(authority: Authority) -> None:
    files = authority.issue_by_a_child("web-1")
    dialler, acceptor = pair(files, authority.issue("web-2"))
    carry(dialler, acceptor)
    assert str(acceptor.identity) == "'web-1'"
    assert load(files)[2] == ""


def test_words_become_limits(authority: Authority) -> None:
    words = authority.issue_words("cachee://web-1/shop", "cachee://web-1/news")
    dialler, acceptor = pair(words, authority.issue("web-2"))
    carry(dialler, acceptor)
    assert acceptor.identity is not None
    assert acceptor.identity.limits("web-1") == {"shop", "news"}


def test_bytes_of_any_length_arrive_whole(authority: Authority) -> None:
    dialler, acceptor = pair(authority.issue("web-1"), authority.issue("web-2"))
    carry(dialler, acceptor)
    sent = bytes(range(256)) * 3000
    dialler.write(sent)
    acceptor.write(b"and back")
    assert carry(dialler, acceptor) == (b"and back", sent)


def test_it_is_tls_1_3_and_no_ticket_is_given(authority: Authority) -> None:
    dialler, acceptor = pair(authority.issue("web-1"), authority.issue("web-2"))
    carry(dialler, acceptor)
    assert dialler._tls.version() == "TLSv1.3"
    assert dialler._tls.session is None or not dialler._tls.session.has_ticket


def test_the_end_is_told(authority: Authority) -> None:
    dialler, acceptor = pair(authority.issue("web-1"), authority.issue("web-2"))
    carry(dialler, acceptor)
    dialler.write(b"last")
    dialler.end()
    assert carry(dialler, acceptor) == (b"", b"last")
    assert acceptor.ended
    assert not dialler.ended


@pytest.mark.parametrize("place", [5, 30, -1])
def test_a_changed_byte_is_an_error_and_nothing_is_read(authority: Authority, place: int) -> None:
    dialler, acceptor = pair(authority.issue("web-1"), authority.issue("web-2"))
    carry(dialler, acceptor)
    dialler.write(b"a message of some length")
    record = bytearray(dialler.out())
    record[place] ^= 1
    with pytest.raises(AuthError, match="TLS"):
        acceptor.feed(bytes(record))


def test_a_record_of_another_link_or_another_place_is_an_error(authority: Authority) -> None:
    files = authority.issue("web-1"), authority.issue("web-2")
    pairs = [pair(*files) for _ in range(3)]
    records = []
    for dialler, acceptor in pairs:
        carry(dialler, acceptor)
        dialler.write(b"a message")
        records.append(dialler.out())
    for wrong, (_, acceptor) in zip((records[1], records[2], records[2] * 2), pairs, strict=True):
        with pytest.raises(AuthError):
            acceptor.feed(wrong)


def test_a_certificate_of_another_ca_is_refused_and_told(authority: Authority, stranger: Authority) -> None:
    said = refusal(*pair(stranger.issue("web-1"), authority.issue("web-2")))
    assert "certificate is refused: " in said["dialler"]
    assert "other end refuses this host's TLS: unknown ca" in said["acceptor"]


def test_a_dialler_that_is_refused_gets_the_reason(authority: Authority, stranger: Authority) -> None:
    wrong = stranger.issue("web-1")
    said = refusal(*pair(Files(wrong.cert, wrong.key, str(authority.ca)), authority.issue("web-2")))
    assert "certificate is refused: " in said["acceptor"]
    assert said["dialler"] == "the other end refuses this host's TLS: unknown ca"


def test_a_certificate_that_has_run_out_is_refused_and_told(authority: Authority) -> None:
    expired = authority.issue("web-1", not_after=YESTERDAY, file="expired")
    said = refusal(*pair(expired, authority.issue("web-2")))
    assert said["acceptor"] == "the other end's certificate is refused: certificate has expired"
    assert said["dialler"] == "the other end refuses this host's TLS: certificate expired"


def test_a_certificate_that_names_no_host_is_refused(authority: Authority) -> None:
    nameless = authority.issue_words(file="nameless")
    said = refusal(*pair(nameless, authority.issue("web-2")))
    assert "names no host" in said["acceptor"]


@pytest.mark.parametrize("kind", [0x81, 0x82, 0x86], ids=["email", "dns", "uri"])
@pytest.mark.parametrize("name", [b"\xff\xfe", b"web\x00-1", b"\xc3", b""])
def test_a_certificate_whose_names_are_no_text_is_refused(
    authority: Authority, kind: int, name: bytes
) -> None:
    files = authority.issue_bytes(name, kind=kind)
    said = refusal(*pair(files, authority.issue("web-2")))
    assert "certificate" in said["acceptor"]
    with pytest.raises(ConfigError, match="certificate"):
        load(files)


def test_a_peer_without_a_certificate_is_refused_and_told(authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.ca)
    said = refusal(Channel(context, accepts=False), Contexts(authority.issue("web-2")).accept())
    assert said["acceptor"] == "the other end has no certificate"
    assert "certificate required" in said["dialler"]


def test_a_peer_that_speaks_tls_1_2_at_most_is_refused_and_told(authority: Authority) -> None:
    files = authority.issue("web-1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.cert, files.key)
    said = refusal(Channel(context, accepts=False), Contexts(authority.issue("web-2")).accept())
    assert said["acceptor"] == "the other end speaks no TLS 1.3, only older ones"
    assert "protocol version" in said["dialler"]


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x65\x00\x00\x00\x01\x97\xa6cachee" + bytes(100),
        b"\r\n\r\n\r\n",
        bytes(20),
        b"\xff" * 20,
    ],
)
@pytest.mark.parametrize("dials", [True, False])
def test_a_peer_that_speaks_no_tls_is_refused_and_told_so(
    authority: Authority, said: bytes, dials: bool
) -> None:
    contexts = Contexts(authority.issue("web-2"))
    channel = contexts.dial() if dials else contexts.accept()
    channel.feed(b"")
    channel.out()
    with pytest.raises(AuthError, match="no TLS") as caught:
        channel.feed(said)
    assert "\n" not in str(caught.value)
    assert channel.out()[:2] == b"\x15\x03"


# Loading


def test_what_is_good_today_is_loaded_without_a_fault(authority: Authority) -> None:
    _, identity, fault = load(authority.issue("web-1"))
    assert (identity.limits("web-1"), fault) == (None, "")


def test_what_has_run_out_is_loaded_with_the_fault(authority: Authority) -> None:
    _, identity, fault = load(authority.issue("web-1", not_after=YESTERDAY, file="expired"))
    assert identity.limits("web-1") is None
    assert fault.endswith("expired.pem: certificate has expired")


def faults(authority: Authority, stranger: Authority, folder: Path) -> dict[str, tuple[Files, str]]:
    """By kind: files that cannot be used, and what is said."""
    good, other = authority.issue("web-1"), stranger.issue("web-1")
    key = serialization.load_pem_private_key(Path(authority.issue_words("cachee://a").key).read_bytes(), None)
    locked, empty = folder / "locked.key", folder / "empty.pem"
    locked.write_bytes(pem_of(key, serialization.BestAvailableEncryption(b"secret")))  # type: ignore[arg-type]
    empty.write_bytes(b"")
    gone = str(folder / "gone.pem")
    server_only = authority.issue_words("cachee://web-1", server_only=True, file="server-only")
    return {
        "no such file": (Files(gone, good.key, good.ca), f"{gone}: cannot be read: No such file"),
        "no certificate in it": (
            Files(str(empty), good.key, good.ca),
            f"{empty}: it holds no certificate in",
        ),
        "no key in it": (
            Files(good.cert, good.cert, good.ca),
            f"{good.cert}: it holds no private key in PEM",
        ),
        "no ca in it": (Files(good.cert, good.key, good.key), f"{good.key}: it holds no certificate in PEM"),
        "another's key": (Files(good.cert, other.key, good.ca), "key values mismatch"),
        "key with a passphrase": (Files(good.cert, str(locked), good.ca), "accepted: PEM files"),
        "another ca": (Files(good.cert, good.key, other.ca), f"certificate {good.cert}: "),
        "for servers only": (server_only, f"certificate {server_only.cert}: "),
        "no host in it": (authority.issue_words(file="nameless"), "names no host"),
        "unreadable word": (authority.issue_words("cachee://a/b/c", file="bad-word"), "is not valid"),
    }


def test_what_cannot_be_used_is_refused_before_any_peer_sees_it(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    for kind, (files, told) in faults(authority, stranger, tmp_path).items():
        with pytest.raises(ConfigError) as caught:
            load(files)
        assert told in str(caught.value), kind
        assert "\n" not in str(caught.value), kind


def test_nobody_is_asked_for_a_passphrase(authority: Authority, tmp_path: Path) -> None:
    """OpenSSL asks at the terminal, and a daemon would wait there for ever."""
    locked, _ = faults(authority, authority, tmp_path)["key with a passphrase"]
    program = (
        "from cachee_bridge.carriers.tls import *\n"
        f"try: load({locked!r})\nexcept Exception as error: print(error)"
    )
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", program])
    told = b""
    with contextlib.suppress(OSError):  # the other end of a terminal is gone
        while b"pass phrase" not in told and (piece := os.read(terminal, 4096)):
            told += piece
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"without a passphrase" in told


def test_a_bundle_of_two_cas_believes_both(authority: Authority, stranger: Authority, tmp_path: Path) -> None:
    bundle = tmp_path / "both.pem"
    bundle.write_bytes(authority.ca.read_bytes() + stranger.ca.read_bytes())
    old = authority.issue("web-1", not_after=TOMORROW)
    new = stranger.issue("web-2")
    dialler, acceptor = pair(Files(old.cert, old.key, str(bundle)), Files(new.cert, new.key, str(bundle)))
    carry(dialler, acceptor)
    assert dialler.identity is not None
    assert dialler.identity.limits("web-2") is None
