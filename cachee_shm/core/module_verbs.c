/* module_verbs.c - get, set, delete and their kin. See module.h. */
#include "module_transactions.h"

static void note_age(const SegmentObject *s, const struct entry_ref *e, enum finding f, struct age *age)
{
    if (UNLIKELY(age != NULL) && f != FOUND_NOTHING)
        *age = (struct age){
            .expires_ms = entry_expires_ms(e), .now_ms = clock_ms(&s->a), .load_ms = entry_load_ms(e)};
}

/* FOUND (or FOUND_STALE) with a new reference in *out, FOUND_NOTHING, or -1 with an error set. */
static ALWAYS_INLINE int fetch_once(SegmentObject *s, PyObject *key_object, PyObject **out, struct age *age)
{
    struct key k;
    struct entry_ref e;
    if (!key_from(key_object, &k) || !enter(s))
        return -1;
    enum finding f;
    if (UNLIKELY(s->near != NULL) && near_find(s, key_object, &k, &e, &f, out)) {
        note_age(s, &e, f, age);
        return *out && !(*out = near_given(s, *out)) ? -1 : (int)f;
    }
    uint64_t hash = hash_key(s->a.hash_key, k.bytes, k.n);
    for (int tries = 0; tries < GET_TRIES_MAX; tries++) {
        f = cache_find(&s->a, hash, k.bytes, k.n, &e);
        if (UNLIKELY(f == FOUND_NOTHING))
            break;
        uint32_t attachments = s->attachments;
        note_age(s, &e, f, age);
        enum reading r = read_value(s, &e, out);
        if (UNLIKELY(r == READ_ERROR))
            return -1;
        if (r == READ_OK && UNLIKELY(s->near != NULL))
            near_keep(s, attachments, key_object, &k, &e, *out);
        if (LIKELY(r == READ_OK))
            return f;
        if (r == READ_GARBAGE) {
            if (s->open)
                count(&s->a, STAT_UNDECODABLE, 1);
            break;
        }
    }
    return FOUND_NOTHING;
}

/* If the look finds that the segment has a successor, look again there. */
int find_value(SegmentObject *s, PyObject *key, PyObject **out, struct age *age)
{
    *out = NULL;
    int found = transaction_hides();
    if (UNLIKELY(found != 0))
        return found < 0 ? -1 : FOUND_NOTHING;
    for (int looks = 0; looks < 2; looks++) {
        found = fetch_once(s, key, out, age);
        if (LIKELY(found != FOUND_NOTHING) || !s->open || !segment_retired(&s->a) || s->a.stand_in)
            break;
    }
    return found;
}

/* What get() and its kin see: a value that is past its lifetime is a miss. */
static int fetch_fresh(SegmentObject *s, PyObject *key, PyObject **out)
{
    int f = find_value(s, key, out, NULL);
    if (UNLIKELY(f < 0))
        return f;
    if (UNLIKELY(f == FOUND_STALE))
        Py_CLEAR(*out);
    if (s->open)
        count(&s->a, f == FOUND ? STAT_HITS : STAT_MISSES, 1);
    return f == FOUND;
}

/* ---- reading verbs ---- */

static PyObject *Segment_get(SegmentObject *s, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"key", "default"};
    PyObject *in[2], *value;
    if (!parse_args("get", names, 1, 2, args, n, kwnames, in))
        return NULL;
    int found = fetch_fresh(s, in[0], &value);
    if (LIKELY(found != 0))
        return found < 0 ? NULL : value;
    return Py_NewRef(in[1] ? in[1] : Py_None);
}

static PyObject *Segment_lookup(SegmentObject *s, PyObject *key)
{
    PyObject *value;
    int found = fetch_fresh(s, key, &value);
    if (found < 0)
        return NULL;
    return Py_BuildValue("(NN)", found ? value : Py_NewRef(Py_None), PyBool_FromLong(found));
}

/* For loading.py: find(key, counted) -> (state, value) with state 0 miss, 1 fresh, 2 stale. A caller that
 * looks again while it waits counts once. */
