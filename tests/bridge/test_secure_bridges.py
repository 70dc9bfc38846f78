"""Bridges that prove who they are: real processes, real certificates, and attacks on them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachee_bridge.__main__ import EXIT_CONFIG
from cachee_bridge.carriers.tls import Files
from cachee_bridge.wire.frames import FRAME_BYTES_MAX, VERSION_MIN, Decoder, encode
from cachee_bridge.wire.messages import (
    MAGIC,
    FinalHead,
    Frame,
    Hello,
    Leave,
    Message,
    NamespaceState,
    Replay,
    State,
    Sync,
)
from cachee_shm.ports import free_ports
from tests.bridge.certificates import YESTERDAY, Authority, table
from tests.bridge.hosts import WAIT_S, Host, hosts, until
from tests.bridge.relay import Relay, flipped, relay
from tests.bridge.test_two_bridges import closed, fill, isolated, meet, tell

KEYS = [f"k{number}" for number in range(100)]
ALL = b"\x05"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def certify(host: Host, files: Files) -> None:
    host.config.write_text(host.config.read_text() + table(files))


@pytest.fixture
def pair(tmp_path: Path, authority: Authority) -> Iterator[list[Host]]:
    """Two hosts with certificates, not started."""
    with hosts(tmp_path) as both:
        for host in both:
            certify(host, authority.issue(host.name))
        yield both


def said(host: Host, *parts: str) -> None:
    """One line of the host's log has all the parts."""

    def found() -> bool:
        return any(all(part in line for part in parts) for line in host.log.splitlines())

    until(found, f"{parts} at {host.name}")


def has_linked(one: Host, other: Host) -> bool:
    return f"{other.name} is up" in one.log


# Who is let in


def test_hosts_with_certificates_of_one_ca_agree(pair: list[Host]) -> None:
    meet(*pair)
    tell(pair[0], pair[1])
    tell(pair[1], pair[0])


