/* older.c - see older.h.
 *
 * Only the bridge runs this file; workers of both layouts read and write their segments meanwhile. A bridge
 * that dies here loses nothing: a cursor is stored only after the records up to it have been announced, and
 * relayed_generation is stored last, so the next bridge repeats what was not finished. To announce or to
 * clear twice costs evictions only.
 */
#include "older.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peers.h"
#include "ring.h"

#define FOR_EVER_MS ((uint64_t)1 << 62) /* later than any real time */

enum { OLDER_FINISH_RECORDS = 1 << 20, ROSTER_SLOT_BYTES_MAX = 1 << 16, FENCES_PER_RING_SLOT_MAX = 1024 };

/* Layout 2, whose header says less of itself. */
enum {
    TWO = 2,
    TWO_ROSTER_SLOT = 320,
    TWO_SOURCE_SLOT = 128,
    TWO_LEASE = 8,
    TWO_FENCES = 16,
    TWO_DOORBELL_AT = 704
};

/* The source of records that stand for announcements of other hosts, or of this host's other segment. */
enum { SOURCE_ELSEWHERE = META_SOURCE_BITS };

/* ---- where things are ---- */

static uint64_t older_up_to_64(uint64_t at) { return (at + 63) / 64 * 64; }

static struct kept older_places_of_two(const struct header *h)
{
    struct kept k = {.layout = TWO,
                     .roster_slots = h->roster_slots,
                     .roster_slot_bytes = TWO_ROSTER_SLOT,
                     .doorbell_at = TWO_DOORBELL_AT};
    k.ring_slots = h->ring_slots;
    k.tag_slots = h->tag_slots;
    k.fences_per_ring_slot = TWO_FENCES;
    k.roster_at = HEADER_BYTES;
    uint64_t sources_at = older_up_to_64(k.roster_at + (uint64_t)h->roster_slots * TWO_ROSTER_SLOT);
    uint64_t leases_at = older_up_to_64(sources_at + (uint64_t)h->source_slots * TWO_SOURCE_SLOT);
    k.ring_at = older_up_to_64(leases_at + (uint64_t)h->lease_slots * TWO_LEASE);
    k.fences_at = older_up_to_64(k.ring_at + (uint64_t)k.ring_slots * sizeof(pair128));
    k.own_writes_at = older_up_to_64(k.fences_at + (uint64_t)k.ring_slots * TWO_FENCES * 8);
    k.tag_fences_at = older_up_to_64(k.own_writes_at + (uint64_t)k.ring_slots * TWO_FENCES * 4);
    k.own_tags_at = older_up_to_64(k.tag_fences_at + (uint64_t)k.tag_slots * 8);
    return k;
}

static bool older_is_power_of_two(uint64_t n) { return n && (n & (n - 1)) == 0; }

/* A region in whole words behind the header, within the file; raises *end to its end. */
static bool older_fits(uint64_t at, uint64_t bytes, uint64_t file_bytes, uint64_t *end)
{
    if (at < HEADER_BYTES || at % sizeof(pair128) || at > file_bytes || bytes > file_bytes - at)
        return false;
    *end = at + bytes > *end ? at + bytes : *end;
    return true;
}

