/* module_incr.c - incr, for host.py and django. See module.h. */
#include "module.h"

static PyObject *no_sum(enum incr why, PyObject *key)
{
    static const char *const because[] = {
        [INCR_OTHER] = "The value of %U is no integer of 64 bits, or was set without local=True. It is as it "
                       "was. Use a separate key for the counter, and create it with initial=.",
        [INCR_OVERFLOW] = "The sum for %U does not fit 64 bits. The value is as it was.",
        [INCR_GONE] = "The counter %U was not changed: this host's segment is gone, and there is no new one "
                      "yet. health() says why. Attaching is tried again each second.",
        [INCR_NO_ROOM] = "There is no room for the new sum of %U, or other calls changed it during each of "
                         "thousands of tries. The value is as it was. Give the namespace more memory.",
    };
    PyObject *name = why == INCR_MISSED ? NULL : repr_of(key);
    if (name)
        fail(why >= INCR_GONE ? errors.segment_error : errors.not_a_counter, because[why], name);
    Py_XDECREF(name);
    return why == INCR_MISSED ? Py_NewRef(Py_None) : NULL;
}

static enum incr incr_once(SegmentObject *s, const struct key *k, int64_t by, bool adopts, int64_t *sum)
{
    return s->a.stand_in
               ? INCR_GONE
               : cache_incr(&s->a, hash_key(s->a.hash_key, k->bytes, k->n), k->bytes, k->n, by, adopts, sum);
}

/* For host.py and django: incr(key, delta, adopts=False) -> the sum, or None where there is no value. */
static PyObject *Segment_incr(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct key k;
    int overflow;
    int64_t sum;
    bool adopts = n == 3 && args[2] == Py_True;
    if (n != 2 && n != 3)
        return fail(PyExc_TypeError, "_incr takes 2 or 3 arguments");
    int64_t by = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    if (PyErr_Occurred() || !key_from(args[0], &k) || !enter(s))
        return NULL;
    enum incr result = overflow ? INCR_OVERFLOW : incr_once(s, &k, by, adopts, &sum);
    if (result == INCR_GONE && !s->a.stand_in) { /* the segment has a successor: count there */
        if (!enter(s))
            return NULL;
        result = incr_once(s, &k, by, adopts, &sum);
    }
    return result == INCR_DONE ? PyLong_FromLongLong(sum) : no_sum(result, args[0]);
}

PyMethodDef module_incr[] = {
    {"_incr", FAST(Segment_incr), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
