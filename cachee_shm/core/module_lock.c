/* module_lock.c - the type Hold: one holding of a lock by name, for locks.py. See lock.h.
 *
 * Taking the lock and noting that the object holds it happen in one call, so no exception can come in
 * between. A Hold that is dropped while it holds the lock gives it back when it is freed.
 */
#include "lock.h"
#include "module.h"

static PyTypeObject *hold_type;

typedef struct {
    PyObject_HEAD SegmentObject *s;
    PyObject *name;
    uint64_t ttl_ms;
    struct lock_hold hold;
    uint32_t attachments; /* of s, when the lock was taken: a later attachment does not hold it */
    uint32_t holder;      /* the roster slot that held the lock at the last try, or NOBODY */
    bool open;            /* taken, and not yet given back */
} HoldObject;

void fence_seen(SegmentObject *s, uint64_t fence)
{
    if (fence > s->fence_seen && fence <= LOCK_FENCE_KEPT_MAX)
        s->fence_seen = fence;
}

/* None: without an end. */
static bool ttl_of(PyObject *ttl, uint64_t *ms)
{
    *ms = 0;
    if (ttl == Py_None)
        return true;
    if (!period_from(ttl, "ttl", ms))
        return false;
    if (!*ms) {
        fail(errors.invalid_ttl,
             "The ttl of a lock is a number of seconds above 0, a timedelta, or None. Nothing was locked.");
        return false;
    }
    *ms = *ms < LOCK_TTL_MS_MAX ? *ms : LOCK_TTL_MS_MAX;
    return true;
}

static PyObject *Hold_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *segment, *name, *ttl;
    uint64_t ttl_ms;
    struct key k;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "OOO:Hold", &segment, &name, &ttl))
        return NULL;
    if (!PyObject_TypeCheck(segment, segment_type))
        return fail(PyExc_TypeError, "Hold(segment, name, ttl) is made by cache.host.lock(name)");
    if (!key_from(name, &k) || !ttl_of(ttl, &ttl_ms) || !enter((SegmentObject *)segment))
        return NULL;
    HoldObject *h = (HoldObject *)type->tp_alloc(type, 0);
    if (!h)
        return NULL;
    h->s = (SegmentObject *)Py_NewRef(segment);
    h->name = Py_NewRef(name);
    h->ttl_ms = ttl_ms;
    h->holder = NOBODY;
    return (PyObject *)h;
}

static int Hold_traverse(HoldObject *h, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(h));
    Py_VISIT(h->s);
    Py_VISIT(h->name);
    return 0;
}

/* The segment in which the lock was taken, if it is the present one; else NULL. Runs no Python code. */
static struct attachment *taken_in(HoldObject *h)
{
    struct attachment *a = h->open ? attachment_still(h->s, h->attachments) : NULL;
    return a && !a->stand_in ? a : NULL;
}

static bool is_lost(struct attachment *a) { return segment_retired(a) || roster_gone(a, clock_ms(a)); }

static bool is_held(HoldObject *h)
{
    struct attachment *a = taken_in(h);
    return a && !is_lost(a) && lock_is_held(a, &h->hold);
}

static bool let_go(HoldObject *h)
{
    struct attachment *a = taken_in(h);
    h->open = false;
    bool lost = !a || is_lost(a);
    return a && lock_release(a, &h->hold) && !lost;
}

static void Hold_dealloc(HoldObject *h)
{
    PyTypeObject *type = Py_TYPE(h);
    PyObject_GC_UnTrack(h);
    let_go(h);
    Py_CLEAR(h->name);
    Py_CLEAR(h->s);
    type->tp_free(h);
    Py_DECREF(type);
}

/* ---- taking ---- */

enum take { TAKE_DONE = LOCK_TAKEN, TAKE_HELD = LOCK_HELD, TAKE_NO_ROOM = LOCK_NO_ROOM, TAKE_GONE };
enum { TAKE_TRIES_MAX = 3 }; /* each in another segment */

