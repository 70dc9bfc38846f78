"""Relays: sources that this host follows through others, and sources that it passes on."""
