"""What people see of one peer: its streams in both directions, by namespace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cachee_bridge.ports.views import StreamView

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.protocol.session import Session


def streams_of(session: Session, name: str, link: Link | None) -> dict[str, StreamView]:
    """Of the namespaces where `name` is a member; `link`: to it, if one is up."""
    views = {}
    for namespace in sorted(session.register.members.get(name, ())):
        members = session.members[namespace]
        inbox = members.sources[name]
        acked = session.relaying.acks.get((namespace, name), 0)
        acked = max(acked, link.acked.get(namespace, 0)) if link is not None else acked
        outbox = link.outboxes.get(namespace) if link is not None else None
        views[namespace] = StreamView(
            inbox.incarnation,
            inbox.cursor,
            inbox.head,
            acked,
            members.store.tail - acked,
            inbox.freshness.at,
            replace(inbox.repairs),
            outbox.lapped if outbox is not None else 0,
        )
    return views