static PyObject *Segment_find(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    PyObject *value;
    if (n != 2)
        return fail(PyExc_TypeError, "_find takes 2 arguments");
    int f = find_value(s, args[0], &value, NULL);
    if (f < 0)
        return NULL;
    if (s->open && args[1] == Py_True)
        count(&s->a, f == FOUND ? STAT_HITS : STAT_MISSES, 1);
    return Py_BuildValue("(iN)", f, value ? value : Py_NewRef(Py_None));
}

enum { ASKED_AHEAD = 16 };

/* Prefetch for the next lookups, for all of them at once: first their buckets, then their entries. It changes
 * nothing, and the lookups do not rely on it. It reads buckets, so it must enter first: the file may have
 * been truncated. False: an error is set. */
static bool ask_ahead(SegmentObject *s, PyObject *held, Py_ssize_t from)
{
    uint64_t hashes[ASKED_AHEAD];
    int count = 0;
    struct key k;
    if (!enter(s))
        return false;
    for (Py_ssize_t i = from; i < PyTuple_GET_SIZE(held) && count < ASKED_AHEAD; i++, count++) {
        if (!key_from(PyTuple_GET_ITEM(held, i), &k)) /* never: keys_held has checked them */
            break;
        hashes[count] = hash_key(s->a.hash_key, k.bytes, k.n);
        index_prefetch(&s->a, hashes[count]);
    }
    for (int i = 0; i < count; i++)
        index_prefetch_entry(&s->a, hashes[i]);
    return true;
}

static PyObject *Segment_get_many(SegmentObject *s, PyObject *keys)
{
    PyObject *held = keys_held(keys), *hits = held ? PyDict_New() : NULL, *value;
    for (Py_ssize_t i = 0; hits && i < PyTuple_GET_SIZE(held); i++) {
        bool ahead = i % ASKED_AHEAD != 0 || ask_ahead(s, held, i);
        int found = ahead ? fetch_fresh(s, PyTuple_GET_ITEM(held, i), &value) : -1;
        if (found < 0 || (found && PyDict_SetItem(hits, PyTuple_GET_ITEM(held, i), value) < 0))
            Py_CLEAR(hits);
        if (found > 0)
            Py_DECREF(value);
    }
    Py_XDECREF(held);
    return hits;
}

PyObject *Segment_subscript(SegmentObject *s, PyObject *key)
{
    PyObject *value;
    int found = fetch_fresh(s, key, &value);
    if (found == 0)
        PyErr_SetObject(PyExc_KeyError, key);
    return found > 0 ? value : NULL;
}

static int contains_once(SegmentObject *s, const struct key *k)
{
    struct entry_ref e;
    if (!enter(s))
        return -1;
    uint64_t hash = hash_key(s->a.hash_key, k->bytes, k->n);
    for (int tries = 0; tries < GET_TRIES_MAX; tries++) {
        if (cache_find(&s->a, hash, k->bytes, k->n, &e) != FOUND)
            return false;
        if (entry_confirm(&e))
            return true;
    }
    return false;
}

int Segment_contains(SegmentObject *s, PyObject *key)
{
    struct key k;
    int hidden = transaction_hides();
    if (hidden)
        return hidden < 0 ? -1 : 0;
    int found = key_from(key, &k) ? contains_once(s, &k) : -1;
    return found == 0 && segment_retired(&s->a) ? contains_once(s, &k) : found;
}

Py_ssize_t Segment_length(SegmentObject *s) { return enter(s) ? (Py_ssize_t)census_count(&s->a) : -1; }

/* ---- writing verbs ---- */

static PyObject *Segment_token(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    struct snapshot saw; /* of open transactions: their rows may be older than now, or not committed */
    if (!transaction_snapshot(s, &saw) || !enter(s))
        return NULL;
    uint64_t now_ms = clock_ms(&s->a), token = saw.older ? saw.token : token_of(s, ring_tail(&s->a));
    return Py_BuildValue("(KK)", saw.unstored ? UINT64_MAX : token, now_ms);
}

/* The ring position of a token. If the token is another attachment's: a position that no ring reaches. */
static uint64_t token_position(const SegmentObject *s, uint64_t token)
{
    bool ours = token >> TOKEN_POSITION_BITS == (s->attachments & 0xfff);
    return ours ? token & TOKEN_POSITION_MASK : UINT64_MAX >> 1;
}

