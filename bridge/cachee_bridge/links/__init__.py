"""One link between two hosts: its handshake, its beats, its wire version, and what each end has told the
other."""
