"""The end of a link: closed by this host, by the peer, by an error on it, or after silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cachee_bridge.ports.effects import Close, Level
from cachee_bridge.ports.views import Refusal
from cachee_bridge.wire.messages import Leave, printable
from cachee_shm.errors import BridgeError, BridgeRunning, PeerConflict

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.membership.addresses import AddressBook
    from cachee_bridge.protocol.belonging import Belonging
    from cachee_bridge.protocol.collected import Collected
    from cachee_bridge.protocol.dialling import Dialling
    from cachee_bridge.protocol.paths import Paths
    from cachee_bridge.protocol.presence import Presence
    from cachee_bridge.protocol.session import Session

REFUSALS_MAX = 64
"""Of peers that proved who they are, whose refusal is kept for people."""
HANDSHAKE_S = 5.0
"""From an open socket to UP. With a round trip of 200 ms and a busy peer, less than 1 s is needed."""


class LinkEnds:
    def __init__(
        self,
        links: LinkTable,
        session: Session,
        book: AddressBook,
        dialling: Dialling,
        paths: Paths,
        belonging: Belonging,
        presence: Presence,
        effects: Collected,
    ) -> None:
        self._links, self._session, self._book, self._dialling = links, session, book, dialling
        self._paths, self._belonging, self._presence, self._effects = paths, belonging, presence, effects
        self.failures = dialling.failures
        self.refusals: dict[str, Refusal] = {}
        """By name, why the last link was closed that a peer had made or was up: an error of the peer's, or
        two hosts of one name."""

    def guarded(self, link: Link, now: float, call: Callable[..., None], *arguments: object) -> None:
        """A BridgeError that `call` raises closes the link, and no other. Not BridgeRunning: another bridge
        has the segments, and this one has to end."""
        try:
            call(*arguments)
        except BridgeRunning:
            raise
        except BridgeError as error:
            serious = link.up or isinstance(error, PeerConflict)  # unknown clients may be thousands
            if link.proven or serious:
                self._refuse(link, str(error), now)
            self.close(link, str(error), now, "error" if serious else "warning" if link.dialled else "debug")

    def close(self, link: Link, reason: str, now: float, level: Level) -> None:
        """Tell the peer why ("" if the peer has closed it), close, and forget the link."""
        if reason:
            self._effects.say(level, f"closing the link to {link}: {reason}", peer=link.name)
            if link.address is not None and not link.up:
                self._dialling.note(link.address, reason)
            link.send(Leave(printable(reason), ()))
        self._effects.send(link)
        self._effects.add(Close(link.number, reason, not (link.dialled or link.proven)))
        self._forget(link, now)

    def closed_by_peer(self, link: Link, reason: str, now: float) -> None:
        """The peer has said that it closes the link."""
        level: Level = "info" if link.up else "warning" if link.dialled else "debug"
        self._effects.say(level, f"{link} closes the link: {reason}", peer=link.name)
        if link.address is not None and not link.up:
            self._dialling.note(link.address, f"the other end says: {reason}")
        self.close(link, "", now, "debug")

    def closed(self, link: Link, reason: str, now: float) -> None:
        """The other end closed the socket, or it failed."""
        if link.up:
            self._effects.say("warning", f"the link to {link} closed: {reason}", peer=link.name)
        failures = self._forget(link, now)
        if link.address is not None and not link.up:
            text = f"{link.address} ended the link before it was up: {reason}"
            self._dialling.note(link.address, f"the other end closed the link before it was up: {reason}")
            self._dialling.complain(link.address, failures, text)

    def close_silent(self, now: float, lost_after_s: float) -> None:
        """Close each link whose peer has been silent for too long, or does not read."""
        for link in list(self._links.by_number.values()):
            reason = link.silent(now, lost_after_s, HANDSHAKE_S)
            if reason is not None:
                self.close(link, reason, now, "warning" if link.up else "debug")

    def _refuse(self, link: Link, reason: str, now: float) -> None:
        before = self.refusals.pop(link.name, None)
        if len(self.refusals) >= REFUSALS_MAX:
            del self.refusals[next(iter(self.refusals))]
        self.refusals[link.name] = Refusal(
            f"{link} ({link.address or link.remote_host})", reason, 1 + (before.times if before else 0), now
        )

    def _forget(self, link: Link, now: float) -> int:
        """How many links dialled at its address have failed in a row; 0 if it was not dialled."""
        link.is_closed = True
        was_up = self._links.remove(link)
        if was_up:
            self._book.reach_changed(link.name)
        failures = 0
        if link.address is not None:
            failures = self._book.failed(link.address, now, (link.remote_host,))
        if was_up:
            self._session.following.unlinked(link)
        self._session.relaying.unlinked(link)
        if link.up and link.name not in self._links.up:
            self._part(link, now)
        return failures

    def _part(self, link: Link, now: float) -> None:
        """The last link to a host has ended."""
        self._presence.parted(link, now)
        self._paths.unlinked(link, now)
        if link.leaving and not self._session.namespaces.is_missed(link.name):
            self._book.left(link.name)
        else:
            self._book.lost(link.name, now)
            if self._paths.wants(link.name):
                self._belonging.lost(now)