enum write_kind { WRITE_SET, WRITE_ADD, WRITE_FENCED, WRITE_FILL };

/* What a writing verb was asked. Key and tags become hashes only once the verb has entered: until then Python
 * code may run, and a segment that is replaced meanwhile may hash with another key. */
struct request {
    enum write_kind kind;
    PyObject *tags; /* a tuple of keys, or NULL; ours to release */
    uint64_t token, started_ms;
    PyObject **encoded;        /* where to store the encoded value; NULL: it is not wanted */
    const struct given *given; /* by another host; else NULL */
    struct write w;
};

/* Without a segment: what a set would have announced is remembered, and nothing is stored. */
static int write_nowhere(SegmentObject *s, const struct request *r, const struct key *k)
{
    bool is_set = r->kind == WRITE_SET || r->kind == WRITE_FENCED;
    if (is_set)
        owe_key(s, k);
    return is_set && r->w.store_nothing ? STORE_NOTHING : STORE_LOST;
}

static int write_fill(SegmentObject *s, const struct request *r, struct write *w)
{
    count(&s->a, STAT_LOADS, 1);
    return w->store_nothing ? STORE_NOTHING
                            : cache_fill(&s->a, w, token_position(s, r->token), r->started_ms);
}

/* Inside a transaction that has written, nothing is stored. The key of a set is kept, and announced when the
 * transaction ends; a fill or an announced add is dropped. A local add is done at once, because it is no copy
 * of the origin's value. 1: not now; 0: do it now; -1: an error is set. */
static int kept_for_later(SegmentObject *s, const struct request *r, const struct key *k)
{
    if (r->kind == WRITE_SET || r->kind == WRITE_FENCED)
        return transaction_keeps(s, KEPT_KEY, k);
    return r->w.local && r->kind == WRITE_ADD ? 0 : transaction_hides();
}

/* The tags that came with a value from another host. Flight.given has checked that they include those that
 * the caller named. */
static void tags_given(const struct given *given, struct write *w)
{
    w->tags = (uint8_t)given->tags;
    memcpy(w->tag, given->tag, given->tags * sizeof *given->tag);
}

/* A store result, or -1 with an error set. */
static int run_write(SegmentObject *s, struct request *r, const struct key *k)
{
    struct write *w = &r->w;
    int later = kept_for_later(s, r, k);
    if (later)
        return later < 0 ? -1 : STORE_LOST;
    bool entered = enter(s);
    if (s->open && s->a.stand_in) { /* also if an exception came during the attempt to attach */
        int result = write_nowhere(s, r, k);
        return entered ? result : -1;
    }
    if (!entered)
        return -1;
    if (r->given)
        tags_given(r->given, w);
    else
        tags_from(s, r->tags, w);
    w->hash = hash_key(s->a.hash_key, k->bytes, k->n);
    w->key = k->bytes, w->key_bytes = k->n;
    switch (r->kind) {
    case WRITE_SET:
        return cache_set(&s->a, w);
    case WRITE_ADD:
        return cache_add(&s->a, w);
    case WRITE_FENCED:
        return cache_set_fenced(&s->a, w, token_position(s, r->token), r->started_ms);
    default:
        return write_fill(s, r, w);
    }
}

/* A verb leaves a corrupt segment for its successor once. If the successor is corrupt too, it fails. */
static void corrupt_again(void)
{
    fail(errors.segment_retired,
         "The segment was found corrupt or removed, and its successor too. Nothing was stored or announced. "
         "See who else writes into it, or removes it.");
}

static int delete_one(SegmentObject *s, const struct key *k)
{
    if (!s->a.stand_in)
        return cache_delete(&s->a, hash_key(s->a.hash_key, k->bytes, k->n));
    owe_key(s, k);
    return 0;
}

static int delete_tag(SegmentObject *s, const struct key *tag)
{
    if (!s->a.stand_in)
        return cache_delete_tag(&s->a, tag_hash(s, tag));
    owe_tag(s, tag);
    return 0;
}

static int clear_all(SegmentObject *s, const struct key *unused)
{
    (void)unused;
    if (!s->a.stand_in)
        return cache_clear(&s->a);
    owe_everything(s);
    return 0;
}

