"""How much longer an invalidation takes with a secret, seals and TLS (target C4: with TLS).

Four pairs of hosts at once on this machine, each as in bench_propagation.py, that differ in [bridge] alone:

  nothing            every process that reaches the port is trusted: loopback only
  secret             a shared secret; every message bears a seal
  certificates       TLS 1.3, certificates on both sides
  both               a secret inside of TLS

One write at a time; the next follows when the one before has arrived. The pairs take turns. The target is
about what is added to the p50 of "nothing" in the same turn. The certificates are made by trustme (EC,
P-256); OpenSSL chooses the cipher.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trustme
from measuring import Target, interleaved, percentile, save, start, table, targets_table
from mesh import LOOPBACK, Proof, no_proof, secret
from two_hosts import NEW, TwoHosts, two_hosts

NOTHING, SECRET, CERTIFICATES, BOTH = "nothing", "secret", "certificates", "both"
FULL, QUICK = 400, 20
ADDED_US_MAX = 100.0  # TLS on two hops must leave room in 1 ms (C4)
PERCENTS = (50, 90, 99)


def certificates_of(authority: trustme.CA) -> Proof:
    def certificates(folder: Path, host: str) -> str:
        leaf = authority.issue_cert(host)
        paths = {name: folder / f"{host}.{name}" for name in ("cert", "key", "ca")}
        leaf.cert_chain_pems[0].write_to_path(paths["cert"])
        leaf.private_key_pem.write_to_path(paths["key"])
        authority.cert_pem.write_to_path(paths["ca"])
        paths["key"].chmod(0o600)
        return "[bridge.tls]\n" + "".join(f'{name} = "{path}"\n' for name, path in paths.items())

    return certificates


def both_of(certificates: Proof) -> Proof:
    return lambda folder, host: secret(folder, host) + certificates(folder, host)


def trips(hosts: TwoHosts, count: int) -> Callable[[], list[float]]:
    def run() -> list[float]:
        block = hosts.one_at_a_time(lambda key: hosts.cache.set(key, NEW), count, 0.0)
        if block.lost:
            raise SystemExit(f"{block.lost} of {count} writes did not arrive")
        return [ns / 1000 for ns in block.trips_ns]

    return run


def added(found: dict[str, list[list[float]]], name: str) -> float:
    """The median over turns of what the p50 of a turn is above that of "nothing", in us."""
    pairs = zip(found[name], found[NOTHING], strict=True)
    return statistics.median(statistics.median(ours) - statistics.median(bare) for ours, bare in pairs)


def percentiles(found: dict[str, list[list[float]]]) -> dict[str, dict[str, float]]:
    samples = {name: [trip for turn in turns for trip in turn] for name, turns in found.items()}
    return {name: {f"p{p}": percentile(trips, p) for p in PERCENTS} for name, trips in samples.items()}


def rows(found: dict[str, list[list[float]]]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{us:.1f}" for us in values.values()), f"{added(found, name):+.1f}")
        for name, values in percentiles(found).items()
    ]


def draw(found: dict[str, list[list[float]]]) -> Callable[[Any], None]:
    def on(figure: Any) -> None:
        axis = figure.subplots()
        for name, turns in found.items():
            ordered = sorted(trip for turn in turns for trip in turn)
            axis.plot(ordered, [place / len(ordered) for place in range(len(ordered))], label=name)
        axis.set_xscale("log")
        axis.set_xlabel("us from write to eviction")
        axis.set_ylabel("share of writes")
        axis.legend(fontsize=7)

    return on


def main() -> None:
    chosen = start(__doc__, repeats=9)
    certificates = certificates_of(trustme.CA())
    proofs = {NOTHING: no_proof, SECRET: secret, CERTIFICATES: certificates, BOTH: both_of(certificates)}
    count = QUICK if chosen.quick else FULL
    with ExitStack() as stack:
        pairs = {
            name: stack.enter_context(two_hosts([LOOPBACK, LOOPBACK], proof, (f"{name}-a", f"{name}-b")))
            for name, proof in proofs.items()
        }
        found = interleaved({name: trips(hosts, count) for name, hosts in pairs.items()}, chosen.repeats)
    print(
        table("Write until evicted, back to back", ("us", *(f"p{p}" for p in PERCENTS), "added"), rows(found))
    )
    targets = [
        Target("C4", f"added by {name}, p50", added(found, name), ADDED_US_MAX, " us")
        for name in (SECRET, CERTIFICATES, BOTH)
    ]
    print(targets_table(targets))
    save(chosen.out, "proof_cost", {"one_way_us": percentiles(found)}, targets, draw(found))


if __name__ == "__main__":
    main()
