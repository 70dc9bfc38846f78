"""What is said on a link: the frames, who proves what, the seals, and what a message costs."""
