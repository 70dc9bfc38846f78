"""/metrics, for Prometheus. README.md has the table of names.

One scrape covers all workers of the host. Their counters are in the segments, summed over living and dead
processes. So no worker is asked, and none has to open a port.

A mesh may have thousands of hosts. PEERS_MAX peers have lines of their own, in the order of their names, and
the others share lines with the peer OTHERS, which has their sum, or the worst of them.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cachee_bridge.http.checked import RepairsTold, tell_nines
from cachee_bridge.http.exposition import TYPE, Exposition, Histogram
from cachee_bridge.http.messages import Request, Response
from cachee_bridge.http.warmed import Warmed, WarmedTold, tell_peer_fills
from cachee_bridge.wire.frames import VERSION
from cachee_shm import __version__, _core

if TYPE_CHECKING:
    from cachee_bridge.checker.nines import Seen
    from cachee_bridge.ports.views import NamespaceView, PeerView

PEERS_MAX = 64
OTHERS = "(others)"
"""No host can have that name."""
FRESH_S = 0.1
"""The text is made at most once in this time, however often it is requested."""
COMMANDS = (
    ("get", "hit", "hits"),
    ("get", "miss", "misses"),
    ("set", "stored", "sets"),
    ("set", "lost", "sets_lost"),
    ("set", "guarded", "sets_guarded"),
    ("set", "no_room", "no_room"),
    ("delete", "done", "deletes"),
    ("fill", "stored", "fills"),
    ("fill", "refused", "fills_refused"),
)
"""cachee_commands_total: command, status, the counter of the segment."""
BY_OUTCOME = (
    (
        "cachee_evictions_total",
        "reason",
        "Entries that went without a user's word, counted when their room is taken or a peer's record comes.",
        (
            ("capacity", ("evicted",)),
            ("expired", ("dropped_expired",)),
            ("invalidated", ("invalidated", "dropped_cleared")),
            ("tag", ("dropped_tag",)),
            ("isolation", ("dropped_flushed",)),
        ),
    ),
    (
        "cachee_loads_total",
        "result",
        "Keys that get_or_load and its kin loaded, by what came of it.",
        (
            ("ok", ("loads_ok",)),
            ("error", ("loads_failed",)),
            ("refused", ("loads_refused",)),
            ("stale_served", ("loads_stale",)),
        ),
    ),
    (
        "cachee_lease_waits_total",
        "outcome",
        "Callers that met another's load of their key, by what came of it.",
        (
            ("served", ("waits_served",)),
            ("failed", ("waits_failed",)),
            ("again", ("waits_again",)),
            ("stale", ("waits_stale",)),
            ("over", ("waits_over",)),
            ("circular", ("waits_circular",)),
        ),
    ),
)
"""A family, its label, and for each of its values the counters of the segment that are summed."""
NAMESPACE_COUNTERS = (
    (
        "cachee_overevicted_total",
        "overevicted",
        "Entries that a repair evicted without knowing their keys: an upper bound of what went needlessly.",
    ),
    ("cachee_doorbells_total", "doorbells", "Times that a writer woke the bridge."),
    ("cachee_applied_total", "applied", "Records of peers that were applied."),
    (
        "cachee_applied_kept_total",
        "applied_kept",
        "Of these, those after which the value was kept: it was the same.",
    ),
    ("cachee_invalidated_total", "invalidated", "Entries that records of peers evicted."),
    ("cachee_isolated_reads_total", "isolated", "Reads of what was too old for a host that is cut off."),
    ("cachee_undecodable_total", "undecodable", "Values that could not be decoded, which are misses."),
    ("cachee_swept_processes_total", "swept", "Dead processes whose debts were paid."),
    ("cachee_corrupt_total", "corrupt", "Words of the segment that could not be right."),
)


class Stats(Warmed, Protocol):
    """What is asked of a segment."""

    def __len__(self) -> int: ...

    def _counters(self) -> dict[str, int]: ...

    def load_durations(self) -> tuple[Sequence[float], Sequence[int], float]: ...

    def _free_bytes(self) -> int: ...


class Views(Protocol):
    """What is asked of the mesh (protocol/views.py)."""

    def peers(self) -> list[PeerView]: ...

    def namespaces(self, now: float) -> list[NamespaceView]: ...

    def unmet(self) -> list[str]: ...


class Metrics:
    """Makes the text."""

    def __init__(
        self,
        host: str,
        views: Views,
        held: Mapping[str, Stats],
        clock: Callable[[], float],
        seen: Mapping[str, Seen],
        peer_fills: Mapping[tuple[str, str, str], int],
    ) -> None:
        """`seen`: the checker's counts, by peer. `peer_fills`: by namespace, result and reason."""
        self._peer_fills = peer_fills
        self._host, self._views, self._held, self._clock = host, views, held, clock
        self._seen, self._repairs, self._entries = seen, RepairsTold(), EntriesTold()
        self._warmed = WarmedTold()
        self._made_at, self._text = -math.inf, b""

    def handle(self, request: Request) -> Response:
        """GET /metrics."""
        now = self._clock()
        if not self._made_at <= now < self._made_at + FRESH_S:
            self._made_at, self._text = now, self.text(now)
        return Response(200, self._text, TYPE)

    def text(self, now: float) -> bytes:
        told = Exposition()
        stats = {namespace: held._counters() for namespace, held in sorted(self._held.items())}
        _tell_namespaces(told, stats)
        self._entries.tell(told, self._held)
        tell_peer_fills(told, self._peer_fills)
        held = {namespace: self._held[namespace] for namespace in stats}
        _tell_segments(told, held, stats)
        self._warmed.tell(told, held)
        peers = [peer for peer in self._views.peers() if peer.name and peer.state != "self"]
        namespaces = self._views.namespaces(now)
        _tell_peers(told, sorted(peers, key=lambda peer: peer.name), now)
        tell_nines(told, self._seen, PEERS_MAX, OTHERS)
        self._repairs.tell(told, peers)
        _tell_isolation(told, namespaces, {peer.name for peer in peers}, now)
        told.begin("cachee_unmet_hosts", "gauge", "Hosts that were not met since the start, so not ready.")
        told.add(len(self._views.unmet()))
        _tell_process(told, self._host)
        return told.text()


