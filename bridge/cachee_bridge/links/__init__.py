"""One link between two hosts: its handshake, its beats, its wire, and what both ends have told each other."""
