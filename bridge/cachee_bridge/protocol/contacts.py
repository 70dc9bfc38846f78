"""Contact with a peer in one namespace: from where its ring is followed, or why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.ports.reasons import Reason
from cachee_bridge.sources.boots import Earlier
from cachee_bridge.streams.repair import Rung
from cachee_shm.errors import SegmentError

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.ports.effects import Say
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.sources.boots import Boots
    from cachee_bridge.sources.members import Members
    from cachee_bridge.streams.stream import Inbox


class Contacts:
    def __init__(self, namespaces: Namespaces, boots: Boots, say: Say) -> None:
        self._namespaces, self._boots, self._say = namespaces, boots, say
        self._crowded: set[str] = set()
        """Namespaces whose table of sources had no room for some peer."""

    def take_crowded(self) -> list[str]:
        """Namespaces whose table of sources had no room for some peer since the last call."""
        crowded, self._crowded = self._crowded, set()
        return sorted(crowded)

    def follow(self, link: Link, members: Members, incarnation: int, tail: int, now: float) -> Inbox | None:
        """The peer's inbox, after it named this incarnation and tail of its ring. A higher incarnation is
        adopted. None if the peer is not followed in this namespace."""
        known = members.cursor(link.name)
        if known is None:
            return None
        news = incarnation > known[0] or (link.name not in members.sources and (incarnation, tail) > known)
        if news and not self.make(link, members, incarnation, tail, now):
            return None
        return members.sources.get(link.name)

    def make(
        self,
        link: Link,
        members: Members,
        incarnation: int,
        tail: int,
        now: float,
        known: bool = False,
    ) -> bool:
        """Climb the repair ladder for the peer. False if the namespace cannot be shared with it at all.

        `known`: up to `tail`, none of its writes has an unknown outcome.

        A ring whose incarnation is lower than the known one is not followed, but the namespace stays shared.
        The cursor in the next beat then tells the peer which incarnation is known here.
        """
        is_late = link.was_late or self._boots.earlier(link.name, link.instance) is Earlier.MISSED
        try:
            step = members.meet(link.name, incarnation, tail, now, is_late, known)
        except SegmentError as error:
            self._crowded.add(members.namespace)
            self.refuse(link, members, Reason.NO_ROOM, str(error))
            return False
        what = f"{link.name}, namespace {members.namespace}, incarnation {incarnation}, tail {tail}"
        if step.rung is Rung.IMPOSSIBLE:
            applied = members.cursor(link.name)
            if members.refused.get(link.name) is not Reason.BACKWARDS:
                text = f"{what}: {applied} of it is applied here already; refused until it has a higher one"
                self._say("warning", text, peer=link.name, namespace=members.namespace)
            members.refuse(link.name, Reason.BACKWARDS)
            return True
        members.refused.take(link.name)
        if step.rung is Rung.FLUSH:
            level = "info" if members.horizon.starting else "warning"
            self._say(level, f"{what}: what it wrote before is unknown here; evicted all", peer=link.name)
        elif step.rung is Rung.FROM_BIRTH:
            self._say("info", f"{what}: new, followed from its first record", peer=link.name)
        return True

    def refuse(self, link: Link, members: Members, reason: Reason, why: str) -> None:
        """The namespace is no longer shared with this peer."""
        members.refuse(link.name, reason)
        link.unshare(members.namespace)
        link.outboxes.pop(members.namespace, None)
        text = f"namespace {members.namespace} of {link.name} is refused, and isolated here: {why}; "
        text += reason.end(link.name)
        self._say("error", text, peer=link.name, namespace=members.namespace)
