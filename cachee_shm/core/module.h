/* module.h - what the binding's files share. module*.c alone see Python; they decide nothing about the cache.
 *
 * The lock: every verb runs from its first word to its last with the interpreter's lock held. A verb takes
 * well under a microsecond and never blocks, so releasing it would cost more than it gives; and it makes the
 * attachment (one open page, one roster slot) single-threaded without a mutex.
 *
 * Python code may do anything to the object that a verb works on: close it, attach it to another segment. It
 * runs where it is called (an encoder, a decoder, __index__, an iterator), where an object is let go, and,
 * before Python 3.12, where an object is made that the collector tracks. So a verb has three parts, in this
 * order:
 *
 *   1. Every argument is converted. Whatever belongs to the caller and may change is copied or held.
 *   2. enter(), then the work on the segment. No Python code runs; what is read goes into memory of this
 *      process.
 *   3. The result is made of that memory. Neither the mapping nor s->a is read any more.
 *
 * A verb that needs the segment again begins again with enter(). module_reentry.h checks this: in a build of
 * its own, it runs a caller's function at each point where Python code may run.
 *
 * One interpreter only: a second one in this process would share the attachments without sharing the lock.
 */
#ifndef CACHEE_MODULE_H
#define CACHEE_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "msgpack.h"
#include "orphan.h"
#include "relay.h"
#include "segment.h"

enum { GET_TRIES_MAX = 16 };

/* An open `writing` block of this process. The core knows its key's hash, in one segment; this is what
 * outlives that. */
struct open_block {
    uint64_t number; /* by which its owner ends it */
    uint64_t intent; /* the core's, in the life below */
    uint32_t life;
    PyObject *key; /* bytes */
};

/* What has to be announced in the next segment before anything else. */
struct debts {
    PyObject *keys, *tags; /* sets of bytes, or NULL */
    bool clear; /* instead of all that: an orphan was left, or there was no room to remember more */
};

struct FlightObject;
typedef struct FlightObject FlightObject;

typedef struct SegmentObject {
    PyObject_HEAD struct attachment a;
    bool open;
    bool follows;      /* into the successor of a segment that was retired; else that is an error */
    bool trying;       /* some thread is attaching to the successor */
    uint32_t pause_ms; /* between two tries */
    uint64_t try_at_ms;
    uint64_t incarnation_seen; /* the highest of any segment of this name */
    bool left_seen;            /* the last of them said that the bridge has left */
    struct debts owed;
    struct attachment *orphan;  /* the segment that was left, while others live in it; or NULL */
    uint64_t orphan_second;     /* when it was last looked at */
    struct attachment *outside; /* where a forked child has no slot, for the roster is full; or NULL */
    struct open_block *blocks;
    uint32_t block_count, block_room;
    uint64_t block_number; /* the last given */
    /* the highest fencing number of a lock that this object knows of, of whatever segment of this name */
    uint64_t fence_seen;
    uint32_t attachments;   /* how often this object was attached, modulo 2^12 in tokens */
    struct near_slot *near; /* module_near.c; NULL without a near cache */
    struct near_head *near_heads;
    uint32_t near_sets, near_turn, near_hand;
    uint64_t near_bytes, near_bytes_max;
    uint8_t near_objects;         /* enum near_objects */
    uint64_t near_hits;           /* of this process */
    struct FlightObject *flights; /* module_loading.c: the loads of this process that others may wait for */
    PyObject *encode, *decoders;  /* of codec.py: a callable; a tuple of them, by type tag */
    /* bytes and str from this size on go to the codec, which may compress them */
    Py_ssize_t compress_bytes;
    struct SegmentObject *next; /* all open ones: a forked child re-attaches them */
} SegmentObject;

struct error_classes { /* from cachee_shm.errors */
    PyObject *segment_error, *layout_mismatch, *no_space, *roster_full, *segment_retired, *closed,
        *time_namespace, *bridge_running, *access_denied, *process_limit, *segment_busy, *key_too_long,
        *invalid_key, *invalid_ttl, *not_a_counter, *not_local, *value_too_large, *unserializable;
};
extern struct error_classes errors;
extern PyTypeObject *segment_type;

