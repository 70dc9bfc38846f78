/* census.h - how many entries can be read. For people: nothing in the core uses it.
 *
 * Each page knows how many entries were written into it. If these are few in all pages together, each entry
 * is checked, and the count is exact however large the segment is. Otherwise the count is an estimate from
 * a sample of the index: some of its buckets, and some of their words. So the time is bounded. An entry
 * that is written meanwhile may be counted or not.
 */
#ifndef CACHEE_CENSUS_H
#define CACHEE_CENSUS_H

#include "index.h"

enum {
    CENSUS_BUCKETS_MAX = 1 << 14, /* 1 MiB of words */
    CENSUS_LOOKS_MAX = 1 << 12,   /* each may be a cache miss */
};

uint64_t census_count(const struct attachment *a);

#endif
