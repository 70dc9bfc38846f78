/* module_owed.c - announcements that a process owes while it has no segment. See module.h.
 *
 * While no segment can be attached, a write cannot be announced. The process remembers the bytes of the key
 * or tag (not the hash, because the next segment may hash with another key), and announces them when it is
 * attached. Their number is bounded; beyond it, a clear() is owed instead. A process that leaves a retired
 * segment may owe a clear too: see recovery_owes_clear.
 *
 * An open `writing` block outlives its segment: its intent is written again into each segment to which the
 * process attaches.
 */
#include "module.h"

enum { OWED_MAX = 1024, BLOCKS_MIN = 8 };

/* ---- writes ---- */

void owe_clear(SegmentObject *s)
{
    Py_CLEAR(s->owed.keys);
    Py_CLEAR(s->owed.tags);
    s->owed.clear = true;
}

/* The items are exact bytes objects, so hashing and comparing them runs no Python code. Creating a set may
 * run Python code before Python 3.12, and that code may call this function. */
static bool put(PyObject **set, const struct key *k)
{
    PyObject *bytes = PyBytes_FromStringAndSize(k->bytes, k->n), *made = *set ? NULL : PySet_New(NULL);
    if (!*set)
        *set = made;
    else
        Py_XDECREF(made);
    bool good = bytes && *set && PySet_Add(*set, bytes) == 0 && PySet_GET_SIZE(*set) <= OWED_MAX;
    Py_XDECREF(bytes);
    return good;
}

static void owe(SegmentObject *s, PyObject **set, const struct key *k)
{
    if (s->owed.clear || put(set, k))
        return;
    PyErr_Clear();
    owe_clear(s);
}

/* ---- outside ----
 *
 * A forked child that finds the roster full gets no slot, but has the segment mapped. Appending to the ring
 * takes no slot. So a write of such a child is announced at once, however the child ends. It is also
 * remembered, because the segment may have a successor by then. */

void outside_forget(SegmentObject *s)
{
    if (!s->outside)
        return;
    segment_detach(s->outside);
    PyMem_Free(s->outside);
    s->outside = NULL;
}

static void tell(SegmentObject *s, enum record_kind kind, const struct key *k)
{
    struct attachment *a = s->outside;
    if (!a || roster_look(a, 0) || segment_retired(a))
        return;
    uint64_t secret[2] = {a->hash_key[0], kind == RECORD_TAG ? ~a->hash_key[1] : a->hash_key[1]};
    uint64_t hash = k ? hash_key(secret, k->bytes, k->n) : 0;
    uint64_t sequence = ring_append(a, &(struct record){.hash = hash, .kind = kind, .own = true});
    if (kind == RECORD_KEY && sequence != RING_CORRUPT)
        index_kill_lower(a, hash, sequence << 1);
    doorbell_ring(a);
}

void owe_key(SegmentObject *s, const struct key *k)
{
    tell(s, RECORD_KEY, k);
    owe(s, &s->owed.keys, k);
}

void owe_tag(SegmentObject *s, const struct key *tag)
{
    tell(s, RECORD_TAG, tag);
    owe(s, &s->owed.tags, tag);
}

void owe_everything(SegmentObject *s)
{
    tell(s, RECORD_CLEAR, NULL);
    owe_clear(s);
}

bool owes_anything(const SegmentObject *s) { return s->owed.clear || s->owed.keys || s->owed.tags; }

void forget_owed(SegmentObject *s)
{
    owe_clear(s);
    s->owed.clear = false;
}

static struct key key_of(PyObject *bytes)
{
    return (struct key){.bytes = PyBytes_AS_STRING(bytes), .n = (uint32_t)PyBytes_GET_SIZE(bytes)};
}

/* Announce one item of the set, and take it out. False: the segment is retired again; the item stays owed. */
static bool pay_one(SegmentObject *s, PyObject *set, bool is_tag)
{
    PyObject *bytes = PySet_Pop(set);
    struct key k = key_of(bytes);
    bool paid = (is_tag ? cache_delete_tag(&s->a, tag_hash(s, &k))
                        : cache_delete(&s->a, hash_key(s->a.hash_key, k.bytes, k.n))) >= 0;
    if (!paid)
        owe_clear(s);
    Py_DECREF(bytes);
    return paid;
}

static bool clear_paid(SegmentObject *s)
{
    return s->orphan ? orphan_clear(s->orphan, &s->a, true) : cache_clear(&s->a) >= 0;
}