/* Evicts an older value of the key. A local write was never announced to other hosts, and neither is this. */
static void drop(SegmentObject *s, const struct key *k, bool local)
{
    uint64_t hash = hash_key(s->a.hash_key, k->bytes, k->n);
    if (s->a.stand_in)
        owe_key(s, k);
    else if (local)
        cache_delete_local(&s->a, hash);
    else
        cache_delete(&s->a, hash);
}

/* A write that fails must not leave an older value to be read (as memcached does it). Fills and adds replace
 * nothing. */
static void drop_older(SegmentObject *s, const struct request *r, const struct key *k)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    bool replaces = r->kind == WRITE_SET || r->kind == WRITE_FENCED;
    if (replaces && transaction_keeps(s, KEPT_KEY, k) != 1 && (enter(s) || (s->open && s->a.stand_in)))
        drop(s, k, r->w.local);
    PyErr_Restore(type, value, trace);
}

static void value_too_large(const SegmentObject *s, const struct request *r, PyObject *key, Py_ssize_t n)
{
    bool replaces = r->kind == WRITE_SET || r->kind == WRITE_FENCED;
    const char *older = !replaces    ? "nothing was changed"
                        : r->w.local ? "an older value of the key was evicted on this host"
                                     : "an older value of the key was deleted on every host";
    unsigned most = value_bytes_max(&s->a);
    PyObject *name = repr_of(key);
    if (name)
        fail(errors.value_too_large,
             "The value of %U has %zd bytes encoded; this segment takes at most %u. It was not stored, and "
             "%s. Store less, or give the namespace more memory (a value takes up to an eighth of it, "
             "16 MiB at most).",
             name, n, most, older);
    Py_XDECREF(name);
}

/* A store result, or -1 with an error set. */
static int write_value(SegmentObject *s, struct request *r, PyObject *key, PyObject *object)
{
    struct key k;
    struct value v;
    if (!key_from(key, &k))
        return -1;
    if (!value_from(s, object, &v)) {
        drop_older(s, r, &k);
        return -1;
    }
    r->w.value = v.bytes, r->w.value_bytes = v.n > UINT32_MAX ? UINT32_MAX : (uint32_t)v.n;
    r->w.type = v.type;
    int result = run_write(s, r, &k);
    if (result == STORE_CORRUPT)
        result = run_write(s, r, &k);
    if (result == STORE_CORRUPT)
        corrupt_again();
    if (result == STORE_TOO_LARGE) {
        value_too_large(s, r, key, v.n);
        drop_older(s, r, &k);
    }
    if (r->encoded)
        *r->encoded = v.held;
    else
        Py_XDECREF(v.held);
    return PyErr_Occurred() ? -1 : result;
}

static const char *const set_names[] = {"key", "value", "ttl", "tags", "local"};

/* False: an error is set, and there is nothing to release. */
static bool request_from(SegmentObject *s, enum write_kind kind, PyObject *ttl, PyObject *tags,
                         PyObject *local, struct request *r)
{
    r->kind = kind;
    r->tags = NULL;
    r->encoded = NULL;
    r->given = NULL;
    r->w.grace_ms = r->w.sliding_ms = r->w.last_ms = 0;
    r->w.load_ms = 0;
    r->w.lags = r->w.ahead = r->w.in_main = false;
    if (!s->open && !enter(s))
        return false;
    int is_local = local ? PyObject_IsTrue(local) : 0;
    r->w.local = is_local > 0;
    return is_local >= 0 && ttl_from(s, ttl, &r->w.ttl_ms, &r->w.store_nothing) && tags_held(tags, &r->tags);
}

/* Ends the request. */
static PyObject *stored(SegmentObject *s, struct request *r, PyObject *key, PyObject *value)
{
    int result = write_value(s, r, key, value);
    Py_CLEAR(r->tags);
    return result < 0 ? NULL : PyBool_FromLong(result == STORED);
}

