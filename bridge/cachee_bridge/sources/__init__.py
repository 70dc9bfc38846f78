"""What a namespace knows of each source: who is a member, who is refused, who is being removed."""
