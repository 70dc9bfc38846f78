/* module_near.c - the near cache: objects that this process keeps, each proven against the segment at every
 * use.
 *
 * A slot remembers an object and the entry that it was made from. Nothing ever invalidates it. Instead, each
 * hit asks the segment (cache_find_again): does the index still name this place, and has the page still the
 * whole 48-bit generation that it had? Then the bytes there are those that were read, since an entry is
 * immutable as long as its page's generation lasts (the pieces of a large value may be moved, never changed);
 * and they are the key's value, since whatever replaces or removes it changes that word first. Everything
 * that does not change the word is checked as for any other hit: clear, tags, lifetime, isolation. So a
 * near hit is a hit without the copy and the decoding, with all guarantees of a hit.
 *
 * After a fork both processes have the objects, and the same mapping to ask.
 *
 * What is counted as bytes: the table, and of each slot the key and the value as Python objects. The count
 * never exceeds near_bytes_max. The size of bytes and str is exact. Any other value is estimated from its
 * stored bytes (see size_of), since measuring it would run Python code.
 *
 * A key has NEAR_WAYS slots to be in, its set. Python's hash of the key finds the set; str and bytes objects
 * store that hash. The head of a set holds a tag of each slot: a lookup that finds no tag reads no slot.
 *
 * Admission: bytes, str and numbers are cheap to read from the segment. Such a value is kept if the last
 * value that its set did not keep had the same key. So keys that are read only once displace nothing. A
 * value that had to be decoded is kept at once.
 *
 * Eviction is CLOCK over the sets. A call looks at NEAR_STEPS_MAX sets at most. If that frees too little, the
 * value is not kept.
 *
 * Only exact str and bytes come in as keys: hashing and comparing them runs no Python code. Releasing an
 * object may run code (its __del__), so that is always done last.
 */
#include "module.h"

enum {
    NEAR_WAYS = 4,
    NEAR_STEPS_MAX = 64,
    NEAR_SHARE_MAX = 8,
    NEAR_SETS_MAX = 1 << 20,
    OBJECT_BYTES = 64,
    OBJECT_TIMES = 8
};

struct near_slot {
    PyObject *key, *value; /* both or neither */
    struct key bytes;      /* of key */
    struct entry_ref e;
    uint32_t size; /* of key and value, in bytes */
    bool used;     /* since the CLOCK hand passed */
};

struct near_head {
    uint32_t tag[NEAR_WAYS]; /* 0: the slot is empty */
    uint32_t candidate;      /* the tag of the last key that asked for admission */
};

static const uint64_t SET_BYTES = NEAR_WAYS * sizeof(struct near_slot) + sizeof(struct near_head);

/* The table takes at most half of the bytes. Too few bytes for one set are no near cache. */
bool near_open(SegmentObject *s, uint64_t bytes_max, uint32_t objects)
{
    uint32_t sets = bytes_max >= 2 * SET_BYTES;
    while (sets && sets < NEAR_SETS_MAX && 2 * sets * SET_BYTES <= bytes_max / 2)
        sets *= 2;
    s->near_sets = s->near_hand = s->near_turn = 0;
    s->near_bytes = sets * SET_BYTES;
    s->near_bytes_max = bytes_max;
    s->near_objects = (uint8_t)objects;
    s->near = sets ? PyMem_Calloc(sets, SET_BYTES) : NULL; /* the slots, then the heads */
    if (sets && !s->near) {
        PyErr_NoMemory();
        return false;
    }
    s->near_heads = s->near ? (struct near_head *)(s->near + (size_t)sets * NEAR_WAYS) : NULL;
    s->near_sets = sets;
    return true;
}

