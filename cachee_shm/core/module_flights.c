/* module_flights.c - what callers of one process share of a load: its waiters, its outcome, and what the
 * loader says of it. A flight owes nothing: module_loading.c takes and gives back. */
#include "module_loading.h"

PyObject *flight_running;

static PyTypeObject *flight_type;

static int Flight_traverse(FlightObject *f, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(f));
    Py_VISIT(f->value);
    Py_VISIT(f->trace);
    Py_VISIT(f->encoded);
    Py_VISIT(f->decoders);
    Py_VISIT(f->waiters);
    Py_VISIT(f->parent);
    Py_VISIT(f->owner);
    Py_VISIT(f->key);
    Py_VISIT(f->kept);
    Py_VISIT(f->stores);
    return 0;
}

static int Flight_clear(FlightObject *f)
{
    Py_CLEAR(f->value);
    Py_CLEAR(f->trace);
    Py_CLEAR(f->encoded);
    Py_CLEAR(f->decoders);
    Py_CLEAR(f->waiters);
    Py_CLEAR(f->parent);
    Py_CLEAR(f->owner);
    Py_CLEAR(f->key);
    Py_CLEAR(f->kept);
    Py_CLEAR(f->stores);
    return 0;
}

static void Flight_dealloc(FlightObject *f)
{
    PyTypeObject *type = Py_TYPE(f);
    PyObject_GC_UnTrack(f);
    Flight_clear(f);
    type->tp_free(f);
    Py_DECREF(type);
}

/* outcome() -> (state, value): of what was loaded, a copy for each who asks, as a reader of the cache gets
 * it. */
static PyObject *Flight_outcome(FlightObject *f, PyObject *unused)
{
    (void)unused;
    if (f->state == FLIGHT_FAILED && PyException_SetTraceback(f->value, f->trace ? f->trace : Py_None) < 0)
        return NULL;
    if (f->state != FLIGHT_LOADED || !f->encoded)
        return Py_BuildValue("(iO)", (int)f->state, f->value ? f->value : Py_None);
    long tag = PyLong_AsLong(PyTuple_GET_ITEM(f->encoded, 0));
    if (tag < 0 || tag >= PyTuple_GET_SIZE(f->decoders))
        return Py_BuildValue("(iO)", (int)FLIGHT_UNSHARED, Py_None);
    PyObject *copy = PyObject_CallOneArg(PyTuple_GET_ITEM(f->decoders, tag), PyTuple_GET_ITEM(f->encoded, 1));
    return copy ? Py_BuildValue("(iN)", (int)f->state, copy) : NULL;
}

static PyObject *Flight_running(FlightObject *f, void *unused)
{
    (void)unused;
    return PyBool_FromLong(f->state == FLIGHT_RUNNING);
}

static PyObject *Flight_waiters(FlightObject *f, void *unused)
{
    (void)unused;
    return Py_NewRef(f->waiters);
}

/* For loads.py, which is called by the loader itself: what it says of its load. */
static PyObject *Flight_owner(FlightObject *f, void *unused)
{
    (void)unused;
    return Py_NewRef(f->owner ? f->owner : Py_None);
}

static PyObject *Flight_key(FlightObject *f, void *unused)
{
    (void)unused;
    return Py_NewRef(f->key ? f->key : Py_None);
}

/* The flights of a load of many, in the order of its keys; None for the load of one. */
static PyObject *Flight_batch(FlightObject *flight, void *unused)
{
    (void)unused;
    Py_ssize_t n = flight->place;
    PyObject *batch = n ? PyTuple_New(n) : Py_NewRef(Py_None);
    if (!batch || !n)
        return batch;
    if (flight->place != n) { /* it ended as the tuple was made */
        Py_DECREF(batch);
        return Py_NewRef(Py_None);
    }
    for (FlightObject *f = flight; n > 0; f = (FlightObject *)f->parent)
        PyTuple_SET_ITEM(batch, --n, Py_NewRef((PyObject *)f));
    return batch;
}

static PyObject *Flight_kept(FlightObject *f, void *unused)
{
    (void)unused;
    return Py_NewRef(f->kept ? f->kept : Py_None);
}

