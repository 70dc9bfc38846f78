"""The messages on a link: frames, proofs, seals, and what a message costs its sender."""