struct near_taken near_take(SegmentObject *s)
{
    struct near_taken taken = {s->near, s->near_sets * NEAR_WAYS};
    s->near = NULL;
    s->near_heads = NULL;
    s->near_sets = 0;
    s->near_bytes = 0;
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

/* ---- one key's slots ---- */

static bool takes(const SegmentObject *s, PyObject *key)
{
    return s->near_sets && (PyUnicode_CheckExact(key) || PyBytes_CheckExact(key));
}

static size_t set_of(const SegmentObject *s, Py_hash_t hash) { return (size_t)hash & (s->near_sets - 1); }

static uint32_t tag_of(Py_hash_t hash) { return (uint32_t)((uint64_t)hash >> 32) | 1; }

/* The slot of this key in its set; NULL: it has none. */
static struct near_slot *slot_of(const SegmentObject *s, PyObject *key, const struct key *k, Py_hash_t hash)
{
    const struct near_head *head = s->near_heads + set_of(s, hash);
    uint32_t tag = tag_of(hash);
    for (size_t way = 0; way < NEAR_WAYS; way++) {
        struct near_slot *slot = s->near + set_of(s, hash) * NEAR_WAYS + way;
        if (head->tag[way] != tag)
            continue;
        if (slot->key == key || (slot->bytes.n == k->n && memcmp(slot->bytes.bytes, k->bytes, k->n) == 0))
            return slot;
    }
    return NULL;
}

bool near_find(SegmentObject *s, PyObject *key, const struct key *k, struct entry_ref *e, enum finding *found,
               PyObject **out)
{
    if (!takes(s, key))
        return false;
    struct near_slot *slot = slot_of(s, key, k, PyObject_Hash(key));
    bool still;
    if (!slot)
        return false;
    *found = cache_find_again(&s->a, &slot->e, &still);
    if (!still) {
        s->a.near_hash = slot->e.hash, s->a.near_version = slot->e.version;
        return false;
    }
    if (*found == FOUND_NOTHING)
        return true;
    if (!cache_confirm(&s->a, &slot->e))
        return false;
    *out = Py_NewRef(slot->value);
    *e = slot->e;
    slot->used = true;
    s->near_hits++;
    return true;
}

/* ---- copies ---- */

static bool can_change(PyObject *o) { return PyDict_CheckExact(o) || PyList_CheckExact(o); }

static PyObject *copy_of(PyObject *o);

static bool copy_dict_items(PyObject *copy)
{
    PyObject *key, *item;
    Py_ssize_t at = 0;
    while (PyDict_Next(copy, &at, &key, &item)) {
        if (!can_change(item))
            continue;
        PyObject *own = copy_of(item);
        /* the key is there: the dict does not grow */
        bool good = own && PyDict_SetItem(copy, key, own) == 0;
        Py_XDECREF(own);
        if (!good)
            return false;
    }
    return true;
}

static bool copy_list_items(PyObject *copy)
{
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(copy); at++) {
        PyObject *item = PyList_GET_ITEM(copy, at);
        if (!can_change(item))
            continue;
        PyObject *own = copy_of(item);
        if (!own || PyList_SetItem(copy, at, own) < 0) /* it takes `own` over */
            return false;
    }
    return true;
}

/* A deep copy. Only for a value that value_is_plain accepts, which bounds the depth. NULL: an error is
 * set. */
static PyObject *copy_of(PyObject *o)
{
    if (!can_change(o))
        return Py_NewRef(o);
    bool is_dict = PyDict_CheckExact(o);
    PyObject *copy = is_dict ? PyDict_Copy(o) : PyList_GetSlice(o, 0, PyList_GET_SIZE(o));
    if (copy && !(is_dict ? copy_dict_items(copy) : copy_list_items(copy)))
        Py_CLEAR(copy);
    return copy;
}

PyObject *near_given(const SegmentObject *s, PyObject *value)
{
    if (s->near_objects != NEAR_COPIES || !can_change(value))
        return value;
    PyObject *copy = copy_of(value);
    Py_DECREF(value);
    return copy;
}

/* ---- keeping ---- */

static bool is_immutable(PyObject *o)
{
    return PyBytes_CheckExact(o) || PyUnicode_CheckExact(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o);
}

/* In bytes. It is an estimate for what is neither bytes nor str. */
static uint64_t size_of(PyObject *o, uint64_t stored_bytes)
{
    if (PyBytes_CheckExact(o))
        return offsetof(PyBytesObject, ob_sval) + 1 + (uint64_t)PyBytes_GET_SIZE(o);
    if (PyUnicode_CheckExact(o) && PyUnicode_IS_COMPACT_ASCII(o))
        return sizeof(PyASCIIObject) + (uint64_t)PyUnicode_GET_LENGTH(o) + 1;
    if (PyUnicode_CheckExact(o))
        return sizeof(PyCompactUnicodeObject) + ((uint64_t)PyUnicode_GET_LENGTH(o) + 1) * PyUnicode_KIND(o);
    return OBJECT_BYTES + OBJECT_TIMES * stored_bytes;
}

/* A str that is not ASCII also stores its UTF-8, once it was a key. */
static uint64_t size_of_key(PyObject *key, const struct key *k)
{
    bool keeps_utf8 = PyUnicode_CheckExact(key) && !PyUnicode_IS_COMPACT_ASCII(key);
    return size_of(key, 0) + (keeps_utf8 ? k->n + 1 : 0);
}

