"""Where peers can be dialled, as the configuration, peers and the DNS say."""
