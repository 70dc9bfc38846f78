"""The bridge: one process per host that keeps the caches of one namespace coherent."""
