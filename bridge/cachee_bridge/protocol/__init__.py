"""The protocol core: all links and namespaces of a host. Bytes and `now` in, effects out."""
