"""What the protocol core asks of others, is told, wants done, and shows."""
