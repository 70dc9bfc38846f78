"""Whether what this host writes is seen at its peers in time: canaries, samples of keys, suspects, nines."""
