"""cachee-bridge: one process per host that relays invalidations between segments of different hosts.

Floors (imports go downward only):

    1  effects  ports  frames      what goes out, what is asked of others, the wire
    2  auth  stream  relays  freshness  repair  addresses  fanout
    3  link  relaying  exchange    one connection's state table; what is said on it
    4  paths  membership  mesh     all links; input: bytes, records, now; output: effects
    5  transport  pump  daemon     sockets, the segment, signals

Floors 1 to 4 are the protocol core: no socket, no clock, no thread, no segment of their own.
"""
