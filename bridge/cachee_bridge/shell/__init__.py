"""The event loop around the protocol core: it performs effects, pumps rings, rings and hears doorbells."""
