"""Which tests mirror which file: what a mutant of that file must not survive.

A Python file is mirrored by the test file of its name and by those named here. A file of the core is mirrored
by torture programs (each runs for a few seconds) and by Python tests that go through the binding. Cheap tests
come first, because the first failure ends the run of a mutant. A file that nothing mirrors is an error.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

__all__ = ["in_order", "program_file", "program_seconds", "programs", "tests"]

CORE = "cachee_shm/core/"

PROTOCOL = "bridge/test_mesh.py"

# A batch of the simulator's disasters. Its tests of what happens without a rule say nothing about a mutant.
SIMULATED = (
    "simulation/test_simulation.py::test_no_disaster_breaks_an_invariant[0]",
    "simulation/test_simulation.py::test_no_removal_and_no_sleep_breaks_an_invariant",
)
NOT_SIMULATED = (
    "",
    "system",
    "carriers",
    "shell",
    "http",
    "daemon",
)  # of the bridge: processes, sockets and files

# Programs of tests/core, in the order in which they run.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "arming": ("journal",),
    "atomics.h": ("ring", "index", "pages", "relay"),
    "attachment.h": ("index", "pages", "segment", "relay"),
    "cache": ("relay", "index", "steps", "segment"),
    "census": ("corrupt",),
    "canary": (),  # by a bridge's attachment, from Python
    "cas": (),  # by processes that count, from Python
    "clock.h": ("relay", "index"),
    "doorbell": (),
    "doubt": ("corrupt", "relay", "roster"),
    "evict": ("pages", "index", "steps"),
    "fence": ("relay", "index", "ring", "roster", "steps"),
    "frame_layout.h": ("stream_in",),
    "geometry": ("geometry", "segment", "pages", "index"),
    "hash.h": ("relay", "index"),
    "index": ("index", "relay", "steps", "pages"),
    "orphan": ("roster", "segment"),
    "journal": ("journal",),
    "layout.h": ("segment", "index", "pages", "relay", "steps"),
    "lag": (),  # by a frozen clock, from Python
    "lease": ("lease", "steps"),
    "lock": ("lock", "steps"),
    "msgpack": (),  # by values of every kind, from Python
    "older": (),  # by real segments of two layouts, from Python
    "pages": ("pages", "index", "roster", "steps", "corrupt"),
    "peers": ("peers", "steps"),
    "policy": ("index", "pages"),
    "prewarm": ("prewarm", "steps", "corrupt"),
    "queue": ("pages", "index", "steps"),
    "recovery": ("roster", "steps", "segment", "corrupt"),
    "relay": ("relay", "wire", "steps"),
    "relay_buckets": ("relay", "wire", "steps"),
    "ring": ("ring", "relay", "index", "steps"),
    "roster": ("roster", "steps", "segment"),
    "roster_debts": ("roster", "steps", "relay", "segment"),
    "segment": ("segment", "roster", "corrupt"),
    "span": ("pages", "index", "relay", "steps"),
    "stream_in": ("stream_in",),
    "stream_out": ("wire",),
    "survey": ("corrupt", "segment"),
    "write": ("relay", "index", "steps"),
}

DEAR = {"steps", "corrupt"}  # programs that take as long as a file of tests
SANITIZED = {"stream_in", "wire"}  # a byte read beyond what a peer sent is seen by AddressSanitizer alone
PROGRAM_S = {"corrupt": 20}  # what `make check` gives a torture program; 2 if it is not named here

# Python tests beside the one of the same name.
ALSO: dict[str, tuple[str, ...]] = {
    f"{CORE}arming": ("cachee_shm/test_journal",),
    f"{CORE}module_journal": ("cachee_shm/test_journal", "cachee_shm/test_explain"),
    f"{CORE}atomics": ("core/test_atomics", "cachee_shm/test_cache"),
    f"{CORE}attachment": ("cachee_shm/test_cache", "cachee_shm/test_fork", "cachee_shm/test_corruption"),
    f"{CORE}cache": (
        "cachee_shm/test_cache",
        "cachee_shm/test_isolation",
        "cachee_shm/test_loading",
        "cachee_shm/test_host",
        "cachee_shm/test_death",
    ),
    f"{CORE}clock": ("cachee_shm/test_cache", "cachee_shm/test_suspend"),
    f"{CORE}doorbell": ("bridge/test_doorbell", "bridge/test_pump", "bridge/test_two_bridges"),
    f"{CORE}doubt": ("cachee_shm/test_unknown_outcome",),
    f"{CORE}census": ("cachee_shm/test_census", "cachee_shm/test_statistics", "cachee_shm/test_canary"),
    f"{CORE}lag": ("cachee_shm/test_origin_lag",),
    f"{CORE}evict": ("cachee_shm/test_memory", "cachee_shm/test_cache"),
    f"{CORE}fence": ("cachee_shm/test_cache", "cachee_shm/test_buckets"),
    f"{CORE}frame_layout": ("bridge/test_frames",),
    f"{CORE}hash": ("cachee_shm/test_cache", "cachee_shm/test_buckets", "cachee_shm/test_codec"),
    f"{CORE}index": ("cachee_shm/test_cache", "cachee_shm/test_host"),
    f"{CORE}orphan": ("cachee_shm/test_successor", "cachee_shm/test_detached"),
    f"{CORE}layout": ("cachee_shm/test_segment", "cachee_shm/test_cache", "cachee_shm/test_memory"),
    f"{CORE}canary": ("cachee_shm/test_canary", "stand_in/test_stand_in"),
    f"{CORE}module_canary": ("cachee_shm/test_canary", "stand_in/test_stand_in"),
    f"{CORE}module_fetch": ("cachee_shm/test_fetching", "bridge/test_fetched_hosts"),
    f"{CORE}cas": ("cachee_shm/test_host",),
    f"{CORE}write": ("cachee_shm/test_cache", "cachee_shm/test_host"),
    f"{CORE}module_cas": ("cachee_shm/test_host", "cachee_shm/test_faces"),
    f"{CORE}module_incr": ("cachee_shm/test_host", "cachee_shm/test_faces"),
    f"{CORE}msgpack": ("cachee_shm/test_msgpack", "cachee_shm/test_codec"),
    f"{CORE}lock": ("cachee_shm/test_locks",),
    f"{CORE}module_lock": ("cachee_shm/test_locks", "cachee_shm/test_interrupted", "cachee_shm/test_faces"),
    f"{CORE}lease": ("cachee_shm/test_loading", "cachee_shm/test_waiting"),
    f"{CORE}module": (
        "cachee_shm/test_detached",
        "cachee_shm/test_segment",
        "cachee_shm/test_cache",
        "cachee_shm/test_fork",
        "cachee_shm/test_bad_input",
    ),
    f"{CORE}module_awaited": (
        "cachee_shm/test_waiting",
        "cachee_shm/test_event_loops",
        "cachee_shm/test_interrupted",
        "cachee_shm/test_loading",
        "cachee_shm/test_many_waiting",
    ),
    f"{CORE}module_bridge": (
        "cachee_shm/test_buckets",
        "cachee_shm/test_events",
        "cachee_shm/test_death",
        "cachee_shm/test_cache",
        "bridge/test_pump",
    ),
    f"{CORE}module_flights": (
        "cachee_shm/test_loads",
        "cachee_shm/test_many",
        "cachee_shm/test_waiting",
        "cachee_shm/test_loading",
        "cachee_shm/test_fetching",
    ),
    f"{CORE}module_loading": (
        "cachee_shm/test_loading",
        "cachee_shm/test_waiting",
        "cachee_shm/test_event_loops",
        "cachee_shm/test_interrupted",
        "cachee_shm/test_threads",
    ),
    f"{CORE}module_many": ("cachee_shm/test_many", "cachee_shm/test_many_waiting"),
    f"{CORE}module_transactions": ("cachee_shm/test_transactions", "cachee_shm/test_unknown_outcome"),
    f"{CORE}module_near": ("cachee_shm/test_near",),
    f"{CORE}module_older": ("bridge/test_older", "bridge/test_versions_layouts"),
    f"{CORE}module_owed": (
        "cachee_shm/test_detached",
        "cachee_shm/test_successor",
        "cachee_shm/test_writing",
    ),
    f"{CORE}module_peers": ("cachee_shm/test_synced", "cachee_shm/test_health"),
    f"{CORE}module_sockets": ("cachee_shm/test_sockets",),
    f"{CORE}module_stream_in": ("stand_in/test_stand_in", "bridge/test_taken_frames"),
    f"{CORE}stream_in": ("stand_in/test_stand_in", "bridge/test_taken_frames"),
    f"{CORE}module_reentry": ("cachee_shm/test_reentry",),
    f"{CORE}module_sources": ("cachee_shm/test_sources", "cachee_shm/test_events"),
    f"{CORE}module_statistics": (
        "cachee_shm/test_statistics",
        "cachee_shm/test_events",
        "cachee_shm/test_segment",
        "cachee_shm/test_cache",
        "cachee_shm/test_host",
        "cachee_shm/test_death",
    ),
    f"{CORE}module_tallies": ("cachee_shm/test_statistics",),
    f"{CORE}module_values": ("cachee_shm/test_codec", "cachee_shm/test_bad_input", "cachee_shm/test_cache"),
    f"{CORE}module_verbs": (
        "cachee_shm/test_cache",
        "cachee_shm/test_bad_input",
        "cachee_shm/test_host",
        "cachee_shm/test_loading",
    ),
    f"{CORE}module_writing": (
        "cachee_shm/test_writing",
        "cachee_shm/test_interrupted",
        "cachee_shm/test_threads",
    ),
    f"{CORE}older": ("bridge/test_older", "bridge/test_versions_layouts"),
    f"{CORE}pages": (
        "cachee_shm/test_memory",
        "cachee_shm/test_cache",
        "cachee_shm/test_isolation",
        "cachee_shm/test_corruption",
    ),
    f"{CORE}peers": ("cachee_shm/test_synced", "cachee_shm/test_health"),
    f"{CORE}module_prewarm": ("cachee_shm/test_orders",),
    f"{CORE}prewarm": ("cachee_shm/test_orders",),
    f"{CORE}policy": ("cachee_shm/test_memory", "bench/test_hit_ratio"),
    f"{CORE}queue": ("cachee_shm/test_memory",),
    f"{CORE}recovery": (
        "cachee_shm/test_segment",
        "cachee_shm/test_fork",
        "cachee_shm/test_zombies",
        "cachee_shm/test_death",
    ),
    f"{CORE}relay": ("cachee_shm/test_guard", "cachee_shm/test_sources", "bridge/test_pump"),
    f"{CORE}relay_buckets": ("cachee_shm/test_buckets",),
    f"{CORE}ring": ("cachee_shm/test_guard", "cachee_shm/test_events", "cachee_shm/test_cache"),
    f"{CORE}roster": (
        "cachee_shm/test_segment",
        "cachee_shm/test_fork",
        "cachee_shm/test_zombies",
        "cachee_shm/test_death",
    ),
    f"{CORE}roster_debts": ("cachee_shm/test_death", "cachee_shm/test_writing", "cachee_shm/test_detached"),
    f"{CORE}segment": ("cachee_shm/test_segment", "cachee_shm/test_corruption"),
    f"{CORE}span": ("cachee_shm/test_cache", "cachee_shm/test_memory"),
    f"{CORE}stream_out": ("stand_in/test_stand_in",),
    f"{CORE}survey": ("cachee_shm/test_statistics", "cachee_shm/test_corruption", "cachee_shm/test_memory"),
    "cachee_shm/__init__": ("cachee_shm/test_cache", "cachee_shm/test_config"),
    "cachee_shm/attaching": ("cachee_shm/test_config", "cachee_shm/test_segment"),
    "cachee_shm/cache": (
        "cachee_shm/test_near",
        "cachee_shm/test_detached",
        "cachee_shm/test_lifetimes",
        "cachee_shm/test_cached",
        "cachee_shm/test_timeouts",
    ),
    "cachee_shm/aiocache": ("cachee_shm/test_misses",),
    "cachee_shm/backing": ("cachee_shm/test_misses",),
    "cachee_shm/cashews": ("cachee_shm/test_misses",),
    "cachee_shm/classes": ("cachee_shm/test_codec",),
    "cachee_shm/dogpile": ("cachee_shm/test_misses",),
    "cachee_shm/litestar": ("cachee_shm/test_misses",),
    "cachee_shm/loads": ("cachee_shm/test_lifetimes", "cachee_shm/test_many"),
    "cachee_shm/cli/__init__": ("cachee_shm/cli/test_segments",),
    "cachee_shm/cli/__main__": ("cachee_shm/cli/test_keys",),
    "cachee_shm/segment": ("cachee_shm/test_fork", "cachee_shm/test_config"),
    "cachee_shm/codec": ("cachee_shm/test_packing", "cachee_shm/test_compression"),
    "cachee_shm/shape": ("cachee_shm/test_classes",),
    "cachee_shm/mistakes": ("cachee_shm/test_interrupted", "cachee_shm/test_codec"),
    "cachee_shm/transactions": ("cachee_shm/test_unknown_outcome", "cachee_shm/django/test_transactions"),
    "cachee_shm/django/__init__": ("cachee_shm/django/test_backend",),
    "cachee_shm/django/apps": ("cachee_shm/django/test_checks",),
    "cachee_shm/filling": ("cachee_shm/http/test_pages",),
    "cachee_shm/http/__init__": ("cachee_shm/http/test_pages",),
    "cachee_shm/http/fields": ("cachee_shm/http/test_rules",),
    "cachee_shm/http/rules": ("cachee_shm/http/test_pages",),
    "cachee_shm/http/stored": ("cachee_shm/http/test_pages",),
    "cachee_shm/http/pages": ("cachee_shm/http/test_rules",),
    "cachee_shm/http/asgi": ("cachee_shm/http/test_rules", "cachee_shm/http/test_pages"),
    "cachee_shm/http/wsgi": ("cachee_shm/http/test_rules", "cachee_shm/http/test_pages"),
    "cachee_shm/loading": (
        "cachee_shm/test_lifetimes",
        "cachee_shm/test_waiting",
        "cachee_shm/test_event_loops",
        *SIMULATED,
    ),
    "cachee_shm/origins": ("cachee_shm/test_gathering",),
    "cachee_shm/gathering": ("cachee_shm/test_origins", "cachee_shm/test_interrupted"),
    "cachee_shm/many": ("cachee_shm/test_many_waiting",),
    "cachee_shm/waiting": ("cachee_shm/test_event_loops", "cachee_shm/test_loading", "cachee_shm/test_poll"),
    "cachee_shm/cli/main": (
        "cachee_shm/cli/test_keys",
        "cachee_shm/cli/test_segments",
        "cachee_shm/cli/test_peers",
        "cachee_shm/cli/test_completion",
    ),
    "cachee_shm/cli/addresses": ("cachee_shm/cli/test_init", "cachee_shm/cli/doctor/test_bridge"),
    "cachee_shm/cli/doctor/__init__": ("cachee_shm/cli/doctor/test_finding",),
    "cachee_shm/cli/looks": ("cachee_shm/cli/test_stat", "cachee_shm/cli/test_top"),
    "bridge/cachee_bridge/daemon/explaining": ("bridge/test_explained_hosts",),
    "cachee_shm/asking": ("cachee_shm/cli/test_operator", "cachee_shm/cli/test_peers"),
    "cachee_shm/cli/operator": ("cachee_shm/cli/test_peers",),
    "cachee_shm/cli/processes": ("cachee_shm/cli/test_segments", "cachee_shm/cli/test_keys"),
    "bridge/cachee_bridge/__main__": ("bridge/test_main",),
    "bridge/cachee_bridge/carriers/accepting": ("bridge/test_hostile_network", "bridge/test_shell"),
    "bridge/cachee_bridge/sources/peer_status": ("bridge/test_synced_hosts",),
    "bridge/cachee_bridge/links/ledger": ("bridge/test_versions",),
    "bridge/cachee_bridge/links/handshake": ("bridge/test_states", "bridge/test_versions"),
    "bridge/cachee_bridge/links/link": ("bridge/test_states", "bridge/test_handshake"),
    "bridge/cachee_bridge/links/throttle": ("bridge/test_link", "bridge/test_intake"),
    "bridge/cachee_bridge/shell/doorbell": ("bridge/test_pump", "bridge/test_owners"),
    "bridge/cachee_bridge/links/link_table": ("bridge/test_arbiter", "bridge/test_mesh_proofs"),
    "bridge/cachee_bridge/protocol/admission": ("bridge/test_mesh_proofs", "bridge/test_own_hosts"),
    "bridge/cachee_bridge/protocol/arbiter": ("bridge/test_mesh_proofs", "bridge/test_kills"),
    "bridge/cachee_bridge/protocol/arrival": (
        "bridge/test_arbiter",
        "bridge/test_presence",
        "bridge/test_meeting",
        "bridge/test_mesh_proofs",
    ),
    "bridge/cachee_bridge/protocol/beats": (
        "bridge/test_session",
        "bridge/test_ledger",
        "bridge/test_register",
    ),
    "bridge/cachee_bridge/protocol/beats_heard": (
        "bridge/test_session",
        "bridge/test_ledger",
        "bridge/test_register",
    ),
    "bridge/cachee_bridge/protocol/collected": ("bridge/test_shell", "bridge/test_mesh"),
    "bridge/cachee_bridge/protocol/contacts": (
        "bridge/test_incarnations",
        "bridge/test_session",
        "bridge/test_reasons",
        "bridge/test_hostile_gossip",
    ),
    "bridge/cachee_bridge/protocol/dialling": ("bridge/test_dials", "bridge/test_addresses"),
    "bridge/cachee_bridge/protocol/dispatch": (
        "bridge/test_session",
        "bridge/test_receiving",
        "bridge/test_farewell",
    ),
    "bridge/cachee_bridge/protocol/farewell": ("bridge/test_stopping",),
    "bridge/cachee_bridge/protocol/incarnations": ("bridge/test_session",),
    "bridge/cachee_bridge/protocol/link_ends": (
        "bridge/test_dialling",
        "bridge/test_mesh_proofs",
        "bridge/test_two_bridges",
    ),
    "bridge/cachee_bridge/protocol/meeting": (
        "bridge/test_contacts",
        "bridge/test_reasons",
        "bridge/test_peer_status",
    ),
    "bridge/cachee_bridge/protocol/namespaces": ("bridge/test_register", "bridge/test_paths"),
    "bridge/cachee_bridge/protocol/offers": ("bridge/test_session", "bridge/test_reasons"),
    "bridge/cachee_bridge/protocol/opening": ("bridge/test_mesh_proofs", "bridge/test_versions"),
    "bridge/cachee_bridge/protocol/presence": ("bridge/test_belonging", "bridge/test_snapshot"),
    "bridge/cachee_bridge/protocol/readiness": ("bridge/test_belonging", "bridge/test_addresses"),
    "bridge/cachee_bridge/protocol/receiving": (
        "bridge/test_taken_frames",
        "bridge/test_session",
        "bridge/test_farewell",
        "bridge/test_paths",
    ),
    "bridge/cachee_bridge/protocol/intake": ("bridge/test_taken_frames",),
    "bridge/cachee_bridge/protocol/rounds": ("bridge/test_contacts", "bridge/test_paths", "bridge/test_mesh"),
    "bridge/cachee_bridge/protocol/sending": ("bridge/test_session", "bridge/test_intake"),
    "bridge/cachee_bridge/protocol/gossip": (
        "bridge/test_mesh",
        "bridge/test_addresses",
        "bridge/test_hostile_gossip",
    ),
    "bridge/cachee_bridge/sources/boots": ("bridge/test_meeting",),
    "bridge/cachee_bridge/system/boot": ("bridge/test_boot_hosts",),
    "bridge/cachee_bridge/sources/departures": ("bridge/test_members", "bridge/test_belonging"),
    "bridge/cachee_bridge/sources/horizon": ("bridge/test_members", "bridge/test_isolation"),
    "bridge/cachee_bridge/sources/members": (
        "bridge/test_horizon",
        "bridge/test_belonging",
        "bridge/test_register",
        "bridge/test_isolation",
    ),
    "bridge/cachee_bridge/membership/absent": ("bridge/test_addresses",),
    "bridge/cachee_bridge/membership/address_table": ("bridge/test_addresses", "bridge/test_dials"),
    "bridge/cachee_bridge/membership/addresses": ("bridge/test_absent", "bridge/test_awaited"),
    "bridge/cachee_bridge/membership/awaited": ("bridge/test_addresses", "bridge/test_belonging"),
    "bridge/cachee_bridge/carriers/names": ("bridge/test_hostile_dns",),
    "bridge/cachee_bridge/daemon/older": ("bridge/test_versions_layouts", "bridge/test_versions_load"),
    "bridge/cachee_bridge/carriers/own": ("bridge/test_hostile_network",),
    "bridge/cachee_bridge/daemon/segments": ("bridge/test_older", "bridge/test_shell"),
    "bridge/cachee_bridge/shell/strangers": ("bridge/test_hostile_network",),
    "bridge/cachee_bridge/links/versions": ("bridge/test_ledger", "fuzz/test_fuzz"),
    "bridge/cachee_bridge/protocol/questions": ("bridge/test_inquiries",),
    "bridge/cachee_bridge/protocol/fetches": ("bridge/test_fetched_hosts",),
    "bridge/cachee_bridge/shell/fetching": ("bridge/test_fetched_hosts",),
    "bridge/cachee_bridge/checker/around": ("bridge/test_checker",),
    "bridge/cachee_bridge/checker/canaries": ("bridge/test_checker",),
    "bridge/cachee_bridge/checker/watching": ("bridge/test_checker",),
    "bridge/cachee_bridge/checker/nines": ("bridge/test_checker",),
    "bridge/cachee_bridge/checker/samples": ("bridge/test_checker",),
    "bridge/cachee_bridge/checker/suspects": ("bridge/test_checker",),
    "bridge/cachee_bridge/shell/inquiries": ("bridge/test_explaining",),
    "bridge/cachee_bridge/protocol/views": (
        "bridge/test_session",
        "bridge/test_snapshot",
        "bridge/test_operator_socket",
    ),
    "bridge/cachee_bridge/protocol/mesh": (
        "bridge/test_mesh_proofs",
        "bridge/test_peer_status",
        "bridge/test_snapshot",
        "bridge/test_two_bridges",
    ),
    "bridge/cachee_bridge/shell/inputs": ("bridge/test_hostile_shell", "bridge/test_shell"),
    "bridge/cachee_bridge/shell/lines": ("bridge/test_performer", "bridge/test_strangers"),
    "bridge/cachee_bridge/shell/performer": ("bridge/test_hostile_shell", "bridge/test_shell"),
    "bridge/cachee_bridge/shell/question": ("bridge/test_hostile_shell", "bridge/test_discovered_hosts"),
    "bridge/cachee_bridge/shell/ticks": ("bridge/test_hostile_shell", "bridge/test_shell"),
    "bridge/cachee_bridge/shell/shell": ("bridge/test_shell_attacked", "bridge/test_two_bridges"),
    "bridge/cachee_bridge/carriers/connection": (
        "bridge/test_transport",
        "bridge/test_transport_tls",
        "bridge/test_hostile_tls",
    ),
    "bridge/cachee_bridge/carriers/dialling": ("bridge/test_transport", "bridge/test_own_hosts"),
    "bridge/cachee_bridge/carriers/transport": (
        "bridge/test_connection",
        "bridge/test_dialling",
        "bridge/test_transport_tls",
        "bridge/test_two_bridges",
    ),
    "bridge/cachee_bridge/carriers/unproven": ("bridge/test_hostile_network", "bridge/test_transport_tls"),
    "bridge/cachee_bridge/daemon/requests": (
        "bridge/test_daemon",
        "bridge/test_operator_socket",
        "cachee_shm/cli/test_peers",
    ),
    "bridge/cachee_bridge/daemon/daemon": (
        "bridge/test_main",
        "bridge/test_reload",
        "bridge/test_two_bridges",
    ),
    "bridge/cachee_bridge/daemon/web": ("bridge/test_web",),
    "bridge/cachee_bridge/http/connection": ("bridge/test_server", "bridge/test_hostile_http"),
    "bridge/cachee_bridge/http/messages": ("bridge/test_server",),
    "bridge/cachee_bridge/http/routes": ("bridge/test_server",),
    "bridge/cachee_bridge/http/server": ("bridge/test_hostile_http",),
    "bridge/cachee_bridge/http/turns": ("bridge/test_turns", "bridge/test_hostile_http"),
    "bridge/cachee_bridge/http/hosts": ("bridge/test_web_names",),
    "bridge/cachee_bridge/http/addresses": ("bridge/test_web",),
    "bridge/cachee_bridge/http/listeners": ("bridge/test_web",),
    "bridge/cachee_bridge/http/health": ("bridge/test_web",),
    "bridge/cachee_bridge/http/exposition": ("bridge/test_metrics",),
    "bridge/cachee_bridge/wire/fields": ("bridge/test_frames", "fuzz/test_fuzz"),
    "bridge/cachee_bridge/wire/frames": ("fuzz/test_fuzz",),
    "bridge/cachee_bridge/wire/messages": ("bridge/test_frames", "bridge/test_handshake"),
    "bridge/cachee_bridge/carriers/tls": ("bridge/test_transport_tls", "bridge/test_secure_bridges"),
    "bridge/cachee_bridge/carriers/credentials": ("bridge/test_secure_bridges",),
    "bridge/cachee_bridge/wire/auth": ("bridge/test_mesh_proofs", "bridge/test_shell_attacked"),
    "bridge/cachee_bridge/shell/resolver": ("bridge/test_discovered_hosts",),
    "bridge/cachee_bridge/ports/effects": ("bridge/test_mesh", "bridge/test_shell"),
    "bridge/cachee_bridge/ports/store": ("bridge/test_daemon", "bridge/test_mesh"),
    "bridge/cachee_bridge/ports/settings": ("bridge/test_daemon", "bridge/test_mesh"),
    "bridge/cachee_bridge/ports/views": ("bridge/test_daemon", "bridge/test_mesh"),
    "bridge/cachee_bridge/links/relayed": ("bridge/test_relay_log", "bridge/test_paths"),
    "bridge/cachee_bridge/routing/acknowledgements": ("bridge/test_paths", "bridge/test_relayed_hosts"),
    "bridge/cachee_bridge/routing/following": ("bridge/test_paths", "bridge/test_relayed_hosts"),
    "bridge/cachee_bridge/routing/relaying": (
        "bridge/test_relay_log",
        "bridge/test_paths",
        "bridge/test_relayed_hosts",
    ),
    "bridge/cachee_bridge/streams/stream": ("bridge/test_frames",),
    "bridge/cachee_bridge/streams/relay_log": ("bridge/test_paths", "bridge/test_taken_frames"),
    "bridge/cachee_bridge/protocol/paths": ("bridge/test_relayed_hosts",),
}


def programs(path: str) -> tuple[str, ...]:
    """The torture programs that mirror a file of the core; none for the binding and for Python files."""
    name = PurePosixPath(path).name
    if not path.startswith(CORE) or name.startswith("module"):
        return ()
    return PROGRAMS.get(name, PROGRAMS.get(PurePosixPath(path).stem, ()))


def in_order(root: Path, path: str) -> list[str]:
    """Programs and tests of a file, the dearest last: a ``torture_NAME``, or what pytest takes."""
    named = programs(path)
    quick, dear = ([f"torture_{name}" for name in named if (name in DEAR) is dear] for dear in (False, True))
    return [*quick, *tests(root, path), *dear]


def program_file(program: str) -> str:
    """Where a torture program is built, below the directory of all."""
    return f"{'asan' if program in SANITIZED else 'plain'}/torture_{program}"


def program_seconds(program: str) -> int:
    """How long a torture program runs, in seconds."""
    return PROGRAM_S.get(program, 2)


def tests(root: Path, path: str) -> list[str]:
    """The tests that mirror a file, as pytest takes them, in the order in which they run."""
    stem = str(PurePosixPath(path).with_suffix(""))
    folder = "bridge/" if path.startswith("bridge/") else "cachee_shm/"
    below = stem.removeprefix("bridge/cachee_bridge/").removeprefix("cachee_shm/")
    parent, _, name = below.rpartition("/")
    flat = path.startswith((CORE, "bridge/"))  # the bridge's tests stand in one folder
    own = f"{folder}{'' if flat else parent and parent + '/'}test_{name}.py"
    named = [test if "::" in test else f"{test}.py" for test in ALSO.get(stem, ())]
    wanted = [own, *named] if (root / "tests" / own).exists() else named
    if folder == "bridge/" and parent not in NOT_SIMULATED:
        wanted += [PROTOCOL, *SIMULATED]
    return [f"tests/{test}" for test in dict.fromkeys(wanted)]
