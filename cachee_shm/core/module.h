/* module.h - what the binding's files share. module*.c alone see Python; they decide nothing about the cache.
 *
 * The lock: every verb runs from its first word to its last with the interpreter's lock held. A verb takes
 * well under a microsecond and never blocks, so releasing it would cost more than it gives; and so only one
 * thread at a time uses the attachment (one open page, one roster slot), without a mutex.
 *
 * Python code may do anything to the object that a verb works on: close it, attach it to another segment. It
 * runs where it is called (an encoder, a decoder, __index__, an iterator), where an object is let go, and,
 * before Python 3.12, where an object is made that the collector tracks. So a verb has three parts, in this
 * order:
 *
 *   1. Every argument is converted. Anything that belongs to the caller and may change is copied or
 *      referenced.
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

#include "census.h"
#include "msgpack.h"
#include "orphan.h"
#include "relay.h"
#include "segment.h"

enum { GET_TRIES_MAX = 16 };

/* An open `writing` block of this process. The core holds its key's hash, in one segment only; this struct
 * outlives the segment. */
struct open_block {
    uint64_t number; /* by which its owner ends it */
    uint64_t intent; /* the core's, in the life below */
    uint32_t life;
    PyObject *key; /* bytes */
};

/* Announcements that must be made in the next segment before anything else. */
struct debts {
    PyObject *keys, *tags; /* sets of bytes, or NULL */
    bool clear; /* announce a clear instead: an orphan was left, or there was no room for more keys */
};

struct FlightObject;
typedef struct FlightObject FlightObject;

typedef struct SegmentObject {
    PyObject_HEAD struct attachment a;
    bool open;
    /* move to the successor if the segment is retired; false: a retired segment is an error */
    bool follows;
    bool trying;       /* some thread is attaching to the successor */
    uint32_t pause_ms; /* between two tries */
    uint64_t try_at_ms;
    uint64_t incarnation_seen; /* the highest of any segment of this name */
    bool left_seen;            /* in the last segment the bridge had left */
    struct debts owed;
    struct attachment *orphan;  /* the segment that was left, while other processes live in it; or NULL */
    uint64_t orphan_second;     /* when it was last looked at */
    struct attachment *outside; /* the segment in which a forked child found no free roster slot; or NULL */
    struct open_block *blocks;
    uint32_t block_count, block_room;
    uint64_t block_number; /* the last given */
    /* the highest fencing number that this object knows, of any segment of this name */
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

/* Prepare for a verb: the segment is open, ours after a fork, and not retired. False: an error is set. If
 * no segment can be attached, enter() is true too, and s->a is a stand-in: reads miss, and the owe_
 * functions below remember each write. */
static ALWAYS_INLINE bool enter(SegmentObject *s)
{
    bool nothing_due = s->open && !s->orphan && segment_is_ours(&s->a) && !recovery_look_due(&s->a) &&
                       !segment_retired(&s->a);
    return LIKELY(nothing_due) || enter_after_all_else(s);
}

/* For giving back what was taken in an attachment (a lease, a lock) outside of a verb, perhaps long after
 * it. NULL: the object has another attachment by now, or this is a forked child. Like enter(), it checks
 * whether the file was truncated. Runs no Python code. */
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
    PyObject *held; /* the owner of `bytes`, if that is not the caller's object */
};

PyObject *repr_of(PyObject *o); /* how an error message shows an object */
bool key_from_any(PyObject *o, struct key *k);
bool hash_from(SegmentObject *s, PyObject *key, uint64_t *hash); /* enters */
bool parse_any_args(const char *verb, const char *const *names, int required, int most, PyObject *const *args,
                    Py_ssize_t n, PyObject *kwnames, PyObject **out);
bool ttl_from(const SegmentObject *s, PyObject *o, uint64_t *ttl_ms, bool *store_nothing);
bool tags_held(PyObject *o, PyObject **tags);
PyObject *keys_held(PyObject *o);
void tags_from(const SegmentObject *s, PyObject *tags, struct write *w);
/* Shorter by up to this share, by chance: what is loaded at once shall not end at once. */
uint64_t lifetime_shortened(uint64_t ttl_ms, double jitter);
uint64_t tag_hash(const SegmentObject *s, const struct key *tag);
bool value_from(SegmentObject *s, PyObject *o, struct value *v);

/* Does plain msgpack restore this object exactly: dicts with str keys, lists, 64-bit scalars, not too
 * deep? */
enum { PLAIN_DEPTH_MAX = 64 }; /* the same as in codec.py, which refuses deeper values */
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

/* The result of reading a value: an object, a torn read (try again), bytes that do not decode (a miss), an
 * error. */
enum reading { READ_OK, READ_TORN, READ_GARBAGE, READ_ERROR };
enum reading read_value(SegmentObject *s, const struct entry_ref *e, PyObject **out);
/* bytes of msgpack: does decoding them cost no more than their length? */
bool bytes_bounded(PyObject *data);
enum reading read_bytes(SegmentObject *s, const struct entry_ref *e, PyObject **data);

/* module_owed.c: announcements for the next segment; open `writing` blocks, which move along. None of these
 * functions runs Python code. */
void owe_key(SegmentObject *s, const struct key *k);
void owe_tag(SegmentObject *s, const struct key *tag);
void owe_clear(SegmentObject *s);      /* because this process may have missed something */
void owe_everything(SegmentObject *s); /* the caller's clear() */
bool owes_anything(const SegmentObject *s);
void pay_owed(SegmentObject *s); /* in the segment that s has just been attached to */
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
 * FOUND_NOTHING, or -1 with an error set. A token contains the number of the attachment too, so that a fill
 * with a token of a replaced segment is refused. */