/* The namespace's name, for an error: the mapping may be gone before the message is made. */
struct label {
    char text[NAME_BYTES + 1];
};

static inline struct label label_of(const SegmentObject *s)
{
    struct label label = {{0}};
    memcpy(label.text, s->a.header->name, NAME_BYTES);
    return label;
}

/* module.c: set an error and return NULL; do whatever is due before a verb. */
PyObject *fail(PyObject *type, const char *format, ...);
bool enter_after_all_else(SegmentObject *s);
SegmentObject *segments_open(void); /* all of this process, by `next` */
/* for what the bridge alone writes: nor may another have taken its place */
bool enter_as_bridge(SegmentObject *s);

/* Be ready for a verb: open, ours after a fork, not retired. False: an error is set. Where no segment can be
 * had, enter() is true too, and s->a is a stand-in: reads miss, and the owe_ functions below remember each
 * write. */
static ALWAYS_INLINE bool enter(SegmentObject *s)
{
    bool nothing_due = s->open && !s->orphan && segment_is_ours(&s->a) && !recovery_look_due(&s->a) &&
                       !segment_retired(&s->a);
    return LIKELY(nothing_due) || enter_after_all_else(s);
}

/* Where what was taken in an attachment (a lease, a lock) is given back: outside of a verb, perhaps long
 * after it. NULL: the object has another attachment by now, or this is a forked child. It looks as enter()
 * does, for the file may have been cut. Runs no Python code. */
static inline struct attachment *attachment_still(SegmentObject *s, uint32_t attachments)
{
    if (!s->open || s->attachments != attachments || !segment_is_ours(&s->a))
        return NULL;
    recovery_look_after(&s->a);
    return &s->a;
}

/* module_values.c: Python objects to plain ones and back. False: an error is set. */
struct key {
    const void *bytes;
    uint32_t n;
};

struct value {
    const void *bytes;
    Py_ssize_t n;
    uint8_t type;
    char scratch[8];
    PyObject *held; /* what `bytes` belongs to, if it is not the caller's object */
};

PyObject *repr_of(PyObject *o); /* what an error says of an object */
bool key_from_any(PyObject *o, struct key *k);
bool hash_from(SegmentObject *s, PyObject *key, uint64_t *hash); /* enters */
bool parse_any_args(const char *verb, const char *const *names, int required, int most, PyObject *const *args,
                    Py_ssize_t n, PyObject *kwnames, PyObject **out);
bool ttl_from(const SegmentObject *s, PyObject *o, uint64_t *ttl_ms, bool *store_nothing);
bool tags_held(PyObject *o, PyObject **tags);
PyObject *keys_held(PyObject *o);
void tags_from(const SegmentObject *s, PyObject *tags, struct write *w);
uint64_t tag_hash(const SegmentObject *s, const struct key *tag);
bool value_from(SegmentObject *s, PyObject *o, struct value *v);

/* Does msgpack alone give this back as it was: dicts with keys of str, lists, scalars of 64 bits, not too
 * deep? */
enum { PLAIN_DEPTH_MAX = 64 }; /* as deep as codec.py goes: it refuses what is deeper */
bool value_is_plain(PyObject *o, int depth);

/* Most keys are ASCII. */
static ALWAYS_INLINE bool key_from(PyObject *o, struct key *k)
{
    if (UNLIKELY(!PyUnicode_Check(o) || !PyUnicode_IS_COMPACT_ASCII(o) ||
                 PyUnicode_GET_LENGTH(o) > KEY_BYTES_MAX))
        return key_from_any(o, k);
    k->bytes = (PyASCIIObject *)o + 1; /* as PyUnicode_DATA, which asks again what kind of str it is */
    k->n = (uint32_t)PyUnicode_GET_LENGTH(o);
    return true;
}

