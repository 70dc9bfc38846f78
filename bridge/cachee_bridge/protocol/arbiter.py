"""Which of several links to one name stays.

Two links to one host, which happens when both dial at once: each side keeps the one that the smaller name
dialled. Two hosts under one name: the second is turned away, and the first is asked for a sign of life on its
link. If it gives one and then the second comes again, both are alive, and that is a loud error. If it gives
none, it was a former life of the second, and its link ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachee_bridge.links.stamps import microseconds
from cachee_bridge.links.states import LinkState
from cachee_shm.errors import PeerConflict

if TYPE_CHECKING:
    from cachee_bridge.links.link import Link
    from cachee_bridge.protocol.beats import Beats
    from cachee_bridge.protocol.link_ends import LinkEnds
    from cachee_bridge.wire.messages import Beat, Calm


class Arbiter:
    def __init__(self, beats: Beats, ends: LinkEnds) -> None:
        self._beats, self._ends = beats, ends

    def keeps(self, link: Link, rivals: Sequence[Link], now: float) -> bool:
        """Whether `link` stays beside `rivals`, which have its name. If not, it has been closed."""
        if any(rival.instance != link.instance for rival in rivals):
            self._contest(link, rivals, now)
            return False
        # The acceptor waits for STATE: until then it cannot know that the dialler means this link.
        decided = link.dialled or link.state is LinkState.STATE
        if decided and not all(link.replaces(rival) for rival in rivals):
            self._ends.close(link, "another link to this host is up", now, "debug")
            return False
        return True

    def on_sign_of_life(self, link: Link, beat: Beat | Calm, now: float) -> None:
        """`link` has echoed a stamp. If that left after a rival showed its name, this life is not the former
        one."""
        if link.rival_at is not None and beat.echo >= microseconds(link.rival_at):
            link.rival_at, link.outlived = None, (link.rival_instance, now)

    def _contest(self, link: Link, rivals: Sequence[Link], now: float) -> None:
        """Another life of a bridge has this name: it was restarted and its old link is dead, or two live.

        The old link is asked; until it has answered the new one is turned away, and dials again.
        """
        for rival in rivals:
            self._ask(rival, link, now)
        reason = f"a link to another {link.name!r} is up and is being checked; come again"
        self._ends.close(link, reason, now, "info")

    def _ask(self, rival: Link, link: Link, now: float) -> None:
        """PeerConflict if `rival` has shown that it lives since `link`'s other end last came."""
        instance, alive_at = rival.outlived
        # A link that was opened before may bring a dead host's last word.
        if instance == link.instance and link.stamps.opened_at >= alive_at:
            raise PeerConflict(
                f"two live hosts are named {link.name!r}; the second is turned away; rename one"
            )
        if rival.up and rival.rival_at is None:
            rival.rival_at, rival.rival_instance = now, link.instance
            self._beats.beat(rival, now)
