/* peers.c - see peers.h. */
#include "peers.h"

#include "doorbell.h"
#include "ring.h"

enum { NAME_TRIES_MAX = 16 }; /* each means that the bridge gave the slot away meanwhile */

void peers_acked(const struct attachment *a, struct source_slot *slot, uint64_t position)
{
    if (position <= ring_tail(a))
        store_release(&slot->acked, position + 1);
}

void peers_tell(struct source_slot *slot, bool reachable, uint64_t fresh_ms)
{
    store_release(&slot->fresh_ms, fresh_ms);
    store_release(&slot->reachable, reachable);
}

void peers_vouch(struct attachment *a, uint64_t until_ms)
{
    store_relaxed(&a->header->bridge_told_ms, clock_ms(a));
    store_release(&a->header->bridge_until_ms, until_ms); /* PEERS */
}

/* Incarnation and cursor are two words. A death between the stores leaves cursor 0 with the new
 * incarnation, which repairs more than necessary, never less. */
void peers_keep(struct source_slot *slot, uint64_t incarnation, uint64_t cursor)
{
    if (load_relaxed(&slot->incarnation) != incarnation) {
        store_release(&slot->cursor, 0);
        store_release(&slot->incarnation, incarnation);
    }
    store_release(&slot->cursor, cursor);
}

void peers_reset(struct source_slot *slot)
{
    store_relaxed(&slot->acked, NOT_ACKED);
    store_relaxed(&slot->fresh_ms, 0);
    store_relaxed(&slot->reachable, 0);
}

void peers_raise_incarnation(struct attachment *a, uint64_t incarnation)
{
    for (uint32_t i = 1; i < a->geo.source_slots; i++)
        store_relaxed(&a->sources[i].acked, NOT_ACKED);
    /* stored last: acknowledgements of the old incarnation are cleared before */
    store_release(&a->header->incarnation, incarnation);
}

void peers_leave(struct attachment *a, bool left)
{
    store_release(&a->header->bridge_left, left);
    fence_seq_cst(); /* LEFT: with recovery_join, between the mark and the count of the workers */
}

bool peers_left(const struct attachment *a)
{
    fence_seq_cst(); /* LEFT */
    return load_acquire(&a->header->bridge_left) != 0;
}

/* A reader that sees any of these stores also sees `since` change. A death in here leaves the slot without
 * a valid name. */
void peers_rename(const struct attachment *a, struct source_slot *slot, const char *name, size_t name_bytes)
{
    char old[NAME_BYTES] = {0}, padded[NAME_BYTES] = {0};
    uint64_t since = load_relaxed(&slot->since);
    if (since != SOURCE_CHANGES)
        racing_read(old, slot->name, sizeof old);
    memcpy(padded, name, name_bytes);
    store_relaxed(&slot->since, SOURCE_CHANGES);
    fence_release(); /* NAME */
    racing_write(slot->before, old, sizeof old);
    store_relaxed(&slot->before_since, since);
    racing_write(slot->name, padded, sizeof padded);
    store_release(&slot->since, ring_tail(a)); /* NAME */
}

bool peers_name_at(const struct attachment *a, uint32_t source, uint64_t sequence, char *name)
{
    const struct source_slot *slot = &a->sources[source];
    if (source < 1 || source >= a->geo.source_slots)
        return false;
    for (int tries = 0; tries < NAME_TRIES_MAX; tries++) {
        uint64_t since = load_acquire(&slot->since),
                 before_since = load_relaxed(&slot->before_since); /* NAME */
        racing_read(name, sequence > since ? slot->name : slot->before, NAME_BYTES);
        fence_acquire(); /* NAME */
        if (since == load_relaxed(&slot->since) && since != SOURCE_CHANGES)
            return name[0] && (sequence > since || sequence > before_since);
    }
    return false;
}

bool peers_look(const struct attachment *a, uint32_t source, struct peer *out)
{
    if (source < 1 || source >= a->geo.source_slots ||
        load_acquire(&a->sources[source].used) != SOURCE_MEMBER)
        return false;
    const struct source_slot *slot = &a->sources[source];
    uint64_t acked = load_acquire(&slot->acked);
    /* the tail is read after `acked`: no peer can have applied what was not yet written */
    bool possible = acked <= ring_tail(a) + 1;
    *out = (struct peer){
        .acked = possible ? acked : NOT_ACKED,
        .fresh_ms = load_acquire(&slot->fresh_ms),
        .reachable = load_acquire(&slot->reachable) != 0,
    };
    return true;
}

bool peers_synced(const struct attachment *a, uint64_t written)
{
    if (peers_left(a) || load_acquire(&a->header->bridge_until_ms) < clock_ms(a) ||
        !roster_bridge_alive(a)) /* PEERS */
        return false;
    for (uint32_t i = 1; i < a->geo.source_slots; i++) {
        struct peer peer;
        if (peers_look(a, i, &peer) && peer.reachable && peer.acked <= written)
            return false;
    }
    return true;
}

void peers_ask(struct attachment *a, uint64_t written)
{
    if (load_relaxed(&a->header->sync_wanted) >= written)
        return;
    raise_max(&a->header->sync_wanted, written);
    fence_seq_cst_after_rmw(); /* DOORBELL */
    doorbell_ring(a);
}

uint64_t peers_asked(const struct attachment *a)
{
    uint64_t wanted = load_acquire(&a->header->sync_wanted);
    /* the tail is read after `wanted`: a position beyond it is garbage */
    return wanted <= ring_tail(a) ? wanted : 0;
}
