"""A model of one segment, as the core behaves: the stand-in of the bridge's tests, fuzzer and simulator.

What races in the real segment (steps of one verb against steps of another) is atomic here. A worker may
still die between its record and its entry: then it leaves a debt, and `sweep` pays it. The model has room for
every entry: it evicts nothing for want of memory.

    wire.py       kinds of records; payloads as hosts send them
    ring.py       the ring, its fences, the tables of own writes, the guard's marks
    entries.py    the verbs of workers, and the debts of the dead
    sources.py    the source table, and what workers are told of peers
    segment.py    what the bridge calls: pack, maps, apply, heal

`test_stand_in.py` holds the model to the real segment, verb by verb.
"""
