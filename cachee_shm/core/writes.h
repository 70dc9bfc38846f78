/* writes.h - the parts of a write that cache.c and cas.c share: see cache.c. */
#ifndef CACHEE_WRITES_H
#define CACHEE_WRITES_H

#include "cache.h"

/* Room for the entry; a large value's spans are written first. False: there is none. */
bool write_reserve(struct attachment *a, struct write *w, struct place *at, uint64_t now_ms);

/* Copy the entry into reserved bytes; its version comes later. */
void write_put(struct attachment *a, const struct write *w, const struct place *at, uint64_t flags, uint64_t loaded_ms, uint64_t now_ms);

/* What it takes of a page, and when nothing of it can be served any more (0: never). */
uint32_t write_bytes(const struct write *w);
uint64_t write_ends(const struct write *w, uint64_t now_ms);

#endif
