"""Which tests mirror which file: what a mutant of that file must not survive.

A Python file is mirrored by the test file of its name and by those named here. A file of the core is mirrored
by torture programs (each runs for a few seconds) and by Python tests that go through the binding. Cheap tests
come first, because the first failure ends the run of a mutant.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

__all__ = ["programs", "tests"]

CORE = "cachee_shm/core/"

# Programs of tests/core, in the order in which they run.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "atomics.h": ("ring", "index", "pages", "relay"),
    "attachment.h": ("index", "pages", "segment", "relay"),
    "cache": ("relay", "index", "steps", "segment"),
    "clock.h": ("relay", "index"),
    "doorbell": (),
    "evict": ("pages", "index", "steps"),
    "fence": ("relay", "index", "ring", "steps"),
    "hash.h": ("relay", "index"),
    "index": ("index", "relay", "steps", "pages"),
    "layout.h": ("segment", "index", "pages", "relay", "steps"),
    "lease": ("lease", "steps"),
    "pages": ("pages", "index", "steps", "corrupt"),
    "peers": ("peers", "steps"),
    "policy": ("index", "pages"),
    "queue": ("pages", "index", "steps"),
    "relay": ("relay", "wire", "steps"),
    "relay_buckets": ("relay", "wire", "steps"),
    "ring": ("ring", "relay", "index", "steps"),
    "roster": ("roster", "steps", "segment"),
    "segment": ("segment", "roster", "corrupt"),
    "span": ("pages", "index", "relay", "steps"),
    "survey": ("corrupt", "segment"),
}

# Python tests beside the one of the same name.
ALSO: dict[str, tuple[str, ...]] = {
    f"{CORE}cache": (
        "cachee_shm/test_cache",
        "cachee_shm/test_isolation",
        "cachee_shm/test_death",
        "cachee_shm/test_host",
    ),
    f"{CORE}doorbell": ("bridge/test_doorbell", "bridge/test_pump", "bridge/test_two_bridges"),
    f"{CORE}evict": ("cachee_shm/test_memory", "cachee_shm/test_cache"),
    f"{CORE}fence": ("cachee_shm/test_cache", "cachee_shm/test_buckets"),
    f"{CORE}index": ("cachee_shm/test_cache", "cachee_shm/test_host"),
    f"{CORE}lease": ("cachee_shm/test_loading",),
    f"{CORE}module": (
        "cachee_shm/test_segment",
        "cachee_shm/test_cache",
        "cachee_shm/test_fork",
        "cachee_shm/test_bad_input",
    ),
    f"{CORE}module_bridge": (
        "cachee_shm/test_sources",
        "cachee_shm/test_buckets",
        "cachee_shm/test_events",
        "bridge/test_pump",
    ),
    f"{CORE}module_flights": ("cachee_shm/test_loads", "cachee_shm/test_waiting"),
    f"{CORE}module_near": ("cachee_shm/test_near",),
    f"{CORE}module_peers": ("cachee_shm/test_synced", "cachee_shm/test_health"),
    f"{CORE}module_values": ("cachee_shm/test_codec", "cachee_shm/test_bad_input", "cachee_shm/test_cache"),
    f"{CORE}module_verbs": (
        "cachee_shm/test_cache",
        "cachee_shm/test_bad_input",
        "cachee_shm/test_host",
        "cachee_shm/test_loading",
    ),
    f"{CORE}pages": ("cachee_shm/test_memory", "cachee_shm/test_corruption"),
    f"{CORE}peers": ("cachee_shm/test_synced", "cachee_shm/test_health"),
    f"{CORE}policy": ("cachee_shm/test_memory", "bench/test_hit_ratio"),
    f"{CORE}relay": ("cachee_shm/test_sources", "bridge/test_pump"),
    f"{CORE}relay_buckets": ("cachee_shm/test_buckets",),
    f"{CORE}ring": ("cachee_shm/test_events", "cachee_shm/test_cache"),
    f"{CORE}roster": ("cachee_shm/test_death", "cachee_shm/test_fork", "cachee_shm/test_zombies"),
    f"{CORE}segment": ("cachee_shm/test_segment", "cachee_shm/test_corruption"),
    f"{CORE}span": ("cachee_shm/test_cache", "cachee_shm/test_memory"),
    f"{CORE}survey": ("cachee_shm/test_corruption", "cachee_shm/test_memory"),
    "cachee_shm/__init__": ("cachee_shm/test_cache", "cachee_shm/test_config"),
    "cachee_shm/attaching": ("cachee_shm/test_config", "cachee_shm/test_segment"),
    "cachee_shm/cache": ("cachee_shm/test_near",),
    "cachee_shm/segment": ("cachee_shm/test_fork", "cachee_shm/test_config"),
    "cachee_shm/loading": ("simulation/test_simulation",),
    "cachee_shm/cli/main": (
        "cachee_shm/cli/test_keys",
        "cachee_shm/cli/test_segments",
        "cachee_shm/cli/test_peers",
    ),
    "cachee_shm/cli/processes": ("cachee_shm/cli/test_segments", "cachee_shm/cli/test_keys"),
    "bridge/cachee_bridge/__main__": ("bridge/test_main",),
    "bridge/cachee_bridge/mesh": (
        "bridge/test_mesh_proofs",
        "bridge/test_two_bridges",
        "simulation/test_simulation",
    ),
    "bridge/cachee_bridge/shell": ("bridge/test_shell_attacked", "bridge/test_two_bridges"),
    "bridge/cachee_bridge/transport": ("bridge/test_transport_tls", "bridge/test_two_bridges"),
    "bridge/cachee_bridge/daemon": ("bridge/test_main", "bridge/test_two_bridges"),
    "bridge/cachee_bridge/frames": ("fuzz/test_fuzz",),
    "bridge/cachee_bridge/tls": ("bridge/test_transport_tls", "bridge/test_secure_bridges"),
    "bridge/cachee_bridge/credentials": ("bridge/test_secure_bridges",),
    "bridge/cachee_bridge/auth": ("bridge/test_mesh_proofs", "bridge/test_shell_attacked"),
    "bridge/cachee_bridge/resolver": ("bridge/test_discovered_hosts",),
    "bridge/cachee_bridge/effects": ("bridge/test_mesh", "bridge/test_shell"),
    "bridge/cachee_bridge/ports": ("bridge/test_mesh",),
    "bridge/cachee_bridge/relaying": ("bridge/test_relays", "bridge/test_paths", "bridge/test_relayed_hosts"),
    "bridge/cachee_bridge/relays": ("bridge/test_paths",),
    "bridge/cachee_bridge/paths": ("bridge/test_relayed_hosts",),
}
EVERY_MODULE_OF_THE_PROTOCOL = "simulation/test_simulation"


def programs(path: str) -> tuple[str, ...]:
    """The torture programs that mirror a file of the core; none for the binding and for Python files."""
    name = PurePosixPath(path).name
    if not path.startswith(CORE) or name.startswith("module"):
        return ()
    return PROGRAMS.get(name, PROGRAMS.get(PurePosixPath(path).stem, ("index", "pages", "relay", "steps")))


def tests(root: Path, path: str) -> list[str]:
    """The test files that mirror a file, in the order in which they run."""
    stem = str(PurePosixPath(path).with_suffix(""))
    folder = "bridge/" if path.startswith("bridge/") else "cachee_shm/"
    below = stem.removeprefix("bridge/cachee_bridge/").removeprefix("cachee_shm/")
    parent, _, name = below.rpartition("/")
    own = f"{folder}{parent + '/' if parent else ''}test_{name}"
    if path.startswith(CORE):
        own = f"cachee_shm/test_{name}"
    wanted = [own, *ALSO.get(stem, ())]
    if folder == "bridge/":
        wanted.append(EVERY_MODULE_OF_THE_PROTOCOL)
    paths = [f"tests/{test}.py" for test in dict.fromkeys(wanted)]
    return [path for path in paths if (root / path).exists()] or [f"tests/{folder}"]
