"""HTTP for people and for Prometheus: two listeners on the bridge's own event loop."""