static int Flight_set_kept(FlightObject *f, PyObject *kept, void *unused)
{
    (void)unused;
    if (!kept || !PyTuple_CheckExact(kept) || PyTuple_GET_SIZE(kept) != KEPTS) {
        fail(PyExc_TypeError, "kept is what _judge returns");
        return -1;
    }
    Py_SETREF(f->kept, Py_NewRef(kept));
    return 0;
}

static PyObject *Flight_stores(FlightObject *f, void *unused)
{
    (void)unused;
    return Py_NewRef(f->stores ? f->stores : Py_None);
}

static int Flight_set_stores(FlightObject *f, PyObject *stores, void *unused)
{
    (void)unused;
    Py_XSETREF(f->stores, stores == Py_None ? NULL : Py_XNewRef(stores));
    return 0;
}

PyObject *flight_stored(const FlightObject *f, PyObject *value)
{
    PyObject *stores = Py_XNewRef(f->stores),
             *stored = stores ? PyObject_CallOneArg(stores, value) : Py_NewRef(value);
    Py_XDECREF(stores);
    return stored;
}

FlightObject *flight_new(const struct driver *d)
{
    SegmentObject *s = d->s;
    FlightObject *f = PyObject_GC_New(FlightObject, flight_type);
    if (!f)
        return NULL;
    memset((char *)f + sizeof(PyObject), 0, sizeof *f - sizeof(PyObject));
    f->segment = s;
    f->waiters = PySet_New(NULL);
    f->decoders = Py_XNewRef(s->decoders);
    f->owner = Py_NewRef((PyObject *)s);
    f->key = Py_NewRef(d->key);
    f->kept = Py_NewRef(d->kept);
    PyObject_GC_Track(f);
    if (!f->waiters)
        Py_CLEAR(f);
    return f;
}

/* The flight whose loader runs here, or NULL. */
PyObject *flight_here(void)
{
    PyObject *o = NULL;
    if (PyContextVar_Get(flight_running, NULL, &o) < 0)
        PyErr_Clear();
    if (o && Py_TYPE(o) != flight_type)
        Py_CLEAR(o);
    return o;
}

/* ---- what its loader saw of transactions ---- */

void snapshot_older(struct snapshot *saw, const struct snapshot *also)
{
    bool apart = saw->older && also->older && (saw->token ^ also->token) >> TOKEN_POSITION_BITS;
    saw->unstored = saw->unstored || also->unstored || apart;
    if (also->older && (!saw->older || also->token < saw->token))
        saw->token = also->token;
    saw->older = saw->older || also->older;
}

/* For transactions.py: saw(tokens): a statement of a transaction ran in a loader, or in a thread or task that
 * it began. tokens: from before the transaction's snapshot, by cache; None: the transaction writes. */
static PyObject *Flight_saw(FlightObject *flight, PyObject *tokens)
{
    for (FlightObject *f = flight; f; f = (FlightObject *)f->parent) {
        PyObject *owner = Py_XNewRef(f->owner);
        PyObject *token = tokens != Py_None && owner ? PyObject_GetItem(tokens, owner) : NULL;
        struct snapshot also = {.unstored = !token, .older = token};
        if (token && !number64_from(token, &also.token))
            also.unstored = true;
        Py_XDECREF(token);
        Py_XDECREF(owner);
        PyErr_Clear();
        if (f->state == FLIGHT_RUNNING)
            snapshot_older(&f->saw, &also);
    }
    Py_RETURN_NONE;
}

/* For loads.py: stored(key) -> (state, type tag, bytes) of the value that _find finds; (0, 0, b"") where it
 * finds none. */
