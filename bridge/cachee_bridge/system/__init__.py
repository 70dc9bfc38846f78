"""What the bridge has of its machine: the clock, owners of files, the log, the service manager."""
