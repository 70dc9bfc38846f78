"""The checks of fields: what fits comes back as the message holds it, and all else is a FrameError."""

import re

import pytest

from cachee_bridge.wire.fields import (
    KNOWN_MAX,
    address,
    integer,
    list_of,
    matching,
    octets,
    one_of,
    row,
    text,
)
from cachee_bridge.wire.messages import PeerAddress
from cachee_shm.errors import FrameError

WEB = matching(re.compile("web-[0-9]+"), "a web host")


@pytest.mark.parametrize(
    ("check", "value", "held"),
    [
        (integer(1, 9), 1, 1),
        (integer(1, 9), 9, 9),
        (octets(2, 3), b"ab", b"ab"),
        (octets(2, 3), b"abc", b"abc"),
        (text(3), "abc", "abc"),
        (WEB, "web-12", "web-12"),
        (one_of("none", "secret"), "secret", "secret"),
        (address(may_lack_host=False), "web-1:65535", "web-1:65535"),
        (address(may_lack_host=False), "[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
        (address(may_lack_host=True), ":7946", ":7946"),
        (address(may_lack_host=True), "", ""),
        (list_of(integer(0, 9), 1, 2), [1], (1,)),
        (list_of(integer(0, 9), 1, 2), [1, 2], (1, 2)),
        (row(PeerAddress, WEB, text(9)), ["web-1", "x"], PeerAddress("web-1", "x")),
    ],
)
def test_what_fits_comes_back_as_the_message_holds_it(check, value, held):
    got = check(value)
    assert (type(got), got) == (type(held), held)


@pytest.mark.parametrize(
    ("check", "values", "why"),
    [
        (integer(1, 9), [0, 10, True, 1.0, "1", None], "not an integer of 1..9"),
        (octets(2, 3), [b"a", b"abcd", "ab", None], "not 2..3 bytes"),
        (text(3), ["abcd", b"abc", 3, "\x1b[2", "a\n"], "not a printable text of up to 3"),
        (WEB, ["web-", "web-1x", "", b"web-1", None], "not a web host"),
        (one_of("none", "secret"), ["", "other", None], "not one of"),
        (one_of(1, 2), [True, 1.0], "not one of"),
        (address(may_lack_host=False), ["", ":7946", "web-1", b"web-1:1", None], "not an address"),
        (address(may_lack_host=True), [":", "web 1:1", ":0"], "not an address"),
        (list_of(integer(0, 9), 1, 2), [[], [1, 2, 3], (1,), {}, None], "not a list of 1..2"),
        (list_of(integer(0, 9), 1, 2), [[10]], "not an integer"),
        (row(PeerAddress, WEB, text(9)), [["web-1"], ["web-1", "x", 1], ("web-1", "x")], "not 2 fields"),
        (row(PeerAddress, WEB, text(9)), [["x", "x"]], "not a web host"),
    ],
)
def test_all_else_is_refused_with_what_it_is_not(check, values, why):
    for value in values:
        with pytest.raises(FrameError, match=why):
            check(value)


@pytest.mark.parametrize("port", ["", "0", "65536", "port", "-1", "7946 "])
def test_an_address_needs_a_port_of_the_network(port):
    for may_lack_host in (False, True):
        with pytest.raises(FrameError):
            address(may_lack_host)(f"web-1:{port}")


def test_a_text_that_has_matched_is_not_matched_again_and_a_bounded_number_of_them_is_remembered():
    class Counting:
        calls = 0

        def fullmatch(self, value):
            self.calls += 1
            return re.fullmatch("[0-9]+", value)

    pattern = Counting()
    check = matching(pattern, "a number")
    for number in range(KNOWN_MAX):
        check(str(number))
    check(str(KNOWN_MAX - 1))
    assert pattern.calls == KNOWN_MAX
    check("9999")
    check("9999")
    assert pattern.calls == KNOWN_MAX + 2
