"""A process that does one verb a number of times and nothing else: what instructions.py runs under valgrind.

    python one_verb.py VERB COUNT KEYS BRIDGED

All but the loop is the same whatever COUNT is, so that the difference of two runs is the loop's.
"""

from __future__ import annotations

import gc
import random
import sys
from itertools import islice

from cachee_shm import Cache
from cachee_shm.segment import embedded, private

FOR_EVER_MS = 1 << 62
VALUE = bytes(range(100))
DRAWN = 20_000  # more than COUNT ever is


def main() -> None:
    verb, count, keys, bridged = sys.argv[1:]
    spec = private(embedded("bench"))
    if bridged == "yes":
        spec = spec._replace(has_bridge=True, default_ttl_ms=3_600_000, isolation_ttl_ms=10_000)
    with Cache(spec) as cache:
        if bridged == "yes":
            cache.bridge_acquire()  # from now on every write reckons with a bridge
            cache.set_serve_until(FOR_EVER_MS)
        names = [f"user:{number}" for number in range(int(keys))]
        for name in names:
            cache.set(name, VALUE)
        chosen = islice(random.Random(1).choices(names, k=DRAWN), int(count))
        get, put = cache.get, cache.set
        gc.disable()
        if verb == "get":
            for name in chosen:
                get(name)
        else:
            for name in chosen:
                put(name, VALUE)


if __name__ == "__main__":
    main()