def test_certificates_and_a_secret_together(pair: list[Host], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sixteen bytes and some more\n")
    for host in pair:
        host.config.write_text(
            host.config.read_text().replace("[bridge]", f'[bridge]\nsecret_file = "{secret}"')
        )
    meet(*pair)
    tell(pair[0], pair[1])
    tell(pair[1], pair[0])


def test_with_a_certificate_a_bridge_may_listen_to_the_network(pair: list[Host]) -> None:
    pair[0].config.write_text(pair[0].config.read_text().replace('"127.0.0.1:', '":', 1))
    meet(*pair)
    tell(pair[0], pair[1])


def test_a_certificate_for_another_name_is_refused_at_the_start(
    pair: list[Host], authority: Authority
) -> None:
    text = pair[0].config.read_text()
    pair[0].config.write_text(
        text.replace(f"{pair[0].name}.pem", "other.pem").replace(f"{pair[0].name}.key", "other.key")
    )
    authority.issue("other")
    assert pair[0].run().wait(WAIT_S) == EXIT_CONFIG
    said(pair[0], "found 'other'; accepted: one for", pair[0].name)


Fault = Callable[[Host, Authority], None]


def has_run_out(host: Host, authority: Authority) -> None:
    certify(host, authority.issue(host.name, not_after=YESTERDAY))


def is_of_another_ca(host: Host, authority: Authority) -> None:
    certify(host, Authority(authority.folder / f"of {host.name}").issue(host.name))


def is_of_another_ca_and_believes_ours(host: Host, authority: Authority) -> None:
    wrong = Authority(authority.folder / f"of {host.name}").issue(host.name)
    bundle = authority.folder / "both.pem"
    bundle.write_bytes(Path(wrong.ca).read_bytes() + authority.ca.read_bytes())
    certify(host, Files(wrong.cert, wrong.key, str(bundle)))


def speaks_no_tls(host: Host, authority: Authority) -> None:
    pass


REFUSED, REFUSED_ME = "the other end's certificate is refused: ", "the other end refuses this host's TLS: "
NO_TLS, TLS_HERE = "the other end speaks no TLS", "the other end speaks TLS, and this host does not"
FAULTS: dict[Fault, tuple[str, str, str]] = {
    # what a good host says that dials the faulty one, or is dialled by it; and what the faulty one that dials
    has_run_out: (f"{REFUSED}certificate has expired",) * 2 + (f"{REFUSED_ME}certificate expired",),
    is_of_another_ca: (REFUSED, f"{REFUSED_ME}unknown ca", REFUSED),
    is_of_another_ca_and_believes_ours: (REFUSED, REFUSED, f"{REFUSED_ME}unknown ca"),
    speaks_no_tls: (NO_TLS, NO_TLS, TLS_HERE),
}


def test_a_peer_that_cannot_prove_itself_is_kept_out_and_both_sides_say_why(
    tmp_path: Path, authority: Authority
) -> None:
    """All dial each other."""
    with hosts(tmp_path, 1 + len(FAULTS)) as (good, *faulty):
        certify(good, authority.issue(good.name))
        for host, fault in zip(faulty, FAULTS, strict=True):
            fault(host, authority)
        for host in (good, *faulty):
            host.start()
        for host, (dialling, dialled, at_the_other_end) in zip(faulty, FAULTS.values(), strict=True):
            said(good, f"127.0.0.1:{host.port} ", dialling)
            said(good, "turned away a link from 127.0.0.1:", dialled)
            said(host, f"127.0.0.1:{good.port} " if at_the_other_end != TLS_HERE else "", at_the_other_end)
            host.attach().delete("k")
        time.sleep(0.3)
        assert good.attach().stats()["applied"] == 0
        assert " is up" not in good.log


def test_a_peer_that_speaks_tls_1_2_is_kept_out(pair: list[Host], authority: Authority) -> None:
    pair[0].start()
    context = client(authority.issue("web-9"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(pair[0].address) as sock,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
    ):
        context.wrap_socket(sock)
    said(pair[0], "turned away a link from 127.0.0.1:", "speaks no TLS 1.3, only older ones")


# What is said of which namespace


def client(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.cert, files.key)
    return context


class Intruder:
    """Who has a certificate and speaks the protocol, and wants something else than a bridge wants."""

    def __init__(self, host: Host, files: Files, name: str, *namespaces: str) -> None:
        self._host, self.name = host, name
        self._decoder = Decoder(FRAME_BYTES_MAX)
        self.socket = client(files).wrap_socket(socket.create_connection(host.address))
        self.socket.settimeout(WAIT_S)
        self.say(Hello(MAGIC, VERSION_MIN, name, 1, os.urandom(32), "none", "", ""))
        self.say(State(tuple(self.row(namespace) for namespace in namespaces)))

    def row(self, namespace: str) -> NamespaceState:
        fingerprint = self._host.attach("shop").hash_key_fingerprint if namespace == "shop" else 1
        return NamespaceState(namespace, 1, 1, fingerprint)

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.socket.sendall(encode(message))

    def hears(self) -> list[Message]:
        """Everything up to the end of the link."""
        heard: list[Message] = []
        with contextlib.suppress(OSError):
            while data := self.socket.recv(65536):
                heard += self._decoder.feed(data)
        return heard


def last_words(heard: list[Message]) -> str:
    return " ".join(message.reason for message in heard if isinstance(message, Leave))


@pytest.fixture
def full(pair: list[Host]) -> Host:
    """One of two hosts that are up, with keys that somebody may want to have evicted."""
    meet(*pair)
    tell(pair[1], pair[0])
    fill(pair[0].attach(), KEYS)
    return pair[0]


def unharmed(host: Host, other: Host | None = None) -> None:
    assert host.attach().get_many(KEYS).keys() == set(KEYS)
    assert not isolated(host.attach())
    if other is not None:
        tell(other, host)


def test_a_host_is_told_of_no_namespace_but_those_of_its_certificate(
    full: Host, pair: list[Host], authority: Authority
) -> None:
    full.attach("news").set("k", 1)
    until(lambda: "new namespace=news" in full.log)
    words = Intruder(full, authority.issue_words("cachee://web-9/news"), "web-9", "news")
    until(lambda: "web-9 is up" in full.log)
    full.attach("news").set("k", 2)
    words.say(Sync())
    time.sleep(0.3)
    words.say(Hello(MAGIC, VERSION_MIN, "web-9", 1, bytes(32), "none", "", ""))  # which ends the link
    heard = words.hears()
    rows = [row.namespace for message in heard if isinstance(message, State) for row in message.namespaces]
    assert rows == ["news"]
    assert "shop" not in repr(heard)
    unharmed(full, pair[1])


WORDS: list[Message] = [
    State((NamespaceState("shop", 1, 1, 0),)),
    Frame("shop", "web-9", 1, 1, 1, ALL),
    Replay("shop", "a", 1, 1),
    Leave("", (FinalHead("shop", 1, 0),)),
]


def test_a_host_that_speaks_of_another_namespace_is_closed_and_nothing_of_it_applied(
    full: Host, pair: list[Host], authority: Authority
) -> None:
    for number, word in enumerate(WORDS):
        name = f"web-{number}"
        intruder = Intruder(full, authority.issue_words(f"cachee://{name}/news"), name, "news")
        until(lambda name=name: f"{name} is up" in full.log)  # type: ignore[misc]
        intruder.say(word)
        why = f"{name} names namespace 'shop', but its certificate allows news"
        assert why in last_words(intruder.hears())
        said(full, why, "nothing of it was applied")
    unharmed(full, pair[1])


def test_a_host_cannot_call_itself_by_anothers_name(
    full: Host, pair: list[Host], authority: Authority
) -> None:
    intruder = Intruder(full, authority.issue("web-9"), pair[1].name, "shop")
    assert "its certificate is for 'web-9'" in last_words(intruder.hears())
    said(full, "it calls itself", pair[1].name, "its certificate is for 'web-9'")
    assert "two live hosts" not in full.log
    unharmed(full, pair[1])


def test_a_host_cannot_speak_for_another(full: Host, pair: list[Host], authority: Authority) -> None:
    """There are no relays: whose name is on the certificate, of whom the frame must be."""
    (incarnation, cursor) = next(
        (incarnation, cursor)
        for _, name, incarnation, cursor in full.attach().sources()
        if name == pair[1].name
    )
    intruder = Intruder(full, authority.issue("web-9"), "web-9", "shop")
    until(lambda: "web-9 is up" in full.log)
    fill(full.attach(), KEYS)  # what meeting it has evicted
    intruder.say(Frame("shop", pair[1].name, incarnation, cursor + 1, cursor + 9, ALL))
    intruder.hears()
    said(full, "closing the link to web-9", f"a Frame of {pair[1].name}")
    assert full.attach().get_many(KEYS).keys() == set(KEYS)
    tell(pair[1], full)


def test_a_peer_that_floods_is_read_more_slowly_and_the_others_are_heard(
    tmp_path: Path, authority: Authority
) -> None:
    with hosts(tmp_path, bridge='peer_budget = "1MiB"') as both:
        for host in both:
            certify(host, authority.issue(host.name))
        meet(*both)
        intruder = Intruder(both[0], authority.issue("web-9"), "web-9")
        until(lambda: "web-9 is up" in both[0].log)
        intruder.socket.settimeout(0.5)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                intruder.say(*[Sync()] * 1000)
        said(both[0], "web-9 is over its peer_budget (1 MiB a second): read more slowly")
        tell(both[1], both[0])
        tell(both[0], both[1])
        assert f"the link to {both[1].name}" not in both[0].log
        intruder.socket.close()


# What is done on the way


@contextlib.contextmanager
def with_somebody_between(
    tmp_path: Path, lines: str, proof: Callable[[Host], None]
) -> Iterator[tuple[Host, Host, Relay]]:
    """Host a dials host b by way of a relay; b dials nobody that has not shown up."""
    run = uuid.uuid4().hex[:8]
    ports = free_ports(2)
    with relay(ports[1]) as between:
        a = Host(tmp_path, f"a-{run}", ports[0], [between.port], lines)
        b = Host(tmp_path, f"b-{run}", ports[1], [], lines)
        try:
            for host in (a, b):
                proof(host)
            meet(a, b)
            yield a, b, between
        finally:
            for host in (a, b):
                host.clean_up()


@pytest.fixture(params=["certificates", "secret"])
def attacked(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority
) -> Iterator[tuple[Host, Host, Relay]]:
    secret = tmp_path / "secret"
    secret.write_text("sixteen bytes and some more\n")
    by_secret = request.param == "secret"
    lines = f'secret_file = "{secret}"' if by_secret else ""

    def proof(host: Host) -> None:
        if not by_secret:
            certify(host, authority.issue(host.name))

    with with_somebody_between(tmp_path, lines, proof) as made:
        yield made


def test_what_is_changed_on_the_way_moves_nothing_and_is_made_good(
    attacked: tuple[Host, Host, Relay],
) -> None:
    a, b, between = attacked
    fill(b.attach(), KEYS)
    between.change = flipped
    a.attach().delete(KEYS[0])
    until(lambda: KEYS[0] not in b.attach().get_many(KEYS))
    until(lambda: between.changed)
    until(lambda: "seal does not fit" in b.log or " TLS: " in b.log)
    tell(a, b)
    tell(b, a)
    assert b.attach().get_many(KEYS).keys() == set(KEYS[1:])


def test_what_was_heard_on_one_link_is_of_no_use_on_another(attacked: tuple[Host, Host, Relay]) -> None:
    a, b, between = attacked
    fill(b.attach(), KEYS)
    a.attach().delete(KEYS[0])
    until(lambda: KEYS[0] not in b.attach().get_many(KEYS))
    heard = bytes(between.kept[0])
    fill(b.attach(), KEYS)
    for part in (heard, heard[: len(heard) // 2], heard[100:]):
        with socket.create_connection(b.address) as stranger:
            stranger.settimeout(WAIT_S)
            with contextlib.suppress(OSError):
                stranger.sendall(part)
                stranger.shutdown(socket.SHUT_WR)
            closed(stranger)
    said(
        b,
        "does not know this host's secret"
        if "secret_file" in b.config.read_text()
        else "turned away a link from",
    )
    assert b.attach().get_many(KEYS).keys() == set(KEYS)
    tell(a, b)


def test_of_hosts_with_certificates_nothing_is_to_be_read_on_the_way(
    tmp_path: Path, authority: Authority
) -> None:
    def proof(host: Host) -> None:
        certify(host, authority.issue(host.name))

    with with_somebody_between(tmp_path, "", proof) as (a, b, between):
        tell(a, b)
        heard = b"".join(bytes(kept) for kept in between.kept)
        assert len(heard) > 1000
        assert a.name.encode() not in heard
        assert b"shop" not in heard


# What is changed while links are up


def replace(files: Files, into: Files) -> None:
    for new, old in ((files.cert, into.cert), (files.key, into.key)):
        shutil.copy(new, f"{old}.new")
        os.replace(f"{old}.new", old)


def one_dials(pair: list[Host]) -> None:
    """The first host alone: when both do, one link takes the place of the other up to a second later."""
    config = pair[1].config
    config.write_text(re.sub(r"(?m)^peers = .*$", "peers = []", config.read_text()))


def links_of(host: Host) -> int:
    return host.log.count(" is up ")


@pytest.mark.parametrize("told", [True, False], ids=["told", "by itself"])
def test_a_certificate_is_renewed_without_a_link_being_dropped(
    pair: list[Host], authority: Authority, told: bool
) -> None:
    one_dials(pair)
    meet(*pair)
    tell(*pair)
    said(pair[0], " is up ")
    links = links_of(pair[0])
    replace(authority.issue(pair[0].name, file="next"), authority_files(pair[0], authority))
    if told:
        pair[0].signal(signal.SIGHUP)
    said(pair[0], "were read again; existing links stay up")
    tell(*pair)
    assert links_of(pair[0]) == links
    with (
        socket.create_connection(pair[0].address) as sock,
        client(authority.issue("web-9")).wrap_socket(sock) as tls,
    ):
        assert tls.getpeercert(binary_form=True) == certificate(authority.folder / "next.pem")
    pair[1].kill()
    meet(pair[1])
    tell(*pair)


def authority_files(host: Host, authority: Authority) -> Files:
    return Files(
        str(authority.folder / f"{host.name}.pem"),
        str(authority.folder / f"{host.name}.key"),
        str(authority.ca),
    )


def certificate(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_a_broken_renewal_is_said_and_the_old_certificate_stays(
    pair: list[Host], authority: Authority
) -> None:
    meet(*pair)
    files = authority_files(pair[0], authority)
    Path(files.cert).write_text("half a file")
    pair[0].signal(signal.SIGHUP)
    said(pair[0], files.cert, "the bridge goes on with what it had read before")
    pair[1].kill()
    meet(pair[1])
    tell(*pair)


def test_a_certificate_that_has_run_out_is_replaced_without_a_restart(
    tmp_path: Path, authority: Authority
) -> None:
    with hosts(tmp_path) as (late, other):
        certify(other, authority.issue(other.name))
        certify(late, authority.issue(late.name, not_after=YESTERDAY))
        for host in (late, other):
            host.start()
        said(late, "certificate has expired; no link comes up until it is replaced")
        said(other, "certificate has expired")
        replace(authority.issue(late.name, file="next"), authority_files(late, authority))
        meet(late, other)
        tell(late, other)


def test_a_secret_is_changed_on_running_hosts_and_no_link_is_dropped(tmp_path: Path) -> None:
    old, new = "the secret before this one\n", "sixteen bytes and some more\n"
    with hosts(tmp_path) as pair:
        for host in pair:
            file = host.folder / "secret"
            file.write_text(old)
            file.chmod(0o600)
            host.config.write_text(host.config.read_text() + f'secret_file = "{file}"\n')
        one_dials(pair)
        meet(*pair)
        tell(*pair)
        for host in pair:
            said(host, " is up ")
        links = [links_of(host) for host in pair]
        for content in (new + old, new):
            for host in pair:
                (host.folder / "secret").write_text(content)
                renewed(host)
                tell(*pair)
        assert [links_of(host) for host in pair] == links
        pair[1].kill()
        meet(*pair)
        tell(*pair)
        assert "does not know" not in pair[0].log + pair[1].log


def renewed(host: Host) -> None:
    before = host.log.count("read again")
    host.signal(signal.SIGHUP)
    until(lambda: host.log.count("read again") > before)