static PyObject *Segment_set(SegmentObject *s, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    PyObject *in[5];
    struct request r;
    if (!parse_args("set", set_names, 2, 5, args, n, kwnames, in) ||
        !request_from(s, WRITE_SET, in[2], in[3], in[4], &r))
        return NULL;
    return stored(s, &r, in[0], in[1]);
}

static PyObject *Segment_add(SegmentObject *s, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    PyObject *in[5];
    struct request r;
    if (!parse_args("add", set_names, 2, 5, args, n, kwnames, in) ||
        !request_from(s, WRITE_ADD, in[2], in[3], in[4], &r))
        return NULL;
    return stored(s, &r, in[0], in[1]);
}

#define GRACE_MS_MAX 100000000000000ull /* as of a lifetime: 47 bits hold it; an entry keeps 46 of them */

/* For loading.py: fill(key, value, token, started_ms, ttl, grace_ms, tags, local). */
static PyObject *Segment_fill(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct request r;
    if (n != 8)
        return fail(PyExc_TypeError, "_fill takes 8 arguments");
    uint64_t token, started, grace;
    if (!number64_from(args[2], &token) || !number64_from(args[3], &started) ||
        !number64_from(args[5], &grace))
        return NULL;
    if (grace > GRACE_MS_MAX)
        return fail(errors.invalid_ttl,
                    "stale is a number of seconds from 0 to 1e11. Nothing was read or written.");
    if (!request_from(s, WRITE_FILL, args[4], args[6], args[7], &r))
        return NULL;
    r.token = token;
    r.started_ms = started;
    r.w.grace_ms = grace;
    return stored(s, &r, args[0], args[1]);
}

/* A store result, or -1 with an error set. */
int fill_value(SegmentObject *s, const struct fill *f, PyObject *key, PyObject *value, PyObject **encoded)
{
    struct request r;
    if (!request_from(s, f->announced ? WRITE_FENCED : WRITE_FILL, f->ttl, f->tags, f->local, &r))
        return -1;
    r.token = f->token;
    r.started_ms = f->started_ms;
    r.encoded = encoded;
    r.w.grace_ms = f->grace_ms;
    r.w.sliding_ms = f->sliding_ms;
    r.w.load_ms = f->load_ms;
    r.w.ahead = f->ahead;
    r.w.ttl_ms = lifetime_shortened(r.w.ttl_ms, f->jitter);
    r.given = f->given;
    if (r.given && r.given->left_ms && (!r.w.ttl_ms || r.given->left_ms < r.w.ttl_ms))
        r.w.ttl_ms = r.given->left_ms;
    int result = write_value(s, &r, key, value);
    Py_CLEAR(r.tags);
    return result;
}

/* For writing blocks: set_fenced(key, value, token, started_ms, ttl, tags). */
static PyObject *Segment_set_fenced(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct request r;
    if (n != 6)
        return fail(PyExc_TypeError, "_set_fenced takes 6 arguments");
    uint64_t token, started;
    if (!number64_from(args[2], &token) || !number64_from(args[3], &started) ||
        !request_from(s, WRITE_FENCED, args[4], args[5], NULL, &r))
        return NULL;
    r.token = token;
    r.started_ms = started;
    return stored(s, &r, args[0], args[1]);
}

/* The items of set_many's mapping as a list of pairs, each with a key; NULL: an error is set. */
static PyObject *items_held(PyObject *mapping)
{
    static const char *const what =
        "set_many takes a mapping: its items() are pairs of key and value. Nothing was written.";
    struct key unused;
    bool is_mapping = PyDict_Check(mapping) || PyObject_HasAttrString(mapping, "items");
    PyObject *items = is_mapping ? PyMapping_Items(mapping) : fail(PyExc_TypeError, "%s", what);
    for (Py_ssize_t i = 0; items && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2)
            fail(PyExc_TypeError, "%s", what);
        else if (key_from(PyTuple_GET_ITEM(item, 0), &unused))
            continue;
        Py_CLEAR(items);
    }
    return items;
}

/* One item of set_many: false with an error set, or the key is added to `failed` if its value was not
 * stored. */
