"""Sends this host's rings: each link has an outbox for each shared namespace, with a cursor."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cachee_bridge.streams.buckets import PIECE_BYTES, is_piece
from cachee_bridge.streams.stream import Outbox
from cachee_bridge.wire.frames import VERSION
from cachee_bridge.wire.messages import Frame, Sync

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.routing.relaying import Relaying
    from cachee_bridge.sources.members import Members
    from cachee_bridge.streams.stream import Healed


class Sending:
    def __init__(self, name: str, namespaces: Namespaces, relaying: Relaying, effects: Collected) -> None:
        self._name, self._namespaces, self._relaying = name, namespaces, relaying
        self._say, self._effects = effects.say, effects

    def begin(self, link: Link, members: Members) -> None:
        """A new outbox for this namespace. Nothing is sent until the peer asks."""
        namespace = members.namespace
        link.unconfirmed.discard(namespace)
        packer = self._namespaces.packers[namespace]
        link.outboxes[namespace] = Outbox(namespace, self._name, members.store, packer)

    def forward(self, namespace: str, links: Collection[Link], max_records: int) -> int:
        """Heal some more of the ring, and send it to `links`. Returns the healed position.

        Most often all peers have been sent the same, and there is room: then one frame is made for all.
        """
        healed = self._namespaces.packers[namespace].heal(max_records)
        whole = healed.to == healed.healed > healed.cursor
        wanted = self._namespaces.members[namespace].store.sync_asked()
        frame = healed.frame if whole else b""
        takers: list[Link] = []
        for link in links:
            outbox = link.outboxes.get(namespace)
            if outbox is None:
                continue
            if frame and link.version == VERSION and not link.out and link.room() and outbox.takes(healed):
                takers.append(link)
            elif whole and not frame:
                link.hungry[namespace] = None  # its cursor passes them with the next frame or beat
            else:
                self.pump(link, namespace)
        if takers:
            self._send_each(takers, namespace, healed)
        if wanted:
            for link in links:
                if link.acked.get(namespace, 0) < wanted:
                    self.ask_cursor(link, namespace, wanted)
        return healed.healed

    def _send_each(self, links: list[Link], namespace: str, healed: Healed) -> None:
        """Send the frame of `healed`; after it these peers lack nothing of this ring."""
        for link in links:
            link.beat_schedule.sent()
            if link.hungry:
                link.hungry.pop(namespace, None)
            if link.blank:
                link.blank.pop(namespace, None)
            link.stirred.add(namespace)
            if namespace not in link.unconfirmed and healed.to > link.acked.get(namespace, 0):
                link.unconfirmed.add(namespace)
        self._effects.send_each(links, healed.frame)

    def pump(self, link: Link, namespace: str | None = None) -> None:
        """Send what the peer lacks of `namespace`, while there is room. Without `namespace`: what it lacks of
        each namespace that had no room before, in turn, then of the sources that are relayed to it.

        Records that were sent before are charged to the peer's budget, because it asked for them again.
        """
        if namespace is not None:
            if namespace not in link.outboxes:
                return
            link.hungry[namespace] = None
        while link.hungry and link.room():
            turn = next(iter(link.hungry)) if namespace is None else namespace
            del link.hungry[turn]
            if turn not in link.outboxes:
                continue
            outbox = link.outboxes[turn]
            again, scanned = outbox.again, outbox.scanned
            frame = self._next(link, outbox)
            link.throttle.budget.owe(max(0, min(outbox.scanned, outbox.looked) - scanned))
            if frame is not None:
                link.send(frame)
                link.beat_schedule.sent()
                if again:
                    link.throttle.budget.owe(PIECE_BYTES if is_piece(frame.payload) else len(frame.payload))
                link.hungry[turn] = None
                link.stirred.add(turn)
                if outbox.carried > link.acked.get(turn, 0):
                    link.unconfirmed.add(turn)
            elif outbox.scanned > outbox.cursor:
                link.blank[turn] = None
            if namespace is not None and namespace not in link.hungry:
                break
        if namespace is None:
            self._relaying.pump(link)

    def _next(self, link: Link, outbox: Outbox) -> Frame | None:
        lapped = outbox.lapped
        frame = outbox.next()
        if outbox.lapped != lapped and frame is not None:
            what = "a map of buckets" if is_piece(frame.payload) else "one record for all"
            text = f"{link.name}, namespace {frame.namespace}: lapped; {what} stands for"
            self._say("info", f"{text} {frame.first}..{frame.last}", peer=link.name)
        return frame

    def send_empty(self, link: Link) -> None:
        """Send the ranges in which this host announced nothing, so that the peer's cursor passes them."""
        blank, link.blank = link.blank, {}
        for namespace in blank:
            outbox = link.outboxes.get(namespace)
            if outbox is not None and (frame := outbox.empty()) is not None:
                link.stirred.add(namespace)
                link.send(frame)

    def ask_cursor(self, link: Link, namespace: str, wanted: int) -> None:
        """Ask for the peer's cursors at once, if it was sent `wanted`, for which some worker waits."""
        outbox = link.outboxes.get(namespace)
        lacks = outbox is not None and link.acked.get(namespace, 0) < wanted <= outbox.cursor
        if lacks and link.asked.get(namespace) != wanted:
            link.asked[namespace] = wanted
            link.send(Sync())