class EntriesTold:
    """cachee_entries. Sampling one namespace takes as long as half a scrape, so each scrape samples one."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        """In the order of the looks, the oldest first."""

    def tell(self, told: Exposition, held: Mapping[str, Stats]) -> None:
        known = {namespace: number for namespace, number in self._known.items() if namespace in held}
        turn = next(iter(known), None)
        for namespace in sorted(held):
            if namespace == turn or namespace not in known:
                known.pop(namespace, None)
                known[namespace] = len(held[namespace])
        self._known = known
        told.begin(
            "cachee_entries",
            "gauge",
            "Entries that can be read; an estimate. A scrape looks at one namespace.",
        )
        for namespace in sorted(known):
            told.add(known[namespace], namespace=namespace)


def _tell_namespaces(told: Exposition, stats: Mapping[str, Mapping[str, int]]) -> None:
    told.begin("cachee_commands_total", "counter", "Verbs of all workers of this host, by what came of them.")
    for namespace, numbers in stats.items():
        for command, status, name in COMMANDS:
            told.add(numbers[name], namespace=namespace, command=command, status=status)
    told.begin("cachee_memory_limit_bytes", "gauge", "All memory of the namespace: its `memory`.")
    for namespace, numbers in stats.items():
        told.add(numbers["memory_bytes"], namespace=namespace)
    told.begin("cachee_workers", "gauge", "Processes that are attached.")
    for namespace, numbers in stats.items():
        told.add(numbers["attached"], namespace=namespace)
    told.begin(
        "cachee_ring_records_total",
        "counter",
        "Records of this segment's life: writes here and applied ones.",
    )
    for namespace, numbers in stats.items():
        told.add(numbers["ring_tail"], namespace=namespace)
    for family, name, about in NAMESPACE_COUNTERS:
        told.begin(family, "counter", about)
        for namespace, numbers in stats.items():
            told.add(numbers[name], namespace=namespace)


def _tell_segments(
    told: Exposition, held: Mapping[str, Stats], stats: Mapping[str, Mapping[str, int]]
) -> None:
    """What is more than one number, or takes a look at all pages."""
    for family, label, about, outcomes in BY_OUTCOME:
        told.begin(family, "counter", about)
        for namespace, numbers in stats.items():
            for outcome, names in outcomes:
                told.add(sum(map(numbers.__getitem__, names)), namespace=namespace, **{label: outcome})
    told.begin("cachee_load_duration_seconds", "histogram", "How long calls of a loader took.")
    for namespace, segment in held.items():
        told.add_histogram(Histogram(*segment.load_durations()), namespace=namespace)
    told.begin("cachee_memory_bytes", "gauge", "Memory of the namespace but for its empty pages.")
    for namespace, segment in held.items():
        told.add(stats[namespace]["memory_bytes"] - segment._free_bytes(), namespace=namespace)


def _tell_peers(told: Exposition, peers: list[PeerView], now: float) -> None:
    """`peers` by name."""
    own, others = peers[:PEERS_MAX], peers[PEERS_MAX:]
    told.begin(
        "cachee_peer_up", "gauge", "1: linked, or heard through a relay. (others): how many of them are."
    )
    for peer in own:
        told.add(int(peer.state != "down"), peer=peer.name)
    if others:
        told.add(sum(peer.state != "down" for peer in others), peer=OTHERS)
    told.begin("cachee_peers", "gauge", "Peers that this host knows by name.")
    told.add(len(peers))
    told.begin(
        "cachee_peer_last_heard_seconds", "gauge", "Since anything came from the peer. (others): the longest."
    )
    for peer in own:
        told.add(_ago(now, peer.heard_at), peer=peer.name)
    if others:
        told.add(max(_ago(now, peer.heard_at) for peer in others), peer=OTHERS)
    told.begin(
        "cachee_peer_lag_records",
        "gauge",
        "Positions of this host's ring that the peer has not said it has applied. (others): their sum.",
    )
    _tell_streams(told, own, others, lambda stream: stream.lag)
    told.begin(
        "cachee_peer_stale_seconds",
        "gauge",
        "All that the peer announced longer ago than this is applied here. (others): the longest.",
    )
    _tell_streams(told, own, others, lambda stream: _ago(now, stream.fresh_at), max)


def _tell_streams(
    told: Exposition,
    own: list[PeerView],
    others: list[PeerView],
    value: Callable[[Any], float],
    together: Callable[[Iterable[float]], float] = sum,
) -> None:
    for peer in own:
        for namespace, stream in sorted(peer.namespaces.items()):
            told.add(value(stream), namespace=namespace, peer=peer.name)
    for namespace in sorted({name for peer in others for name in peer.namespaces}):
        values = [value(peer.namespaces[namespace]) for peer in others if namespace in peer.namespaces]
        told.add(together(values), namespace=namespace, peer=OTHERS)


def _tell_isolation(told: Exposition, namespaces: list[NamespaceView], peers: set[str], now: float) -> None:
    """A source that isolates a namespace has a line as long as it does; the bound is the same."""
    told.begin("cachee_isolated_namespace", "gauge", "1: readers follow the isolation policy now.")
    for view in namespaces:
        told.add(int(now > view.until), namespace=view.namespace)
    told.begin(
        "cachee_isolated", "gauge", "1: the namespace is isolated from this source. (others): from how many."
    )
    for view in namespaces:
        isolated = (
            {why.who or "(this host)" for why in view.why} | set(view.silent) if now > view.until else set()
        )
        shown = sorted(isolated)[:PEERS_MAX]
        calm = sorted(peers - isolated)[: PEERS_MAX - len(shown)]
        for source in sorted((*shown, *calm)):
            told.add(int(source in isolated), namespace=view.namespace, source=source)
        if len(isolated) > len(shown):
            told.add(len(isolated) - len(shown), namespace=view.namespace, source=OTHERS)


def _tell_process(told: Exposition, host: str) -> None:
    told.begin("cachee_build_info", "gauge", "1, with what this bridge is.")
    told.add(
        1,
        version=__version__,
        layout=str(_core.LAYOUT),
        wire=str(VERSION),
        python=platform.python_version(),
        host=host,
    )
    used = resource.getrusage(resource.RUSAGE_SELF)
    told.begin("process_cpu_seconds_total", "counter", "Processor time of the bridge.")
    told.add(used.ru_utime + used.ru_stime)
    told.begin(
        "process_resident_memory_bytes", "gauge", "Memory of the bridge, the segments that it maps left out."
    )
    told.add(_resident_bytes())
    told.begin("process_open_fds", "gauge", "Descriptors that the bridge has open.")
    told.add(_open_descriptors())
    told.begin("process_start_time_seconds", "gauge", "When the bridge began, since 1970.")
    told.add(STARTED_AT)


STARTED_AT = time.time()


def _resident_bytes() -> int:
    """Without shared memory: the segments are counted by their namespaces."""
    try:
        with open("/proc/self/statm", "rb") as file:
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _ago(now: float, when: float) -> float:
    """+Inf is never."""
    return round(now - when, 6)
