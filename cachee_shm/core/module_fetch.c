/* module_fetch.c - what the bridge gives another host for a key (peer fill). See module.h.
 *
 * Only values that were loaded from the origin leave the host. A value that a worker has set may be older
 * than the origin's, because another host may have written in between. A fill is not: its token was checked
 * against the fences.
 */
#include "cache.h"
#include "clock.h"
#include "module.h"

static bool may_leave(const struct entry_ref *e, uint64_t bytes_max)
{
    return entry_is_fill(e) && !entry_local(e) && !entry_slides(e) && e->tags <= TAGS_MAX &&
           e->value_bytes <= bytes_max;
}

static PyObject *hashes(const uint64_t *hash, uint32_t n)
{
    PyObject *all = PyTuple_New(n);
    for (uint32_t i = 0; i < n && all; i++) {
        PyObject *one = PyLong_FromUnsignedLongLong(hash[i]);
        if (!one)
            Py_CLEAR(all);
        else
            PyTuple_SET_ITEM(all, i, one);
    }
    return all;
}

/* (type, age_ms, left_ms, hashes of tags, bytes), or None; NULL: an error is set. */
static PyObject *given(SegmentObject *s, uint64_t hash, const struct key *k, uint64_t bytes_max)
{
    struct entry_ref e;
    struct given g = {0};
    PyObject *data = NULL;
    uint8_t type = 0;
    enum reading r = READ_TORN;
    for (int tries = 0; tries < GET_TRIES_MAX && r == READ_TORN; tries++) {
        s->a.looks_ahead = true; /* a miss here is not a reader's, and pre-warming must not learn from it */
        enum finding f = cache_find(&s->a, hash, k->bytes, k->n, &e);
        s->a.looks_ahead = false;
        if (f != FOUND || !may_leave(&e, bytes_max))
            break;
        uint64_t now_ms = clock_ms(&s->a), expires_ms = entry_expires_ms(&e);
        g.age_ms = clock_age_ms(entry_stored_at(&e), now_ms);
        g.left_ms = expires_ms > now_ms ? expires_ms - now_ms : expires_ms ? 1 : 0;
        g.tags = e.tags;
        for (uint32_t i = 0; i < g.tags; i++)
            g.tag[i] = load_relaxed(&entry_tags(&e)[i]);
        type = entry_type(&e);
        r = read_bytes(s, &e, &data);
    }
    if (r == READ_ERROR)
        return NULL;
    if (r != READ_OK)
        Py_RETURN_NONE;
    PyObject *tags = hashes(g.tag, g.tags);
    if (!tags) {
        Py_DECREF(data);
        return NULL;
    }
    return Py_BuildValue("(iKKNN)", (int)type, (unsigned long long)g.age_ms, (unsigned long long)g.left_ms,
                         tags, data);
}

/* fetch(key, bytes_max). The fence is read first, so that the value is not older than the fence. */
static PyObject *Segment_fetch(SegmentObject *s, PyObject *args)
{
    struct key k;
    PyObject *key;
    uint64_t hash, bytes_max;
    if (!PyArg_ParseTuple(args, "O!O&:fetch", &PyBytes_Type, &key, number64_from, &bytes_max) ||
        !key_from(key, &k) || !hash_from(s, key, &hash))
        return NULL;
    uint64_t fence = fence_of(&s->a, hash);
    struct lease_wish wish = {
        .hash = hash, .since = fence, .fence = fence, .token = ring_tail(&s->a), .now_ms = clock_real_ms()};
    bool loading = lease_is_held(&s->a, &wish);
    PyObject *value = given(s, hash, &k, bytes_max);
    return value ? Py_BuildValue("(KNN)", (unsigned long long)fence, PyBool_FromLong(loading), value) : NULL;
}

PyMethodDef module_fetch[] = {
    {"fetch", (PyCFunction)Segment_fetch, METH_VARARGS,
     "fetch(key, bytes_max) -> (fence, is it being loaded here?, what another host may be given, or None: "
     "type, age_ms, left_ms, hashes of tags, bytes)"},
    {NULL, NULL, 0, NULL},
};