static bool set_item(SegmentObject *s, struct request *r, PyObject *item, PyObject *failed)
{
    PyObject *key = PyTuple_GET_ITEM(item, 0);
    int result = write_value(s, r, key, PyTuple_GET_ITEM(item, 1));
    if (result < 0 && !PyErr_ExceptionMatches(errors.value_too_large) &&
        !PyErr_ExceptionMatches(errors.unserializable))
        return false;
    PyErr_Clear();
    return result == STORED || result == STORE_NOTHING || PyList_Append(failed, key) == 0;
}

static PyObject *Segment_set_many(SegmentObject *s, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"mapping", "ttl", "tags", "local"};
    PyObject *in[4];
    struct request r;
    if (!parse_args("set_many", names, 1, 4, args, n, kwnames, in) ||
        !request_from(s, WRITE_SET, in[1], in[2], in[3], &r))
        return NULL;
    PyObject *items = items_held(in[0]), *failed = items ? PyList_New(0) : NULL;
    for (Py_ssize_t i = 0; failed && i < PyList_GET_SIZE(items); i++)
        if (!set_item(s, &r, PyList_GET_ITEM(items, i), failed))
            Py_CLEAR(failed);
    Py_XDECREF(items);
    Py_CLEAR(r.tags);
    return failed;
}

/* Do the verb. If the segment was found corrupt, do it once more in the successor. False: an error is set. */
static bool announced(SegmentObject *s, enum kept_kind kind, const struct key *k, int *result)
{
    static int (*const verbs[])(SegmentObject *, const struct key *) = {delete_one, delete_tag, clear_all};
    int (*verb)(SegmentObject *, const struct key *) = verbs[kind];
    int later = transaction_keeps(s, kind, k);
    *result = 0;
    if (later)
        return later > 0;
    for (int tries = 0; tries < 2; tries++) {
        bool entered = enter(s);
        if (!entered && s->open && s->a.stand_in) /* an exception came during the attempt to attach */
            verb(s, k);                           /* remember the verb, and announce it later */
        if (!entered)
            return false;
        *result = verb(s, k);
        if (*result >= 0)
            return true;
    }
    corrupt_again();
    return false;
}

/* 1 if it was here, 0 if not, -1 with an error set. */
static int delete_key(SegmentObject *s, PyObject *key)
{
    struct key k;
    int existed;
    return key_from(key, &k) && announced(s, KEPT_KEY, &k, &existed) ? existed > 0 : -1;
}

static PyObject *Segment_delete(SegmentObject *s, PyObject *key)
{
    int existed = delete_key(s, key);
    return existed < 0 ? NULL : PyBool_FromLong(existed);
}

static PyObject *Segment_delete_many(SegmentObject *s, PyObject *keys)
{
    PyObject *held = keys_held(keys);
    bool good = held != NULL;
    for (Py_ssize_t i = 0; good && i < PyTuple_GET_SIZE(held); i++)
        good = delete_key(s, PyTuple_GET_ITEM(held, i)) >= 0;
    Py_XDECREF(held);
    return good ? Py_NewRef(Py_None) : NULL;
}

int Segment_ass_subscript(SegmentObject *s, PyObject *key, PyObject *value)
{
    struct request r;
    if (value)
        return request_from(s, WRITE_SET, NULL, NULL, NULL, &r) && write_value(s, &r, key, value) >= 0 ? 0
                                                                                                       : -1;
    int existed = delete_key(s, key);
    if (existed == 0)
        PyErr_SetObject(PyExc_KeyError, key);
    return existed > 0 ? 0 : -1;
}

/* 1 or 0, or -1 with an error set. What was found in a segment that has a successor does not count. */
static int touch_key(SegmentObject *s, const struct key *k, uint64_t ttl_ms)
{
    int touched = -1;
    for (int tries = 0; touched < 0 && tries < 2; tries++) {
        if (!enter(s))
            return -1;
        if (s->a.stand_in)
            return 0;
        touched = cache_touch(&s->a, hash_key(s->a.hash_key, k->bytes, k->n), k->bytes, k->n, ttl_ms);
    }
    return touched > 0;
}