/* Positional and keyword arguments of a METH_FASTCALL verb, in the order of `names`; absent ones stay
 * NULL. */
static ALWAYS_INLINE bool parse_args(const char *verb, const char *const *names, int required, int most,
                                     PyObject *const *args, Py_ssize_t n, PyObject *kwnames, PyObject **out)
{
    if (UNLIKELY(kwnames || n < required || n > most))
        return parse_any_args(verb, names, required, most, args, n, kwnames, out);
    for (int i = 0; i < most; i++)
        out[i] = i < n ? args[i] : NULL;
    return true;
}

/* What came of reading a value: an object, a torn read (try again), bytes that do not decode (a miss), an
 * error. */
enum reading { READ_OK, READ_TORN, READ_GARBAGE, READ_ERROR };
enum reading read_value(SegmentObject *s, const struct entry_ref *e, PyObject **out);
bool bytes_bounded(PyObject *data); /* bytes of msgpack: does decoding them cost no more than their length? */
enum reading read_bytes(SegmentObject *s, const struct entry_ref *e, PyObject **data);

/* module_owed.c: what has to be announced in the next segment; open `writing` blocks, which move along. None
 * runs Python code. */
void owe_key(SegmentObject *s, const struct key *k);
void owe_tag(SegmentObject *s, const struct key *tag);
void owe_clear(SegmentObject *s);      /* of this process's own making */
void owe_everything(SegmentObject *s); /* the caller's clear() */
bool owes_anything(const SegmentObject *s);
void pay_owed(SegmentObject *s); /* in the segment that s was attached to just now */
void forget_owed(SegmentObject *s);
void orphan_keep(SegmentObject *s, struct attachment *left); /* takes it over */
void orphan_watch(SegmentObject *s);
void orphan_forget(SegmentObject *s);
void outside_forget(SegmentObject *s);
bool block_begin(SegmentObject *s, const struct key *k, uint64_t *number);
void block_end(SegmentObject *s, uint64_t number);
void blocks_move(SegmentObject *s, uint32_t life_before);
void blocks_forget(SegmentObject *s);

/* Seconds as ms; `name` is the option's, for the error. False: that is set. */
bool period_from(PyObject *o, const char *name, uint64_t *ms);

/* An int from 0 to the largest of the type, and nothing else: 0 and OverflowError or TypeError, else 1. Also
 * for "O&" of PyArg_ParseTuple, whose own "K" and "I" take -1 for the largest number. */
int number64_from(PyObject *o, void *number);
int number32_from(PyObject *o, void *number);

/* module_verbs.c, for module_loading.c. find_value: FOUND (or FOUND_STALE) with a new reference in *out,
 * FOUND_NOTHING, or -1 with an error set. A token names the attachment too: one of a segment that was
 * replaced meanwhile must refuse its fill. */
#define TOKEN_POSITION_BITS 52
#define TOKEN_POSITION_MASK ((1ull << TOKEN_POSITION_BITS) - 1)
static inline uint64_t token_of(const SegmentObject *s, uint64_t position)
{
    return (uint64_t)s->attachments << TOKEN_POSITION_BITS | position;
}
struct fill {
    uint64_t token, started_ms, grace_ms, sliding_ms;
    uint32_t load_ms;
    double jitter;
    PyObject *ttl, *tags, *local;
    bool announced; /* as a write is */
};
struct age { /* of what was found, when it was found */
    uint64_t expires_ms, now_ms;
    uint32_t load_ms;
};
int find_value(SegmentObject *s, PyObject *key, PyObject **out, struct age *age);
int fill_value(SegmentObject *s, const struct fill *f, PyObject *key, PyObject *value, PyObject **encoded);

/* module_near.c. near_open: false with an error set. What near_take has taken away, near_release lets go:
 * like near_keep it may run Python code, so a verb does it last. */