#define TOKEN_POSITION_BITS 52
#define TOKEN_POSITION_MASK ((1ull << TOKEN_POSITION_BITS) - 1)
static inline uint64_t token_of(const SegmentObject *s, uint64_t position)
{
    return (uint64_t)s->attachments << TOKEN_POSITION_BITS | position;
}
struct given {        /* what another host says of a value that it has given: see module_fetch.c */
    uint64_t age_ms;  /* since its load began, at least */
    uint64_t left_ms; /* of its lifetime; 0: it never ends */
    uint32_t tags;
    uint64_t tag[TAGS_MAX];
};
struct fill {
    uint64_t token, started_ms, grace_ms, sliding_ms;
    uint32_t load_ms;
    double jitter;
    PyObject *ttl, *tags, *local;
    bool announced;            /* as a write is */
    bool ahead;                /* loaded before anybody asked */
    const struct given *given; /* NULL: this host has loaded it */
};
struct age { /* of a found value, at the time when it was found */
    uint64_t expires_ms, now_ms;
    uint32_t load_ms;
};
int find_value(SegmentObject *s, PyObject *key, PyObject **out, struct age *age);
int fill_value(SegmentObject *s, const struct fill *f, PyObject *key, PyObject *value, PyObject **encoded);

/* module_near.c. near_open: false with an error set. near_release drops the references that near_take has
 * removed. Like near_keep it may run Python code, so a verb calls it last. */
struct near_taken {
    struct near_slot *slots;
    uint32_t count;
};
enum near_objects { NEAR_NONE, NEAR_SHARED, NEAR_COPIES };              /* whether mutable objects are kept */
bool near_open(SegmentObject *s, uint64_t bytes_max, uint32_t objects); /* 0: no near cache */
struct near_taken near_take(SegmentObject *s);
void near_release(struct near_taken taken);
int near_traverse(const SegmentObject *s, visitproc visit, void *arg);
uint32_t near_count(const SegmentObject *s);
/* True: the near cache has answered, with a new reference in *out and the entry in *e, unless nothing was
 * found. Call enter() before. */
bool near_find(SegmentObject *s, PyObject *key, const struct key *k, struct entry_ref *e, enum finding *found,
               PyObject **out);
/* The object for the caller, for a value from near_find: the value itself, or a copy. It steals the
 * reference to `value`. It may run Python code (the garbage collector), so the segment is not read after
 * it. NULL: an error is set. */
PyObject *near_given(const SegmentObject *s, PyObject *value);
/* Keeps a value that was read and perhaps decoded. `attachments` is s->attachments before the decoding, which
 * may run any code: a value of another attachment is not kept. */
void near_keep(SegmentObject *s, uint32_t attachments, PyObject *key, const struct key *k,
               const struct entry_ref *e, PyObject *value);

/* module_sources.c: a source's slot. NULL: an error is set. */
struct source_slot *source_at(SegmentObject *s, unsigned int i);

/* module_bridge.c: retires the segment; the error. */
PyObject *ring_broken(SegmentObject *s);

/* module_sockets.c */
PyObject *module_send_each(PyObject *module, PyObject *const *args, Py_ssize_t n);

/* module_older.c: the type Older. -1: an error is set. */
int older_type_into(PyObject *module);

/* The verbs, by file; module.c gathers them into the type. */
extern PyMethodDef module_verbs[];    /* module_verbs.c */
bool loading_ready(PyObject *module); /* module_loading.c: its types */
/* module_transactions.c, as the three below: what transactions.py calls */
extern PyMethodDef module_transactions[];
/* the current tokens of all open attachments */
PyObject *transaction_tokens(PyObject *module, PyObject *unused);
PyObject *transaction_hooks(PyObject *module, PyObject *args);
bool transactions_ready(PyObject *module);
extern PyMethodDef module_loading[];
bool writing_ready(PyObject *module); /* module_writing.c: its types */
bool locks_ready(PyObject *module);   /* module_lock.c: its type */
/* of a lock: fencing numbers of later segments will be higher, unless this one is garbage */
void fence_seen(SegmentObject *s, uint64_t fence);
extern PyMethodDef module_cas[];        /* module_cas.c */
extern PyMethodDef module_prewarm[];    /* module_prewarm.c */
extern PyMethodDef module_incr[];       /* module_incr.c */
extern PyMethodDef module_bridge[];     /* module_bridge.c */
extern PyMethodDef module_sources[];    /* module_sources.c */
extern PyMethodDef module_statistics[]; /* module_statistics.c */
extern PyMethodDef module_journal[];    /* module_journal.c */
extern PyGetSetDef module_attributes[]; /* module_statistics.c */
extern PyMethodDef module_canary[];     /* module_canary.c */
extern PyMethodDef module_fetch[];      /* module_fetch.c */
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
/* the text up to a zero byte; invalid UTF-8 and control characters are replaced */
PyObject *text_from(const char *bytes, size_t bytes_max);

/* A method that takes fast arguments, in the type that PyMethodDef wants. */
#define FAST(f) (PyCFunction)(void (*)(void))(f)

#ifdef CACHEE_REENTRY
#include "module_reentry.h"
#endif

#endif
