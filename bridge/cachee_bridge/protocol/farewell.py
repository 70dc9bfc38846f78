"""What this host says when it leaves for good: the final head of each of its rings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.wire.messages import ROWS_MAX, FinalHead, Leave

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.protocol.namespaces import Namespaces
    from cachee_bridge.protocol.sending import Sending


class Farewell:
    def __init__(self, namespaces: Namespaces, sending: Sending) -> None:
        self._namespaces, self._sending = namespaces, sending
        self._finals: dict[str, FinalHead] = {}
        """By namespace, once this host leaves."""
        self.begun = False
        """This host leaves: it does not dial and takes no new link."""

    def begin(self) -> None:
        """What is in the rings now is the last of it."""
        self.begun = True
        self._finals = {
            namespace: FinalHead(namespace, members.store.incarnation, members.store.tail)
            for namespace, members in self._namespaces.members.items()
        }

    def say(self, link: Link) -> None:
        """Send the rest of the rings, then LEAVE with their final heads."""
        self._sending.pump(link)
        self._sending.send_empty(link)
        allowed = self._namespaces.is_allowed_here
        told = (ns for ns in sorted(self._finals) if allowed(ns) and link.allows(ns))
        finals = [self._finals[ns] for ns in told]  # also where the peer refuses this host
        for at in range(0, max(len(finals), 1), ROWS_MAX):
            link.send(Leave("leaves for good", tuple(finals[at : at + ROWS_MAX])))

    def unacked(self, link: Link) -> bool:
        """Whether the peer has not yet applied all up to the final heads."""
        finals = [(ns, final) for ns, final in self._finals.items() if ns in link.shared]
        return any(link.acked.get(namespace, -1) < final.head for namespace, final in finals)
