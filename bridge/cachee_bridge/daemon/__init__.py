"""The process: its segments, its operator's socket, its end."""