static PyObject *Segment_touch(SegmentObject *s, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"key", "ttl"};
    PyObject *in[2];
    struct key k;
    uint64_t ttl_ms;
    bool at_once;
    if (!parse_args("touch", names, 1, 2, args, n, kwnames, in) || !key_from(in[0], &k) ||
        !ttl_from(s, in[1], &ttl_ms, &at_once))
        return NULL;
    if (at_once)
        ttl_ms = TOUCH_ENDS_NOW;
    int hidden = transaction_hides(), touched = hidden > 0 ? 0 : hidden < 0 ? -1 : touch_key(s, &k, ttl_ms);
    return touched < 0 ? NULL : PyBool_FromLong(touched);
}

static PyObject *Segment_clear(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    int ignored;
    return announced(s, KEPT_ALL, NULL, &ignored) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *Segment_delete_tags(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct key tag;
    int ignored;
    for (Py_ssize_t i = 0; i < n; i++)
        if (!key_from(args[i], &tag))
            return NULL;
    for (Py_ssize_t i = 0; i < n; i++)
        if (!key_from(args[i], &tag) || !announced(s, KEPT_TAG, &tag, &ignored))
            return NULL;
    Py_RETURN_NONE;
}

static PyObject *Segment_hash(SegmentObject *s, PyObject *key)
{
    uint64_t hash;
    return hash_from(s, key, &hash) ? PyLong_FromUnsignedLongLong(hash) : NULL;
}

PyMethodDef module_verbs[] = {
    {"get", FAST(Segment_get), METH_FASTCALL | METH_KEYWORDS,
     "get(key, default=None)\n--\n\nThe value of key (str or bytes), or default. Raises InvalidKey, "
     "KeyTooLong, Closed."},
    {"lookup", (PyCFunction)Segment_lookup, METH_O,
     "lookup(key)\n--\n\n(value, True), or (None, False): tells a stored None from a miss."},
    {"set", FAST(Segment_set), METH_FASTCALL | METH_KEYWORDS,
     "set(key, value, ttl=<default_ttl>, tags=(), local=False)\n--\n\nStore value for ttl seconds (a number, "
     "a timedelta, "
     "None: never expires, 0: announce and store nothing) and announce it to every host unless local. True "
     "if stored. "
     "Raises InvalidKey, KeyTooLong, InvalidTTL, ValueTooLarge, Unserializable, Closed."},
    {"add", FAST(Segment_add), METH_FASTCALL | METH_KEYWORDS,
     "add(key, value, ttl=<default_ttl>, tags=(), local=False)\n--\n\nStore value if this host holds none "
     "for key. True if "
     "this call stored it: of concurrent calls on a host, exactly one does."},
    {"delete", (PyCFunction)Segment_delete, METH_O,
     "delete(key)\n--\n\nEvict key here and, announced, on every host. True if this host held it."},
    {"touch", FAST(Segment_touch), METH_FASTCALL | METH_KEYWORDS,
     "touch(key, ttl=<default_ttl>)\n--\n\nGive key a new lifetime in seconds on this host; 0 ends it at "
     "once. False on a miss."},
    {"get_many", (PyCFunction)Segment_get_many, METH_O,
     "get_many(keys)\n--\n\nA dict of the keys that were found."},
    {"set_many", FAST(Segment_set_many), METH_FASTCALL | METH_KEYWORDS,
     "set_many(mapping, ttl=<default_ttl>, tags=(), local=False)\n--\n\nset() for each item. A list of the "
     "keys whose value "
     "was not stored."},
    {"delete_many", (PyCFunction)Segment_delete_many, METH_O,
     "delete_many(keys)\n--\n\ndelete() for each key."},
    {"delete_tags", FAST(Segment_delete_tags), METH_FASTCALL,
     "delete_tags(*tags)\n--\n\nEvict every entry that carries one of the tags, on every host."},
    {"clear", (PyCFunction)Segment_clear, METH_NOARGS,
     "clear()\n--\n\nEvict everything in the namespace, on every host."},
    {"_find", FAST(Segment_find), METH_FASTCALL, NULL},
    {"_token", (PyCFunction)Segment_token, METH_NOARGS, NULL},
    {"_fill", FAST(Segment_fill), METH_FASTCALL, NULL},
    {"_set_fenced", FAST(Segment_set_fenced), METH_FASTCALL, NULL},
    {"_hash", (PyCFunction)Segment_hash, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