static bool older_believable(const struct kept *k, uint64_t file_bytes, uint64_t *end)
{
    uint64_t fences = (uint64_t)k->ring_slots * k->fences_per_ring_slot;
    *end = HEADER_BYTES;
    return older_is_power_of_two(k->ring_slots) && k->ring_slots <= 1u << 24 &&
           older_is_power_of_two(k->fences_per_ring_slot) &&
           k->fences_per_ring_slot <= FENCES_PER_RING_SLOT_MAX && k->tag_slots >= 1 &&
           k->tag_slots <= 1u << 24 && k->roster_slots <= ROSTER_SLOTS_MAX && k->roster_slot_bytes >= 8 &&
           k->roster_slot_bytes % 8 == 0 && k->roster_slot_bytes <= ROSTER_SLOT_BYTES_MAX &&
           k->doorbell_at % 8 == 0 && k->doorbell_at <= KEPT_AT - 8 &&
           older_fits(k->roster_at, (uint64_t)k->roster_slots * k->roster_slot_bytes, file_bytes, end) &&
           older_fits(k->ring_at, (uint64_t)k->ring_slots * sizeof(pair128), file_bytes, end) &&
           older_fits(k->fences_at, fences * 8, file_bytes, end) &&
           older_fits(k->own_writes_at, fences * 4, file_bytes, end) &&
           older_fits(k->tag_fences_at, (uint64_t)k->tag_slots * 8, file_bytes, end) &&
           older_fits(k->own_tags_at, (uint64_t)k->tag_slots * 4, file_bytes, end);
}

static enum older_state older_places(unsigned char *page, uint64_t file_bytes, struct kept *k, uint64_t *end)
{
    struct header *h = (struct header *)(void *)page;
    uint32_t layout = (uint32_t)(h->fingerprint >> 56);
    uint64_t state = load_acquire(&h->state);
    if (state != SEGMENT_READY && state != SEGMENT_RETIRED)
        return OLDER_NOT_READY;
    if (h->magic != LAYOUT_MAGIC || layout < TWO || layout == LAYOUT_NUMBER)
        return OLDER_UNREADABLE;
    *k = layout == TWO ? older_places_of_two(h) : *segment_kept(h);
    bool described = layout == TWO || (k->number >= KEPT_NUMBER && k->layout == layout);
    return described && older_believable(k, file_bytes, end) ? OLDER_OPEN : OLDER_UNREADABLE;
}

static void older_point_into(struct older *o, const struct kept *k)
{
    struct attachment *a = &o->a;
    o->layout = k->layout;
    o->roster_at = k->roster_at;
    o->roster_slot_bytes = k->roster_slot_bytes;
    o->doorbell = (a64 *)(void *)(a->base + k->doorbell_at);
    a->geo.roster_slots = k->roster_slots;
    a->geo.ring_slots = k->ring_slots;
    a->geo.tag_slots = k->tag_slots;
    a->header = (struct header *)(void *)a->base;
    a->ring = (pair128 *)(void *)(a->base + k->ring_at);
    a->fences = (a64 *)(void *)(a->base + k->fences_at);
    a->own_writes = (a32 *)(void *)(a->base + k->own_writes_at);
    a->tag_fences = (a64 *)(void *)(a->base + k->tag_fences_at);
    a->own_tags = (a32 *)(void *)(a->base + k->own_tags_at);
    a->ring_mask = k->ring_slots - 1;
    a->ring_bits = (uint32_t)__builtin_ctz(k->ring_slots);
    a->fence_shift = 64 - a->ring_bits - (uint32_t)__builtin_ctz(k->fences_per_ring_slot);
    o->kept = segment_kept(a->header);
}

enum older_state older_open(struct older *o, int fd, const struct attachment *mine)
{
    _Alignas(64) unsigned char page[HEADER_BYTES];
    struct stat s;
    struct kept k;
    memset(o, 0, sizeof *o);
    o->a.fd = fd;
    o->a.frozen_ms = -1;
    o->a.slot = UINT32_MAX;
    if (fstat(fd, &s) != 0)
        return OLDER_FAILED;
    if (pread(fd, page, sizeof page, 0) != (ssize_t)sizeof page)
        return OLDER_NOT_READY;
    o->a.file_inode = (uint64_t)s.st_ino;
    o->a.file_device = (uint64_t)s.st_dev;
    enum older_state state = older_places(page, (uint64_t)s.st_size, &k, &o->mapped_bytes);
    if (state != OLDER_OPEN)
        return state;
    o->a.base = segment_map(fd, o->mapped_bytes);
    if (!o->a.base)
        return OLDER_FAILED;
    older_point_into(o, &k);
    o->same_keys =
        memcmp(((struct header *)(void *)page)->hash_key, mine->hash_key, sizeof mine->hash_key) == 0;
    return OLDER_OPEN;
}

