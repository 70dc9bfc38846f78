"""What is said on all links that are up, put together from its parts.

    message    what follows                                                                     where
    STATE      each namespace that both ends have is shared, and asked for from the cursor      meeting.py
    FRAME      applied, or asked for again; a map of buckets is applied part by part            receiving.py
    BEAT       heads make sources fresh or show that records are missing; cursors say what      beats_heard.py
               the peer has applied
    CALM       the same in rows of what changed; the rest in two sums, or SYNC asks for rows    beats_heard.py
    BEAT, REPLAY that know more of this host's ring than it holds: it goes on under a higher   incarnations.py
               incarnation
    REPLAY     the outbox goes (back) to that position and streams on                           receiving.py
    FOLLOW     the peer wants these sources relayed                                             relaying.py
    SYNC       a beat, at once                                                                  beats.py
    QUESTION   an ANSWER; ANSWER: whoever asked is told                                         questions.py
    LEAVE      with heads: the peer is no member once all it wrote is applied                   receiving.py

What this host says of its own accord: STATE (offers.py), FRAME (sending.py), BEAT and CALM (beats.py), FOLLOW
(following.py), LEAVE (farewell.py).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cachee_bridge.protocol.beats import Beats
from cachee_bridge.protocol.beats_heard import BeatsHeard
from cachee_bridge.protocol.contacts import Contacts
from cachee_bridge.protocol.farewell import Farewell
from cachee_bridge.protocol.incarnations import Incarnations
from cachee_bridge.protocol.meeting import Meeting
from cachee_bridge.protocol.namespaces import Namespaces
from cachee_bridge.protocol.offers import Offers
from cachee_bridge.protocol.receiving import Receiving
from cachee_bridge.protocol.sending import Sending
from cachee_bridge.routing.acknowledgements import Acknowledgements
from cachee_bridge.routing.following import Following
from cachee_bridge.routing.relaying import Relaying
from cachee_bridge.sources.boots import Boots

if TYPE_CHECKING:
    from cachee_bridge.links.link_table import LinkTable
    from cachee_bridge.ports.settings import Settings
    from cachee_bridge.protocol.collected import Collected


class Session:
    """Each part is given those that stand above it here, and no other."""

    def __init__(
        self, name: str, settings: Settings, links: LinkTable, rng: random.Random, effects: Collected
    ) -> None:
        say = effects.say
        lost_after_s = settings.lost_after_s
        self.namespaces = namespaces = Namespaces(name, settings, say)
        members = namespaces.members
        self.following = following = Following(lost_after_s, members, links.up)
        self.acknowledgements = acks = Acknowledgements(name, lost_after_s, members, following)
        self.relaying = relaying = Relaying(name, lost_after_s, members, following, acks)
        self.offers = offers = Offers(namespaces, links)
        self.boots = boots = Boots()
        self.contacts = contacts = Contacts(namespaces, boots, say)
        self.sending = sending = Sending(name, namespaces, relaying, effects)
        self.incarnations = incarnations = Incarnations(namespaces, links, sending, offers, rng, say)
        self.receiving = receiving = Receiving(
            name, namespaces, contacts, incarnations, sending, following, relaying, say
        )
        self.beats = beats = Beats(name, settings, namespaces, links, sending, relaying)
        self.beats_heard = BeatsHeard(
            name, settings, namespaces, contacts, receiving, incarnations, following, acks
        )
        self.meeting = Meeting(namespaces, boots, links, contacts, sending, beats, following, say)
        self.farewell = Farewell(namespaces, sending)
