"""What this host does when a peer names its namespaces, in STATE.

    both have it and agree    it is shared: an outbox is made, and the peer is asked for what comes after the
                              cursor
    a hash key or a segment   it is refused: no record of it passes between the two, and it isolates
      does not fit
    the peer lacks it         if the peer was a member, all that it wrote is lost: everything is evicted,
                              once; likewise if it may have been one in a boot of which this host never heard
                              (sources/boots.py)

The last STATE of a handshake has fewer than ROWS_MAX rows: what no row names, the peer lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.wire.messages import GONE, UNSERVED, NamespaceState, Replay

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.protocol.beats import Beats
    from cachee_bridge.protocol.contacts import Contacts
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.sending import Sending
    from cachee_bridge.routing.following import Following
    from cachee_bridge.sources.boots import Boots
    from cachee_bridge.sources.members import Members

NAMESPACES_MAX = 8192
"""Of one peer: some 3 MiB. A host with more namespaces has at least 16 GiB of segments; only the surplus is
refused."""
NO_ROW = NamespaceState("", 1, 0, 1)


class Meeting:
    def __init__(
        self,
        namespaces: Namespaces,
        boots: Boots,
        links: LinkTable,
        contacts: Contacts,
        sending: Sending,
        beats: Beats,
        following: Following,
        say: Say,
    ) -> None:
        self._namespaces, self._boots = namespaces, boots
        self._links, self._contacts = links, contacts
        self._sending, self._beats, self._following, self._say = sending, beats, following, say

    def meet(
        self, link: Link, row: NamespaceState, stamp: float | None, now: float, known: bool = False
    ) -> None:
        """Begin or continue to follow one namespace of the peer, and ask for the records after the cursor.

        `stamp`: when this host sent something that had reached the peer before it sent `row`. `known`: up to
        the tail of `row`, none of the peer's writes has an unknown outcome.
        """
        members = self._namespaces.members.get(row.namespace)
        if members is not None:
            self._namespaces.touch(row.namespace)
        if row.namespace not in link.theirs and len(link.theirs) >= NAMESPACES_MAX:
            self._on_surplus(link, row.namespace, members)
            return
        if (row.fingerprint, row.incarnation) == (UNSERVED, GONE):
            self._on_gone(link, row.namespace, now)
            return
        link.theirs[row.namespace] = row
        if members is None or not self._namespaces.is_allowed_here(row.namespace):
            return
        if row.fingerprint == UNSERVED:
            self._contacts.refuse(link, members, Reason.UNSERVED, "its bridge cannot open its segment")
            return
        if row.fingerprint != members.store.hash_key_fingerprint:
            self._contacts.refuse(link, members, Reason.HASH_KEY, "its hash key differs")
            return
        if self._contacts.make(link, members, row.incarnation, row.tail, now, known):
            self._share(link, members, row, stamp, now)

    def _share(
        self, link: Link, members: Members, row: NamespaceState, stamp: float | None, now: float
    ) -> None:
        link.beat_schedule.came()
        if row.namespace not in link.shared:
            link.share(row.namespace)
            self._sending.begin(link, members)
        if link.name in members.refused:
            self._beats.beat(link, now)  # the beat's cursor tells the peer which incarnation is known here
            return
        inbox = members.sources[link.name]
        inbox.linked()
        inbox.head_heard(row.tail, stamp)
        if link.name in link.follows:
            link.send(Replay(row.namespace, link.name, inbox.incarnation, inbox.cursor + 1))
        else:
            self._following.distrust(link.name, now)

    def _on_surplus(self, link: Link, namespace: str, members: Members | None) -> None:
        """The peer has more namespaces than are remembered: only the surplus is refused."""
        if not link.surplus:
            text = f"{link.name} has more than {NAMESPACES_MAX} namespaces; {namespace} and more are refused"
            self._say("error", text, peer=link.name, namespace=namespace)
        link.surplus = True
        if members is not None:
            members.refuse(link.name, Reason.SURPLUS)

    def entered(self, link: Link, namespace: str) -> None:
        """`namespace` has come to this host; what the peer may have told of it was not remembered if it was
        beyond the bound."""
        if link.surplus and namespace not in link.theirs:
            self._namespaces.members[namespace].refuse(link.name, Reason.SURPLUS)

    def look_for_room(self, now: float) -> None:
        """Meet peers again for which the table of sources had no room: a source may have left since."""
        for namespace in self._contacts.take_crowded():
            members = self._namespaces.members[namespace]
            for link in list(self._links.up.values()):
                if members.refused.get(link.name) is Reason.NO_ROOM and namespace in link.theirs:
                    self.meet(link, link.theirs[namespace], None, now)

    # Namespaces that the peer lacks

    def _on_gone(self, link: Link, namespace: str, now: float) -> None:
        """The peer could not open its segment, and it was removed there since."""
        if link.theirs.get(namespace, NO_ROW).fingerprint == UNSERVED:
            del link.theirs[namespace]
            if namespace in self._namespaces.members and link.told_all:
                self._drop_absent(link, [namespace], now)

    def drop_absent(self, link: Link, now: float) -> None:
        """The peer has named all its namespaces. Where it is a member of another one, its segment is gone and
        with it the only record of what it wrote last: everything is evicted here, once. So it is where the
        peer may have been a member in a boot of which this host never heard."""
        self._drop_absent(link, list(self._namespaces.members), now)

    def _drop_absent(self, link: Link, namespaces: Iterable[str], now: float) -> None:
        earlier = self._boots.earlier(link.name, link.instance)
        for namespace in namespaces:
            members = self._namespaces.members[namespace]
            allowed_here = self._namespaces.is_allowed_here(namespace)
            if namespace in link.theirs or link.surplus or not allowed_here:
                continue
            if not link.allows(namespace):
                self._drop_excluded(link, members)
            elif members.drop_absent(link.name, now, earlier):
                self._namespaces.touch(namespace)
                text = f"{link.name} does not have namespace {namespace}, and may have had it before: "
                text += "evicted all that it may have written there, and it is not waited for"
                self._say("info", text, peer=link.name, namespace=namespace)

    def _drop_excluded(self, link: Link, members: Members) -> None:
        namespace = members.namespace
        if link.name in members.sources:
            self._namespaces.touch(namespace)
            members.refuse(link.name, Reason.CERTIFICATE)
            text = f"its certificate no longer allows namespace {namespace}: isolated here"
            self._say("warning", f"{link.name}: {text}", peer=link.name, namespace=namespace)
