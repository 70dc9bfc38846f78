"""One source's records in one namespace: sent, applied, asked for again, repaired; how fresh its word is."""
