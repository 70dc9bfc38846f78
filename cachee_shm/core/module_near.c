/* module_near.c - the near cache: this process's decoded objects, each proven against the segment at every use.
 *
 * A slot remembers an object and the entry that it was decoded from. Nothing ever invalidates it. Instead, each hit asks
 * the segment (cache_find_again): does the index still name this place, and has the page still the whole 48-bit
 * generation that it had? Then the bytes there are those that were decoded, since an entry is immutable as long as its
 * page's generation lasts (the pieces of a large value may be moved, never changed); and they are the key's value, since
 * whatever replaces or removes it changes that word first.
 * What does not show in the word is judged as for any other hit: clear, tags, lifetime, isolation. So a near hit is a
 * hit without the copy and without the decoding, and whatever holds for a hit holds for it.
 *
 * After a fork both processes have the objects, and the same mapping to ask.
 *
 * A key has NEAR_WAYS slots to be in, found by Python's hash of it, which str and bytes objects keep once it was asked
 * for. Only exact str and bytes come in here: hashing and comparing them runs no Python code. Letting an object go may
 * (it may have a __del__): that is always the last thing done.
 */
#include "module.h"

enum { NEAR_WAYS = 4 };

struct near_slot {
    PyObject *key, *value; /* both or neither */
    Py_hash_t key_hash;
    struct key bytes; /* of key */
    struct entry_ref e;
};

bool near_open(SegmentObject *s, uint32_t entries)
{
    uint32_t sets = 1;
    while (sets * NEAR_WAYS < entries)
        sets *= 2;
    s->near_sets = 0;
    s->near = entries ? PyMem_Calloc((size_t)sets * NEAR_WAYS, sizeof *s->near) : NULL;
    if (entries && !s->near) {
        PyErr_NoMemory();
        return false;
    }
    s->near_sets = entries ? sets : 0;
    return true;
}

struct near_taken near_take(SegmentObject *s)
{
    struct near_taken taken = {s->near, s->near_sets * NEAR_WAYS};
    s->near = NULL;
    s->near_sets = 0;
    return taken;
}

void near_release(struct near_taken taken)
{
    for (uint32_t i = 0; i < taken.count; i++) {
        Py_XDECREF(taken.slots[i].key);
        Py_XDECREF(taken.slots[i].value);
    }
    PyMem_Free(taken.slots);
}

int near_traverse(const SegmentObject *s, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < s->near_sets * NEAR_WAYS; i++) {
        Py_VISIT(s->near[i].key);
        Py_VISIT(s->near[i].value);
    }
    return 0;
}

uint32_t near_count(const SegmentObject *s)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < s->near_sets * NEAR_WAYS; i++)
        held += s->near[i].key != NULL;
    return held;
}

static bool takes(const SegmentObject *s, PyObject *key)
{
    return s->near_sets && (PyUnicode_CheckExact(key) || PyBytes_CheckExact(key));
}

static struct near_slot *set_of(const SegmentObject *s, Py_hash_t hash)
{
    return s->near + ((size_t)hash & (s->near_sets - 1)) * NEAR_WAYS;
}

/* The slot of this key in its set; NULL: it has none. */
static struct near_slot *slot_of(struct near_slot *set, PyObject *key, const struct key *k, Py_hash_t hash)
{
    for (struct near_slot *slot = set; slot < set + NEAR_WAYS; slot++) {
        if (slot->key == key)
            return slot;
        if (slot->key && slot->key_hash == hash && slot->bytes.n == k->n && memcmp(slot->bytes.bytes, k->bytes, k->n) == 0)
            return slot;
    }
    return NULL;
}

bool near_find(SegmentObject *s, PyObject *key, const struct key *k, struct entry_ref *e, enum finding *found, PyObject **out)
{
    if (!takes(s, key))
        return false;
    Py_hash_t hash = PyObject_Hash(key);
    struct near_slot *slot = slot_of(set_of(s, hash), key, k, hash);
    bool still;
    if (!slot)
        return false;
    *found = cache_find_again(&s->a, &slot->e, &still);
    if (!still)
        return false;
    if (*found == FOUND_NOTHING)
        return true;
    if (!cache_confirm(&s->a, &slot->e))
        return false;
    *out = Py_NewRef(slot->value);
    *e = slot->e;
    s->near_hits++;
    return true;
}

void near_keep(SegmentObject *s, PyObject *key, const struct key *k, const struct entry_ref *e, PyObject *value)
{
    if (!takes(s, key))
        return;
    Py_hash_t hash = PyObject_Hash(key);
    struct near_slot *set = set_of(s, hash), *slot = slot_of(set, key, k, hash);
    for (struct near_slot *empty = set; !slot && empty < set + NEAR_WAYS; empty++)
        if (!empty->key)
            slot = empty;
    if (!slot)
        slot = set + s->near_turn++ % NEAR_WAYS;
    PyObject *old_key = slot->key, *old_value = slot->value;
    *slot = (struct near_slot){
        .key = Py_NewRef(key), .value = Py_NewRef(value), .key_hash = hash, .bytes = *k, .e = *e,
    };
    Py_XDECREF(old_key);
    Py_XDECREF(old_value);
}
