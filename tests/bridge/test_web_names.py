"""By which names a request may call this host."""

from __future__ import annotations

import pytest

from cachee_bridge.http.hosts import OwnNames

OWN = OwnNames(["web-1", "Cachee.Example.ORG", ""])


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:9947", "web-1", "web-1.:1", "cachee.example.org:65535"),
        *("127.0.0.1", "192.0.2.1:80", "[::1]", "[2001:db8::1]:9947", "[fe80::1%eth0]:1", " web-1 "),
    ],
)
def test_an_address_and_the_names_of_this_host_are_accepted(host: str) -> None:
    assert OWN(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", ":80", "evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1", "web-1:port"),
        *("[::1].evil.example", "[evil.example]", "[::1", "::1", "localhost@evil.example", "web-1/"),
        *("127.0.0.1 evil.example", "web-1, evil.example", "2130706433", "0x7f.1", "web-1:80:90"),
    ],
)
def test_any_other_name_is_refused(host: str) -> None:
    assert not OWN(host)
