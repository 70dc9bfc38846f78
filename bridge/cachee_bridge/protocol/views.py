"""What people see of the mesh: peers, their streams, namespaces, discovery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachee_bridge.ports.views import DiscoveryView, NamespaceView, PeerView, Refusal, StreamView

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.belonging import Belonging
    from cachee_bridge.protocol.isolation import Isolation
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.protocol.paths import Paths
    from cachee_bridge.protocol.presence import Presence
    from cachee_bridge.protocol.readiness import Readiness
    from cachee_bridge.protocol.session import Session


class Views:
    """For logs, the operator's socket and health."""

    def __init__(
        self,
        links: LinkTable,
        session: Session,
        book: AddressBook,
        paths: Paths,
        presence: Presence,
        isolation: Isolation,
        belonging: Belonging,
        readiness: Readiness,
        ends: LinkEnds,
    ) -> None:
        self._links, self._session, self._book = links, session, book
        self._paths, self._presence, self._isolation = paths, presence, isolation
        self._belonging, self._readiness = belonging, readiness
        self._failures, self._refusals = ends.failures, ends.refusals

    def tally(self) -> tuple[int, int]:
        """How many peers are up, of how many that `peers` would name, but for this host itself."""
        up = self._links.up
        names = self._session.namespaces.missed().union(up)
        others = (known for known in self._book.table if not known.is_self)
        return len(up), len(names) + sum(known.name not in names for known in others)

    def peers(self) -> list[PeerView]:
        """Linked peers, members, and addresses that lead to neither."""
        names = self._session.namespaces.missed().union(self._links.up)
        views = [self._peer(name) for name in sorted(names)]
        for known in self._book.table:
            if known.name is None or known.name not in names:
                state = "self" if known.is_self else "connecting" if known.dialling else "waiting"
                failure = "" if known.is_self else self._failures.get(known.address, "")
                views.append(PeerView(known.name or "", known.address, state, failure=failure))
        return views

    def namespaces(self, now: float) -> list[NamespaceView]:
        """Until when each may be served, and why not longer."""
        return self._isolation.views(now, self._paths.reaches)

    def discovery(self) -> DiscoveryView | None:
        """None where peers are configured."""
        return self._belonging.discovery_view()

    def refusals(self) -> list[Refusal]:
        """Peers that proved who they are, or were linked, and whose link was closed for an error."""
        return list(self._refusals.values())

    def unmet(self) -> list[str]:
        """Hosts that this host knows of and has not met since its start; empty from when all were met."""
        return self._readiness.unmet()

    def _peer(self, name: str) -> PeerView:
        link = self._links.up.get(name)
        address = (link.address or link.reach) if link is not None else self._book.table.of(name)
        inbound, held = (not link.dialled, link.throttle.times_held) if link is not None else (False, 0)
        through = "" if link is not None else self._paths.relayed.get(name, "")
        state = "up" if link else "relayed" if through else "down"
        since = self._presence.since(name)
        heard_at = link.heard_at if link is not None else self._session.namespaces.heard_at(name)
        streams, wire = self._streams(name, link), link.version if link is not None else 0
        failure = self._failure(name) if link is None else ""
        region = self._paths.regions.get(name, "")
        return PeerView(
            *(name, address, state, since, inbound, through, held, streams, heard_at, failure, wire, region)
        )

    def _failure(self, name: str) -> str:
        """Why none of its addresses leads to a link."""
        failures = (self._failures.get(known.address, "") for known in self._book.table.at(name))
        return next(filter(None, failures), "")

    def _streams(self, name: str, link: Link | None) -> dict[str, StreamView]:
        """Both directions, of the namespaces where `name` is a member."""
        views, session = {}, self._session
        for namespace in sorted(session.namespaces.register.members.get(name, ())):
            members = session.namespaces.members[namespace]
            inbox = members.sources[name]
            acked = session.acknowledgements.of_own_ring.get((namespace, name), 0)
            acked = max(acked, link.acked.get(namespace, 0)) if link is not None else acked
            outbox = link.outboxes.get(namespace) if link is not None else None
            views[namespace] = StreamView(
                inbox.incarnation,
                inbox.cursor,
                inbox.head,
                acked,
                members.store.tail - acked,
                inbox.freshness.at,
                inbox.repairs.copy(),
                outbox.lapped if outbox is not None else 0,
            )
        return views
