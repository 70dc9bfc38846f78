"""What carries bytes: sockets, TLS, names of hosts, and the gate before strangers."""
