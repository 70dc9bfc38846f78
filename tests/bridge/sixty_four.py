"""What a host of a mesh of 64 in three regions tells the dashboard, one of them being dead: sixty_four.json.

    python -m tests.bridge.sixty_four       makes it anew, in two minutes

The mesh is the bridges' protocol itself, 64 times in one process. How many writes the checker saw is made up
there, since no time passes between these hosts.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from cachee_bridge.daemon.snapshot import snapshot
from tests.bridge.meshes import Cable, FakeStore

RECORD = Path(__file__).with_suffix(".json")
HOSTS, DEAD, FANOUT = 64, "web-17", 8
REGIONS = ("eu-west", "us-east", "ap-south")
MEET_S, DEAD_S = 9.0, 3.0


def region_of(name: str) -> str:
    return REGIONS[(int(name.removeprefix("web-")) - 1) * len(REGIONS) // HOSTS]


def recorded() -> dict[str, Any]:
    """As web-1 sees it."""
    answer: dict[str, Any] = json.loads(RECORD.read_text())
    return answer


def made() -> dict[str, Any]:
    cable = Cable()
    for number in range(1, HOSTS + 1):
        name, stores = f"web-{number}", {"shop": FakeStore(source_slots=128)}
        cable.node(name, ("web-1",), stores=stores, fanout=FANOUT, region=region_of(name))
    cable.run(MEET_S)
    cable.remove(cable.nodes[DEAD])
    cable.run(DEAD_S)
    told = snapshot("web-1", cable.nodes["web-1"].mesh, cable.now)
    return {**told, "region": region_of("web-1"), "checker": checked(told)}


def checked(told: dict[str, Any]) -> dict[str, Any]:
    rng, peers = random.Random(64), {}
    for peer in told["peers"]:
        if peer["state"] != "self":
            written = 250_000 + rng.randrange(9000)
            late = {"0.001": rng.randrange(5000), "0.01": rng.randrange(3), "0.1": 0, "1": 0, "60": 0}
            if peer["name"] == DEAD:
                late = {"0.001": 5000, "0.01": 900, "0.1": 320, "1": 300, "60": 20}
            visible = {window: written - missing for window, missing in late.items()}
            peers[peer["name"]] = {"region": region_of(peer["name"]), "canaries": written, "visible": visible}
    return {"peers": peers, "suspects": []}


if __name__ == "__main__":
    RECORD.write_text(json.dumps(made(), separators=(",", ":")) + "\n")
