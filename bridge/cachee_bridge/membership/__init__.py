"""Where peers can be dialled, and who tells of them: configuration, gossip, DNS."""
