/* module_cas.c - gets and cas, for host.py. See cas.h.
 *
 * A token is 16 bytes: the place of the entry, and the incarnation of the segment. A place means nothing in
 * another segment. */
#include "cas.h"
#include "module.h"

struct cas_token {
    uint64_t place, incarnation;
};

static PyObject *gone(PyObject *key, const char *why)
{
    PyObject *name = repr_of(key);
    if (name)
        fail(errors.segment_error, "%U: %s Nothing was read or written.", name, why);
    Py_XDECREF(name);
    return NULL;
}

static PyObject *unreachable(PyObject *key)
{
    return gone(key, "this host's segment is gone, and there is no new one yet. health() says why. Attaching "
                     "is tried again each second.");
}

static PyObject *not_local(PyObject *key)
{
    PyObject *name = repr_of(key);
    if (name)
        fail(errors.not_local,
             "The value of %U was set without local=True, so other hosts may hold it. It is as it was. Use a "
             "key of its "
             "own for this host's values: set(..., local=True), or cas() with the token None.",
             name);
    Py_XDECREF(name);
    return NULL;
}

/* gets(key) -> (value, token), or None on a miss. */
static PyObject *Segment_gets(SegmentObject *s, PyObject *key)
{
    struct key k;
    struct entry_ref e;
    for (int tries = 0; tries < GET_TRIES_MAX; tries++) {
        if (!key_from(key, &k) || !enter(s))
            return NULL;
        if (s->a.stand_in)
            return unreachable(key);
        enum finding found = cache_find(&s->a, hash_key(s->a.hash_key, k.bytes, k.n), k.bytes, k.n, &e);
        count(&s->a, found == FOUND ? STAT_HITS : STAT_MISSES, tries == 0);
        if (found == FOUND && !entry_local(&e) && entry_confirm(&e))
            return not_local(key);
        if (found != FOUND && segment_retired(&s->a))
            continue;
        if (found != FOUND)
            Py_RETURN_NONE;
        struct cas_token token = {cas_token(&e), load_acquire(&s->a.header->incarnation)};
        PyObject *value;
        enum reading r = read_value(s, &e, &value);
        if (r == READ_OK)
            return Py_BuildValue("(Ny#)", value, (char *)&token, (Py_ssize_t)sizeof token);
        if (r == READ_ERROR)
            return NULL;
        if (r == READ_GARBAGE)
            break;
    }
    if (s->open)
        count(&s->a, STAT_UNDECODABLE, 1);
    Py_RETURN_NONE;
}

static bool token_from(PyObject *o, struct cas_token *token)
{
    if (PyBytes_CheckExact(o) && PyBytes_GET_SIZE(o) == sizeof *token) {
        memcpy(token, PyBytes_AS_STRING(o), sizeof *token);
        return true;
    }
    fail(PyExc_TypeError, "The token of cas() is what gets() returned. Nothing was written.");
    return false;
}

static PyObject *outcome(const SegmentObject *s, enum cas result, PyObject *key)
{
    if (result == CAS_OTHER)
        return not_local(key);
    if (result == CAS_NO_ROOM)
        return gone(key, "there is no room for the new value. Give the namespace more memory.");
    if (result == CAS_TOO_LARGE)
        return fail(errors.value_too_large,
                    "The value has more than %u bytes encoded, the most that this segment takes. It was not "
                    "stored, and "
                    "the older one is as it was.",
                    (unsigned)value_bytes_max(&s->a));
    return PyBool_FromLong(result == CAS_DONE);
}

/* cas(key, value, token, ttl) -> stored */
static PyObject *Segment_cas(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct key k;
    struct value v;
    struct cas_token token;
    struct write w = {.local = true};
    if (n != 4)
        return fail(PyExc_TypeError, "_cas takes 4 arguments");
    if (!key_from(args[0], &k) || !token_from(args[2], &token) ||
        !ttl_from(s, args[3], &w.ttl_ms, &w.store_nothing) || !value_from(s, args[1], &v))
        return NULL;
    if (!enter(s) || s->a.stand_in) {
        Py_XDECREF(v.held);
        return PyErr_Occurred() ? NULL : unreachable(args[0]);
    }
    w.hash = hash_key(s->a.hash_key, k.bytes, k.n);
    w.key = k.bytes, w.key_bytes = k.n;
    w.value = v.bytes, w.type = v.type;
    w.value_bytes = v.n > UINT32_MAX ? UINT32_MAX : (uint32_t)v.n;
    bool same = token.incarnation == load_acquire(&s->a.header->incarnation);
    enum cas result = same ? cache_cas(&s->a, &w, token.place) : CAS_LOST;
    Py_XDECREF(v.held);
    return outcome(s, result, args[0]);
}

PyMethodDef module_cas[] = {
    {"_gets", (PyCFunction)Segment_gets, METH_O, NULL},
    {"_cas", FAST(Segment_cas), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