void older_close(struct older *o)
{
    roster_release_byte(o->a.bridge_lock);
    if (o->a.base)
        segment_unmap(o->a.base, o->mapped_bytes);
    if (o->a.fd >= 0)
        close(o->a.fd);
    o->a.bridge_lock = NULL;
    o->a.base = NULL;
    o->a.fd = -1;
}

/* ---- relaying ---- */

static bool older_clear(struct attachment *mine)
{
    return ring_append(mine, &(struct record){.kind = RECORD_CLEAR, .own = true}) != RING_CORRUPT;
}

static bool older_evict(struct attachment *mine, enum record_kind kind, uint64_t hash)
{
    uint64_t s = ring_append(mine, &(struct record){.hash = hash, .kind = kind, .own = kind != RECORD_LOCAL});
    if (s != RING_CORRUPT && kind != RECORD_TAG)
        index_kill_lower(mine, hash, s << 1);
    return s != RING_CORRUPT;
}

/* Announce here what a record of the other segment says. A record of a kind that this build does not know,
 * or with unknown digest bits, may stand for more than one key: it becomes a clear. */
static bool older_announce(const struct older *o, struct attachment *mine, const struct record *r)
{
    if (r->source)
        return true; /* a peer's record: this bridge gets it from that peer */
    if (r->kind == RECORD_LOCAL && !r->hash)
        return true; /* a line, about no key */
    if (!o->same_keys)
        return older_clear(mine);
    switch (r->kind) {
    case RECORD_ADD:
    case RECORD_SET:
    case RECORD_GUARDED:
        return older_evict(mine, r->own ? RECORD_KEY : RECORD_LOCAL, r->hash);
    case RECORD_LOCAL:
        return older_evict(mine, RECORD_LOCAL, r->hash);
    case RECORD_KEY:
        return r->digest ? older_clear(mine) : older_evict(mine, RECORD_KEY, r->hash);
    case RECORD_TAG:
        return older_evict(mine, RECORD_TAG, r->hash);
    default:
        return older_clear(mine);
    }
}

static bool older_lapped(const struct older *o, uint64_t cursor, uint64_t tail)
{
    return cursor > tail || tail - cursor > o->a.geo.ring_slots;
}

bool older_relay(struct older *o, struct attachment *mine, uint32_t records_max)
{
    uint64_t cursor = load_acquire(&o->a.header->pump_cursor), tail = ring_tail(&o->a);
    bool good = true;
    for (uint32_t n = 0; good && cursor != tail && n < records_max; n++) {
        struct record r;
        if (!older_lapped(o, cursor, tail) && ring_read(&o->a, cursor + 1, &r)) {
            good = older_announce(o, mine, &r);
            cursor += good;
        } else {
            good = older_clear(mine); /* what the ring has lost */
            cursor = good ? tail : cursor;
        }
    }
    store_release(&o->a.header->pump_cursor, cursor);
    return good;
}

/* The record evicts its entries, and clear_own the local ones. The position exists already, so whatever is
 * filled or set from now on is not below it. */
void older_silence(struct older *o)
{
    if (o->layout != TWO) {
        store_release(&o->a.header->serve_until_ms, SERVE_NOTHING);
        return;
    }
    uint64_t s = ring_append(&o->a, &(struct record){.kind = RECORD_ALL, .source = SOURCE_ELSEWHERE});
    if (s == RING_CORRUPT)
        older_retire(o);
    else
        raise_max(&o->a.header->clear_own, s);
}

/* Convert a time of this build's clock to the clock of layout 2, which stands still in suspend. */
static uint64_t older_time_there(const struct older *o, const struct attachment *mine, uint64_t ms)
{
    uint64_t ahead = load_relaxed(&mine->header->suspended_ms) - load_relaxed(&o->a.header->suspended_ms);
    return ms > FOR_EVER_MS || ms < ahead ? ms : ms - ahead;
}