struct near_taken {
    struct near_slot *slots;
    uint32_t count;
};
enum near_objects { NEAR_NONE, NEAR_SHARED, NEAR_COPIES }; /* what is kept of objects that can change */
bool near_open(SegmentObject *s, uint64_t bytes_max, uint32_t objects); /* 0: no near cache */
struct near_taken near_take(SegmentObject *s);
void near_release(struct near_taken taken);
int near_traverse(const SegmentObject *s, visitproc visit, void *arg);
uint32_t near_count(const SegmentObject *s);
/* True: answered, with a new reference in *out, and its entry, unless nothing was found. Both need a verb
 * that has entered. */
bool near_find(SegmentObject *s, PyObject *key, const struct key *k, struct entry_ref *e, enum finding *found,
               PyObject **out);
/* What the caller gets for a value that near_find returned: the value, or a copy. It takes `value` over. It
 * may run Python code (the garbage collector), so the segment is not read after it. NULL: an error is set. */
PyObject *near_given(const SegmentObject *s, PyObject *value);
/* Keeps a value that was read and perhaps decoded. `attachments` is s->attachments before the decoding, which
 * may run any code: a value of another attachment is not kept. */
void near_keep(SegmentObject *s, uint32_t attachments, PyObject *key, const struct key *k,
               const struct entry_ref *e, PyObject *value);

/* module_sources.c: a source's slot. NULL: an error is set. */
struct source_slot *source_at(SegmentObject *s, unsigned int i);

/* module_bridge.c: retires the segment; the error. */
PyObject *ring_broken(SegmentObject *s);

/* module_older.c: the type Older. -1: an error is set. */
int older_type_into(PyObject *module);

/* The verbs, by file; module.c gathers them into the type. */
extern PyMethodDef module_verbs[];    /* module_verbs.c */
bool loading_ready(PyObject *module); /* module_loading.c: its types */
/* module_transactions.c, as the three below: what transactions.py calls */
extern PyMethodDef module_transactions[];
/* the tokens of now of all open attachments */
PyObject *transaction_tokens(PyObject *module, PyObject *unused);
PyObject *transaction_hooks(PyObject *module, PyObject *args);
bool transactions_ready(PyObject *module);
extern PyMethodDef module_loading[];
bool writing_ready(PyObject *module); /* module_writing.c: its types */
bool locks_ready(PyObject *module);   /* module_lock.c: its type */
/* of a lock: those of later segments are above it, unless it is garbage */
void fence_seen(SegmentObject *s, uint64_t fence);
extern PyMethodDef module_cas[];        /* module_cas.c */
extern PyMethodDef module_incr[];       /* module_incr.c */
extern PyMethodDef module_bridge[];     /* module_bridge.c */
extern PyMethodDef module_sources[];    /* module_sources.c */
extern PyMethodDef module_statistics[]; /* module_statistics.c */
extern PyGetSetDef module_attributes[]; /* module_statistics.c */
extern PyMethodDef module_peers[];      /* module_peers.c */
extern PyMethodDef module_stream_in[];  /* module_stream_in.c */
PyObject *Segment_subscript(SegmentObject *s, PyObject *key);
int Segment_ass_subscript(SegmentObject *s, PyObject *key, PyObject *value);
int Segment_contains(SegmentObject *s, PyObject *key);
Py_ssize_t Segment_length(SegmentObject *s);

/* Lists of rows (module_peers.c). A verb copies what it lists out of the segment, then makes objects of the
 * copies. */
struct rows {
    void *at; /* NULL: an error is set */
    uint32_t count, room;
    size_t row_bytes;
};
struct rows rows_for(uint32_t room, size_t row_bytes);
void *rows_next(struct rows *rows);
PyObject *rows_listed(struct rows *rows, PyObject *(*object_of)(const void *row)); /* frees them */
/* up to a zero; what is no UTF-8, or would move a terminal, is replaced */
PyObject *text_from(const char *bytes, size_t bytes_max);

/* A method that takes fast arguments, in the type that PyMethodDef wants. */
#define FAST(f) (PyCFunction)(void (*)(void))(f)

#ifdef CACHEE_REENTRY
#include "module_reentry.h"
#endif

#endif
