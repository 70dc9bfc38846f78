"""The sources of a namespace: members, those that cannot be followed, and those that are being removed."""