void pay_owed(SegmentObject *s)
{
    if (s->owed.clear && !clear_paid(s))
        return;
    while (s->owed.tags && PySet_GET_SIZE(s->owed.tags))
        if (!pay_one(s, s->owed.tags, true))
            return;
    while (s->owed.keys && PySet_GET_SIZE(s->owed.keys))
        if (!pay_one(s, s->owed.keys, false))
            return;
    forget_owed(s);
}

/* ---- the orphan ----
 *
 * A process that leaves a segment for its successor keeps the old one mapped while other processes are in it,
 * and clears the successor if one of them dies (orphan.h). It also keeps its slot in the old one until it has
 * a successor and has announced there what it owes. Until then its own writes are announced nowhere, and the
 * other processes must see its death. */

void orphan_forget(SegmentObject *s)
{
    if (!s->orphan)
        return;
    segment_detach(s->orphan);
    PyMem_Free(s->orphan);
    s->orphan = NULL;
}

void orphan_keep(SegmentObject *s, struct attachment *left)
{
    if (s->orphan)
        owe_clear(s); /* processes in it may have died since the last look */
    orphan_forget(s);
    outside_forget(s);
    if (!segment_is_ours(left) && left->file_name[0]) {
        s->outside = left;
        return;
    }
    s->orphan = left;
    bool tells = segment_is_ours(left) && left->file_name[0] && roster_checked_fd(left) >= 0;
    if (!tells || (!segment_has_others(left) && !owes_anything(s)))
        orphan_forget(s);
}

void orphan_watch(SegmentObject *s)
{
    uint64_t second = clock_second();
    if (second == s->orphan_second || s->a.stand_in)
        return;
    s->orphan_second = second;
    if (!segment_is_ours(s->orphan)) { /* the parent's, from before a fork: this child was never in it */
        orphan_forget(s);
        return;
    }
    pay_owed(s);
    if (owes_anything(s)) /* the successor is retired */
        return;
    segment_only_watch(s->orphan);
    bool others = segment_has_others(s->orphan); /* read first: a later death is seen the next time */
    if (!orphan_clear(s->orphan, &s->a, false))
        owe_clear(s);
    else if (!others)
        orphan_forget(s);
}

/* ---- blocks ---- */

static bool make_room(SegmentObject *s)
{
    uint32_t room = s->block_room ? 2 * s->block_room : BLOCKS_MIN;
    if (s->block_count < s->block_room)
        return true;
    struct open_block *blocks = PyMem_Realloc(s->blocks, room * sizeof *blocks);
    if (!blocks) {
        PyErr_NoMemory();
        return false;
    }
    s->blocks = blocks;
    s->block_room = room;
    return true;
}

static uint64_t intend(SegmentObject *s, PyObject *key)
{
    struct key k = key_of(key);
    return roster_intend(&s->a, hash_key(s->a.hash_key, k.bytes, k.n));
}

bool block_begin(SegmentObject *s, const struct key *k, uint64_t *number)
{
    PyObject *key = make_room(s) ? PyBytes_FromStringAndSize(k->bytes, k->n) : NULL;
    if (!key)
        return false;
    *number = ++s->block_number;
    s->blocks[s->block_count++] =
        (struct open_block){.number = *number, .intent = intend(s, key), .life = s->a.life, .key = key};
    return true;
}

/* A block that was open at a fork is the parent's: the child has nothing to settle. */
void block_end(SegmentObject *s, uint64_t number)
{
    for (uint32_t i = 0; i < s->block_count; i++) {
        struct open_block block = s->blocks[i];
        if (block.number != number)
            continue;
        if (block.life == s->a.life)
            roster_settle(&s->a, block.intent);
        s->blocks[i] = s->blocks[--s->block_count];
        Py_DECREF(block.key);
        return;
    }
}

void blocks_move(SegmentObject *s, uint32_t life_before)
{
    for (uint32_t i = 0; i < s->block_count; i++) {
        struct open_block *block = &s->blocks[i];
        if (block->life != life_before)
            continue;
        block->intent = intend(s, block->key);
        block->life = s->a.life;
    }
}

void blocks_forget(SegmentObject *s)
{
    for (uint32_t i = 0; i < s->block_count; i++)
        Py_DECREF(s->blocks[i].key);
    PyMem_Free(s->blocks);
    s->blocks = NULL;
    s->block_count = s->block_room = 0;
}