void older_serve_until(struct older *o, const struct attachment *mine, uint64_t ms)
{
    store_release(&o->a.header->serve_until_ms,
                  o->layout == TWO ? older_time_there(o, mine, ms) : SERVE_NOTHING);
}

void older_vouch(struct older *o, const struct attachment *mine, uint64_t until_ms)
{
    store_relaxed(&o->a.header->bridge_told_ms, clock_ms(&o->a));
    store_release(&o->a.header->bridge_until_ms, older_time_there(o, mine, until_ms)); /* PEERS */
}

/* ---- taking it over ---- */

static bool older_served_by_another(const struct older *o, const struct attachment *mine)
{
    return load_acquire(&o->kept->relayed_to) != load_acquire(&mine->header->incarnation) ||
           load_acquire(&o->kept->relayed_generation) != load_acquire(&o->a.header->bridge_generation);
}

/* The older segment keeps the higher incarnation, so that peers follow it if its own bridge comes back. If
 * that bridge has served it meanwhile, this segment's incarnation is first raised above it, so that peers
 * follow this one. */
static void older_order_incarnations(struct older *o, struct attachment *mine)
{
    uint64_t theirs = load_acquire(&o->a.header->incarnation);
    if (load_acquire(&o->a.header->bridge_generation) && theirs >= load_acquire(&mine->header->incarnation))
        peers_raise_incarnation(mine, theirs + 1);
    raise_max(&o->a.header->incarnation, load_acquire(&mine->header->incarnation) + 1);
}

enum older_taken older_take(struct older *o, struct attachment *mine)
{
    if (!o->a.bridge_lock && !(o->a.bridge_lock = roster_hold_byte(&o->a, LOCK_BRIDGE)))
        return OLDER_HAS_BRIDGE;
    bool first = older_served_by_another(o, mine);
    if (first)
        older_order_incarnations(o, mine);
    uint64_t generation = add_relaxed(&o->a.header->bridge_generation, 1) + 1;
    if (first) {
        uint64_t tail = ring_tail(&o->a); /* before the clear, which so covers all up to it */
        older_silence(o);
        if (!older_clear(mine))
            return OLDER_CORRUPT;
        store_release(&o->a.header->pump_cursor, tail);
        store_release(&o->kept->relayed_to, load_acquire(&mine->header->incarnation));
    }
    /* stored last: after a death before this, the next bridge does all of it again */
    store_release(&o->kept->relayed_generation, generation);
    return OLDER_TAKEN;
}

/* ---- its doorbell, its end ---- */

bool older_arm(struct older *o)
{
    store_relaxed(o->doorbell, 1);
    fence_seq_cst(); /* DOORBELL */
    if (ring_tail(&o->a) == load_relaxed(&o->a.header->pump_cursor))
        return true;
    older_disarm(o);
    return false;
}

void older_disarm(struct older *o) { store_relaxed(o->doorbell, 0); }

bool older_in_use(const struct older *o) { return roster_in_use(&o->a); }

void older_retire(struct older *o) { store_release(&o->a.header->state, SEGMENT_RETIRED); }

/* Has a process died in the other segment whose debts are not paid? */
static bool older_any_dead(const struct older *o)
{
    for (uint32_t slot = 0; slot < o->a.geo.roster_slots; slot++) {
        const unsigned char *at = o->a.base + o->roster_at + (uint64_t)slot * o->roster_slot_bytes;
        if (load_acquire((const a64 *)(const void *)at) & ROSTER_STATE_MASK)
            return true;
    }
    return false;
}

bool older_finish(struct older *o, struct attachment *mine)
{
    return older_relay(o, mine, OLDER_FINISH_RECORDS) && (!older_any_dead(o) || older_clear(mine));
}