/* A lock that was taken in a segment with a successor does not count: another process may take it there. */
static enum lock take_once(HoldObject *h, const struct key *k)
{
    SegmentObject *s = h->s;
    struct lock_wish wish = {
        .hash = hash_key(s->a.hash_key, k->bytes, k->n), .ttl_ms = h->ttl_ms, .fence_seen = s->fence_seen};
    enum lock result = lock_take(&s->a, &wish, &h->hold, &h->holder);
    if (result == LOCK_TAKEN && (roster_look(&s->a, clock_ms(&s->a)) || segment_retired(&s->a))) {
        lock_release(&s->a, &h->hold);
        return LOCK_CORRUPT;
    }
    return result;
}

static PyObject *Hold_take(HoldObject *h, PyObject *unused)
{
    struct key k;
    (void)unused;
    for (int tries = 0; tries < TAKE_TRIES_MAX; tries++) {
        if (!key_from(h->name, &k) || !enter(h->s))
            return NULL;
        if (h->open)
            return fail(PyExc_RuntimeError, "This lock is taken already. Nothing was changed.");
        h->holder = NOBODY;
        enum lock result = h->s->a.stand_in ? LOCK_CORRUPT : take_once(h, &k);
        if (result == LOCK_TAKEN) {
            fence_seen(h->s, h->hold.fence);
            h->attachments = h->s->attachments;
            h->open = true;
        }
        if (result != LOCK_CORRUPT)
            return PyLong_FromLong(result);
        if (h->s->a.stand_in)
            break;
    }
    return PyLong_FromLong(TAKE_GONE);
}

/* For waiters: can the lock probably be taken now? */
static PyObject *Hold_free(HoldObject *h, PyObject *unused)
{
    struct key k;
    (void)unused;
    if (!key_from(h->name, &k) || !enter(h->s))
        return NULL;
    SegmentObject *s = h->s;
    return PyBool_FromLong(!s->a.stand_in &&
                           lock_holder(&s->a, hash_key(s->a.hash_key, k.bytes, k.n)) == NOBODY);
}

/* ---- holding ---- */

static PyObject *Hold_held(HoldObject *h, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(is_held(h));
}

static PyObject *Hold_release(HoldObject *h, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(let_go(h));
}

static PyObject *Hold_fence(HoldObject *h, void *unused)
{
    (void)unused;
    return h->hold.fence ? PyLong_FromUnsignedLongLong(h->hold.fence) : Py_NewRef(Py_None);
}

/* The roster slot that held the lock at the last try, or -1. */
static PyObject *Hold_holder(HoldObject *h, void *unused)
{
    (void)unused;
    return PyLong_FromLong(h->holder == NOBODY ? -1 : (long)h->holder);
}

static PyObject *Hold_open(HoldObject *h, void *unused)
{
    (void)unused;
    return PyBool_FromLong(h->open);
}

static PyMethodDef hold_methods[] = {
    {"take", (PyCFunction)Hold_take, METH_NOARGS,
     "0: taken; 1: held by another; 2: no room; 3: there is no segment at present"},
    {"free", (PyCFunction)Hold_free, METH_NOARGS, "no process holds the lock now (bool)"},
    {"held", (PyCFunction)Hold_held, METH_NOARGS, "this object still holds the lock (bool)"},
    {"release", (PyCFunction)Hold_release, METH_NOARGS, "give the lock back; False: it was no longer held"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef hold_attributes[] = {
    {"fence", (getter)Hold_fence, NULL, NULL, NULL},
    {"open", (getter)Hold_open, NULL, NULL, NULL},
    {"holder", (getter)Hold_holder, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot hold_slots[] = {
    {Py_tp_doc, "Hold(segment, name, ttl): one holding of a lock, see locks.py."},
    {Py_tp_new, Hold_new},
    {Py_tp_dealloc, Hold_dealloc},
    {Py_tp_traverse, Hold_traverse},
    {Py_tp_methods, hold_methods},
    {Py_tp_getset, hold_attributes},
    {0, NULL},
};

static PyType_Spec hold_spec = {"cachee_shm._core.Hold", sizeof(HoldObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, hold_slots};

bool locks_ready(PyObject *module)
{
    hold_type = (PyTypeObject *)PyType_FromSpec(&hold_spec);
    return hold_type && PyModule_AddObjectRef(module, "Hold", (PyObject *)hold_type) == 0;
}