PyObject *Segment_stored(SegmentObject *s, PyObject *key)
{
    struct key k;
    struct entry_ref e;
    enum finding f = FOUND_NOTHING;
    PyObject *data = NULL;
    int hidden = transaction_hides();
    if (hidden < 0 || !key_from(key, &k) || !enter(s))
        return NULL;
    uint64_t hash = hash_key(s->a.hash_key, k.bytes, k.n);
    enum reading r = hidden ? READ_GARBAGE : READ_TORN;
    for (int tries = 0; tries < GET_TRIES_MAX && r == READ_TORN; tries++) {
        f = cache_find(&s->a, hash, k.bytes, k.n, &e);
        r = f == FOUND_NOTHING ? READ_GARBAGE : read_bytes(s, &e, &data);
    }
    if (r == READ_ERROR)
        return NULL;
    return r == READ_OK ? Py_BuildValue("(iiN)", (int)f, (int)entry_type(&e), data)
                        : Py_BuildValue("(iiy)", 0, 0, "");
}

static PyMethodDef flight_methods[] = {
    {"saw", (PyCFunction)Flight_saw, METH_O, NULL},
    {"outcome", (PyCFunction)Flight_outcome, METH_NOARGS, "outcome() -> (state, value or exception)"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef flight_attributes[] = {
    {"running", (getter)Flight_running, NULL, "is the loader still at it?", NULL},
    {"waiters", (getter)Flight_waiters, NULL, "a set of callables, each called once when it is over", NULL},
    {"owner", (getter)Flight_owner, NULL, "the cache that loads; None once it is over", NULL},
    {"key", (getter)Flight_key, NULL, "the key that is loaded", NULL},
    {"batch", (getter)Flight_batch, NULL, "the flights of its load, one a key; None for the load of one",
     NULL},
    {"kept", (getter)Flight_kept, (setter)Flight_set_kept, "how the value will be kept: what _judge returned",
     NULL},
    {"stores", (getter)Flight_stores, (setter)Flight_set_stores,
     "makes of the loaded value what is stored; or None", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot flight_slots[] = {
    {Py_tp_doc, "One load of this process, as those see it who wait for it."},
    {Py_tp_dealloc, Flight_dealloc},
    {Py_tp_traverse, Flight_traverse},
    {Py_tp_clear, Flight_clear},
    {Py_tp_methods, flight_methods},
    {Py_tp_getset, flight_attributes},
    {0, NULL},
};

static PyType_Spec flight_spec = {"cachee_shm._core.Flight", sizeof(FlightObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                  flight_slots};

bool flights_ready(PyObject *module)
{
    flight_running = PyContextVar_New("cachee_shm.flight", NULL);
    flight_type = (PyTypeObject *)PyType_FromSpec(&flight_spec);
    return flight_running && flight_type && PyModule_AddObjectRef(module, "flight", flight_running) == 0 &&
           PyModule_AddObjectRef(module, "Flight", (PyObject *)flight_type) == 0;
}

/* ---- what loads go by, and what they hold ---- */

/* For synced.py: a clock that nobody can freeze or set back, in ms; the same in every segment. */
PyObject *Segment_real_ms(SegmentObject *s, PyObject *unused)
{
    (void)s;
    (void)unused;
    return PyLong_FromUnsignedLongLong(clock_real_ms());
}

/* For tests: _lateness(ms_min, ms_unknown): when a load is late. */
PyObject *Segment_lateness(SegmentObject *s, PyObject *args)
{
    uint64_t least, unknown;
    if (!PyArg_ParseTuple(args, "O&O&:_lateness", number64_from, &least, number64_from, &unknown) ||
        !enter(s))
        return NULL;
    s->a.late_ms_min = least;
    s->a.late_ms_unknown = unknown;
    Py_RETURN_NONE;
}

/* For tests: _holds() -> (leases, loads under way, open `writing` blocks) of this process and this
 * attachment. */
PyObject *Segment_holds(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    uint32_t leases = 0, flights = 0;
    uint64_t mine = (uint64_t)(s->a.slot_generation & 0xffff) << 12 | s->a.slot;
    for (uint32_t i = 0; i < s->a.geo.lease_slots; i++) {
        uint64_t word = load_acquire(&s->a.leases[i].word);
        leases += word && (word & ((1ull << 28) - 1)) == mine;
    }
    for (const FlightObject *f = s->flights; f; f = f->next)
        flights++;
    return Py_BuildValue("(III)", leases, flights, s->a.intents_open);
}
