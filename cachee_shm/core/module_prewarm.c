/* module_prewarm.c - what prewarm.py calls. See prewarm.h and module.h. */
#include "module.h"

/* Enters. False: an error is set. *has: is there pre-warming in this segment? */
static bool enter_prewarm(SegmentObject *s, bool *has)
{
    bool entered = enter(s);
    *has = entered && s->a.prewarm != NULL;
    return entered;
}

/* _warm_take() -> (hash, due_ms, p, key or b"": an earlier order has it), or None: the mailbox is empty */
static PyObject *Segment_warm_take(SegmentObject *s, PyObject *unused)
{
    struct prewarm_order o;
    bool has;
    (void)unused;
    if (!enter_prewarm(s, &has))
        return NULL;
    if (!has || !prewarm_take(&s->a, &o))
        Py_RETURN_NONE;
    return Py_BuildValue("(KKfy#)", (unsigned long long)o.hash, (unsigned long long)o.due_ms, o.p,
                         (const char *)o.key, (Py_ssize_t)o.key_bytes);
}

/* _warm_claim(hash, p) -> is the key still worth a load? True: the load is paid for */
static PyObject *Segment_warm_claim(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    uint64_t hash;
    bool has;
    if (n != 2 || !PyFloat_CheckExact(args[1]))
        return fail(PyExc_TypeError, "_warm_claim(hash, p)");
    if (!number64_from(args[0], &hash) || !enter_prewarm(s, &has))
        return NULL;
    return PyBool_FromLong(has && prewarm_claim(&s->a, hash, (float)PyFloat_AS_DOUBLE(args[1])));
}

/* _warm_most() -> how many orders the process that loads may keep; 0: there is no pre-warming here */
static PyObject *Segment_warm_most(SegmentObject *s, PyObject *unused)
{
    bool has;
    (void)unused;
    if (!enter_prewarm(s, &has))
        return NULL;
    return PyLong_FromUnsignedLong(has ? prewarm_orders_max(&s->a) : 0);
}

/* warm_explain(hash) -> a dict of what is known of the key, or None: nothing is */
static PyObject *Segment_warm_explain(SegmentObject *s, PyObject *arg)
{
    static const char *const states[] = {"idle", "wait", "queued", "warm"};
    struct prewarm_view v;
    uint64_t hash;
    bool has;
    if (!number64_from(arg, &hash) || !enter_prewarm(s, &has))
        return NULL;
    if (!has || !prewarm_look(&s->a, hash, clock_ms(&s->a), &v))
        Py_RETURN_NONE;
    return Py_BuildValue("{s:s,s:f,s:d,s:L,s:K,s:f,s:(IIII),s:(ffff)}", "state", states[v.state & 3], "p",
                         v.p, "price", v.price, "delay_ms", (long long)v.delay_ms, "since_ms",
                         (unsigned long long)v.since_ms, "bias", v.bias, "buckets", v.bucket[0], v.bucket[1],
                         v.bucket[2], v.bucket[3], "weights", v.weight[0], v.weight[1], v.weight[2],
                         v.weight[3]);
}

/* warm_stats() -> (loads, useful, wasted), of all processes since the segment was made; None: there is no
 * pre-warming here */
static PyObject *Segment_warm_stats(SegmentObject *s, PyObject *unused)
{
    bool has;
    (void)unused;
    if (!enter_prewarm(s, &has))
        return NULL;
    if (!has)
        Py_RETURN_NONE;
    uint64_t loads = load_relaxed(&s->a.prewarm->loads), useful = load_relaxed(&s->a.prewarm->useful),
             wasted = load_relaxed(&s->a.prewarm->wasted);
    return Py_BuildValue("(KKK)", (unsigned long long)loads, (unsigned long long)useful,
                         (unsigned long long)wasted);
}

PyMethodDef module_prewarm[] = {
    {"_warm_take", (PyCFunction)Segment_warm_take, METH_NOARGS, NULL},
    {"_warm_claim", FAST(Segment_warm_claim), METH_FASTCALL, NULL},
    {"_warm_most", (PyCFunction)Segment_warm_most, METH_NOARGS, NULL},
    {"warm_explain", (PyCFunction)Segment_warm_explain, METH_O,
     "warm_explain(hash) -> what pre-warming knows of a key, or None"},
    {"warm_stats", (PyCFunction)Segment_warm_stats, METH_NOARGS,
     "warm_stats() -> (loads, useful, wasted), or None without pre-warming"},
    {NULL, NULL, 0, NULL},
};
