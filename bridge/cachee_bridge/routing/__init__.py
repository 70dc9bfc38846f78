"""By way of whom a source is followed, and what a relay passes on."""
