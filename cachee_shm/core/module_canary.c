/* module_canary.c - what the bridge's checker calls: canaries (canary.h), and what this segment holds for a
 * hash. See module.h. */
#include "canary.h"
#include "module.h"

/* Is the hash a canary's, and does the value fit? False: an error is set. */
static bool is_canary(uint64_t hash, Py_ssize_t bytes)
{
    if (hash_reserved(hash) && bytes <= CANARY_BYTES_MAX)
        return true;
    fail(PyExc_ValueError, "hash %llu is no canary's, or its value has more than %d bytes",
         (unsigned long long)hash, CANARY_BYTES_MAX);
    return false;
}

/* canary_hash(number): one of the hashes that no key has. */
static PyObject *Segment_canary_hash(SegmentObject *s, PyObject *arg)
{
    (void)s;
    uint64_t number;
    return number64_from(arg, &number) ? PyLong_FromUnsignedLongLong(hash_reserve(number)) : NULL;
}

static PyObject *Segment_canary_set(SegmentObject *s, PyObject *args)
{
    uint64_t hash;
    const char *value;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "O&y#:canary_set", number64_from, &hash, &value, &bytes) ||
        !is_canary(hash, bytes) || !enter_as_bridge(s))
        return NULL;
    return PyBool_FromLong(canary_set(&s->a, hash, value, (uint32_t)bytes) == STORED);
}

static PyObject *Segment_canary_fill(SegmentObject *s, PyObject *args)
{
    uint64_t hash, token;
    const char *value;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "O&y#O&:canary_fill", number64_from, &hash, &value, &bytes, number64_from,
                          &token) ||
        !is_canary(hash, bytes) || !enter_as_bridge(s))
        return NULL;
    return PyBool_FromLong(canary_fill(&s->a, hash, value, (uint32_t)bytes, token) == STORED);
}

static PyObject *Segment_holding(SegmentObject *s, PyObject *arg)
{
    uint64_t hash;
    struct holding h;
    if (!number64_from(arg, &hash) || !enter(s))
        return NULL;
    canary_look(&s->a, hash, &h);
    return Py_BuildValue("(iKKKKy#)", h.held ? h.local ? 2 : 1 : 0, h.version, h.fence, h.age_ms, h.digest,
                         (const char *)h.value, (Py_ssize_t)h.value_bytes);
}

PyMethodDef module_canary[] = {
    {"canary_hash", (PyCFunction)Segment_canary_hash, METH_O, "canary_hash(number): a hash that no key has"},
    {"canary_set", (PyCFunction)Segment_canary_set, METH_VARARGS,
     "canary_set(hash, value): write and announce it -> stored"},
    {"canary_fill", (PyCFunction)Segment_canary_fill, METH_VARARGS,
     "canary_fill(hash, value, token): store another host's canary -> stored"},
    {"holding", (PyCFunction)Segment_holding, METH_O,
     "holding(hash) -> (0: nothing, 1: a value, 2: a local one; version, fence, age_ms, digest, a canary's "
     "value)"},
    {NULL, NULL, 0, NULL},
};