struct gone { /* the references that are released last */
    PyObject *objects[2 * (NEAR_STEPS_MAX * NEAR_WAYS + 1)];
    uint32_t count;
};

static void empty(SegmentObject *s, struct near_slot *slot, struct gone *gone)
{
    size_t at = (size_t)(slot - s->near);
    if (!slot->key)
        return;
    gone->objects[gone->count++] = slot->key;
    gone->objects[gone->count++] = slot->value;
    s->near_heads[at / NEAR_WAYS].tag[at % NEAR_WAYS] = 0;
    s->near_bytes -= slot->size;
    *slot = (struct near_slot){.key = NULL};
}

/* An empty slot of the set; else one that was not used since the last call; else each in turn. */
static struct near_slot *slot_to_take(SegmentObject *s, size_t set)
{
    struct near_slot *first = s->near + set * NEAR_WAYS, *unused = NULL;
    for (struct near_slot *slot = first; slot < first + NEAR_WAYS; slot++) {
        if (!slot->key)
            return slot;
        if (!slot->used && !unused)
            unused = slot;
        slot->used = false;
    }
    return unused ? unused : first + s->near_turn++ % NEAR_WAYS;
}

static bool make_room(SegmentObject *s, uint64_t size, struct gone *gone)
{
    for (int steps = 0; steps < NEAR_STEPS_MAX && s->near_bytes + size > s->near_bytes_max; steps++) {
        const struct near_head *head = s->near_heads + s->near_hand;
        for (size_t way = 0; way < NEAR_WAYS; way++) {
            struct near_slot *slot = s->near + (size_t)s->near_hand * NEAR_WAYS + way;
            if (!head->tag[way])
                continue;
            if (!slot->used)
                empty(s, slot, gone);
            slot->used = false;
        }
        s->near_hand = (s->near_hand + 1) % s->near_sets;
    }
    return s->near_bytes + size <= s->near_bytes_max;
}

/* Steals the reference to `value`. */
static void keep(SegmentObject *s, PyObject *key, const struct key *k, const struct entry_ref *e,
                 PyObject *value)
{
    Py_hash_t hash = PyObject_Hash(key);
    size_t set = set_of(s, hash);
    struct gone gone = {.count = 0};
    struct near_slot *slot = slot_of(s, key, k, hash);
    uint64_t size = size_of_key(key, k) + size_of(value, e->value_bytes);
    bool fits = size <= s->near_bytes_max / NEAR_SHARE_MAX;
    if (!slot && fits)
        slot = slot_to_take(s, set);
    if (slot)
        empty(s, slot, &gone);
    if (fits && make_room(s, size, &gone)) {
        *slot = (struct near_slot){
            .key = Py_NewRef(key), .value = value, .bytes = *k, .e = *e, .size = (uint32_t)size};
        s->near_heads[set].tag[slot - s->near - set * NEAR_WAYS] = tag_of(hash);
        s->near_bytes += size;
        value = NULL;
    }
    Py_XDECREF(value);
    for (uint32_t i = 0; i < gone.count; i++)
        Py_DECREF(gone.objects[i]);
}

/* Whether a value that is cheap to read is kept: its key was the last one that asked in this set, or has a
 * slot already. */
static bool is_admitted(SegmentObject *s, PyObject *key, const struct key *k)
{
    Py_hash_t hash = PyObject_Hash(key);
    struct near_head *head = s->near_heads + set_of(s, hash);
    bool admitted = head->candidate == tag_of(hash) || slot_of(s, key, k, hash);
    head->candidate = tag_of(hash);
    return admitted;
}

void near_keep(SegmentObject *s, uint32_t attachments, PyObject *key, const struct key *k,
               const struct entry_ref *e, PyObject *value)
{
    bool decoded = entry_type(e) >= TYPE_CODEC,
         shared = is_immutable(value) || s->near_objects == NEAR_SHARED;
    if (!s->open || s->attachments != attachments || !takes(s, key) ||
        !(shared || (decoded && s->near_objects)))
        return;
    if (!decoded && (!is_immutable(value) || !is_admitted(s, key, k)))
        return;
    if (!shared && !value_is_plain(value, PLAIN_DEPTH_MAX))
        return;
    PyObject *own = shared ? Py_NewRef(value) : copy_of(value);
    if (!own)
        PyErr_Clear(); /* the caller has its value: it is not kept */
    /* copying may have run Python code, which may leave the segment */
    else if (s->open && s->attachments == attachments)
        keep(s, key, k, e, own);
    else
        Py_DECREF(own);
}
