"""Why a namespace is isolated, and what ends that. README.md has the same as a table, with a test for each.

All code that keeps `serve_until` from advancing names one of these: members.py for a source and for this
host, isolation.py for expected addresses that have not answered. Time alone never ends any of them.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Reason(Enum):
    """The value is the row's name in the table."""

    SILENT = "silent"
    BEHIND = "behind"
    UNANSWERED = "unanswered"
    DISCOVERY = "discovery"
    BACKWARDS = "backwards"
    HASH_KEY = "hash key"
    UNSERVED = "unserved"
    NO_ROOM = "no room"
    SURPLUS = "surplus"
    CERTIFICATE = "certificate"
    OWN_CERTIFICATE = "own certificate"
    OWN_PUMP = "own pump"
    REMOVAL = "removal"

    def end(self, who: str) -> str:
        """What ends it, for people. `who`: the peer or the address."""
        return ENDS[self].format(who=who)


ENDS = {
    Reason.SILENT: "ends when {who} is linked again, or by `cachee peers forget {who}` if it is dead",
    Reason.BEHIND: "ends by itself when all that {who} announced is applied",
    Reason.UNANSWERED: "ends when a host answers there, or by `cachee peers forget {who}` if none is",
    Reason.DISCOVERY: "ends when {who} answers; see the name server",
    Reason.BACKWARDS: "ends by itself when {who} has drawn a higher incarnation, which it was asked to",
    Reason.HASH_KEY: "give both hosts the same hash_key, or both none, and make the segment of one anew",
    Reason.UNSERVED: "ends by itself when {who}'s bridge can open its segment; its log says why it cannot",
    Reason.NO_ROOM: "forget dead hosts (`cachee peers forget NAME`), or give the namespace more memory",
    Reason.SURPLUS: "let {who} have fewer namespaces, and restart its bridge",
    Reason.CERTIFICATE: "give {who} a certificate that allows the namespace, and restart its bridge",
    Reason.OWN_CERTIFICATE: "give this host a certificate that allows the namespace, and restart its bridge",
    Reason.OWN_PUMP: "ends by itself when this bridge has healed its own ring; restart it if it hangs",
    Reason.REMOVAL: "ends by itself when what was loaded before is not served any more (isolation_ttl)",
}


class Why(NamedTuple):
    """One reason for which a namespace is isolated, for people."""

    reason: Reason
    who: str
    """The peer or the address; "" where it is this host itself."""

    @property
    def end(self) -> str:
        return self.reason.end(self.who)
