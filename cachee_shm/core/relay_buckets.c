/* relay_buckets.c - see relay_buckets.h. */
#include "relay_buckets.h"

/* Positions in the tables have 32 bits: with a cursor further back, old and new cannot be told apart. */
#define BACK_MAX (1ull << 31)

/* Did a bucket's last own record come after the cursor? `tail` was read after `own`: a record's word is raised before the
 * tail moves, so no word is further than one ahead. One that has not been raised for 2^32 records may be taken for a
 * newer one; never the other way round. */
static bool came_after(uint32_t own, uint64_t cursor, uint64_t tail)
{
    return own - (uint32_t)cursor - 1 <= (uint32_t)(tail - cursor);
}

static bool any_after(const struct attachment *a, const a32 *table, uint32_t count, uint64_t cursor)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t own = load32_acquire(&table[i]);
        if (came_after(own, cursor, ring_tail(a)))
            return true;
    }
    return false;
}

bool relay_owes(const struct attachment *a, uint64_t cursor)
{
    uint64_t tail = ring_tail(a);
    if (cursor > tail || tail - cursor > BACK_MAX)
        return true;
    return load_acquire(&a->header->clear_own) > cursor ||
           any_after(a, a->own_tags, a->geo.tag_slots, cursor) ||
           any_after(a, a->own_writes, a->geo.ring_slots * FENCES_PER_RING_SLOT, cursor);
}
