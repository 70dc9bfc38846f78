"""A deterministic simulator: hosts, their segments, a network and an adversary around the real protocol core.

    python -m tests.simulation --seeds 2000    seeds 0..1999; each failure prints how to see it again
    python -m tests.simulation --campaign 2000 the same, compiled, in all processors; goes on where it was
                                               interrupted
    python -m tests.simulation --seed 42       one, with its story
    python -m tests.simulation --rules         each rule switched off, until a seed shows it

    watched.py    a segment of a simulated host: the stand-in of tests/stand_in, watched by the truth
    network.py    links as TCP has them: bytes in order, late, cut off in the middle, or not at all
    host.py       one host: workers, their verbs in steps, a bridge (the real Mesh) that dies and comes back
    loading.py    get_or_load, the real one, over that model
    zombies.py    a segment as one bridge holds it, until another takes its place
    truth.py      the origin, every announcement, and the invariants I1 to I10
    world.py      virtual time, and the adversary
    rules.py      the rules, each as a switch
    campaign.py   many seeds, with a record of those that were run
    compiled.py   the simulator and the protocol core compiled by mypyc, for a campaign
    commands.py   what the command line asks for

Nothing but the seed decides what happens.
"""
