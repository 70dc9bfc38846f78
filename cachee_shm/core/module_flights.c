/* module_flights.c - the type Flight: what the callers of one process share of a load: waiters, outcome, and
 * what the loader says about it. A flight holds no lease: module_loading.c takes it and gives it back. */
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

bool is_flight(PyObject *o) { return Py_IS_TYPE(o, flight_type); }

/* outcome() -> (state, value). Each caller gets a copy of the loaded value, as from the cache. */
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

/* ---- For loads.py: what a loader asks and says about its own load ---- */

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

/* The flights of a load of many keys, in the order of the keys; None for the load of one key. */
static PyObject *Flight_batch(FlightObject *flight, void *unused)
{
    (void)unused;
    Py_ssize_t n = flight->place;
    PyObject *batch = n ? PyTuple_New(n) : Py_NewRef(Py_None);
    if (!batch || !n)
        return batch;
    if (flight->place != n) { /* the load ended while the tuple was made */
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
    f->asks_peers = !d->alone && !d->of_many && !d->saw.older && !d->saw.unstored &&
                    (!d->early_of || d->early_of == EARLY_OF_NONE) &&
                    PyTuple_GET_ITEM(d->kept, KEPT_LOCAL) != Py_True;
    PyObject_GC_Track(f);
    if (!f->waiters)
        Py_CLEAR(f);
    return f;
}

struct fill flight_given(const FlightObject *f, struct fill fill)
{
    if (!f->is_given)
        return fill;
    fill.given = &f->given;
    fill.started_ms -= f->given.age_ms < fill.started_ms ? f->given.age_ms : fill.started_ms;
    return fill;
}

/* The flight whose loader runs in this context, or NULL. */
PyObject *flight_here(void)
{
    PyObject *o = NULL;
    if (PyContextVar_Get(flight_running, NULL, &o) < 0)
        PyErr_Clear();
    if (o && Py_TYPE(o) != flight_type)
        Py_CLEAR(o);
    return o;
}

/* ---- what the loader saw of transactions ---- */

void snapshot_older(struct snapshot *saw, const struct snapshot *also)
{
    bool apart = saw->older && also->older && (saw->token ^ also->token) >> TOKEN_POSITION_BITS;
    saw->unstored = saw->unstored || also->unstored || apart;
    if (also->older && (!saw->older || also->token < saw->token))
        saw->token = also->token;
    saw->older = saw->older || also->older;
}

/* For transactions.py: saw(tokens). A statement of a transaction ran in a loader, or in a thread or task that
 * the loader began. tokens: by cache, taken before the transaction's snapshot; None: the transaction writes.
 * */
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

/* For loads.py: stored(key) -> (state, type tag, bytes) of the value that _find finds; (0, 0, b"") if it
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

/* Does the value of another host have all tags that the caller names? If it lacks one, that host would not
 * evict it with that tag. */
static bool has_tags(const struct given *given, const SegmentObject *s, PyObject *named)
{
    struct write w;
    tags_from(s, named, &w);
    bool has = true;
    for (uint32_t i = 0; i < w.tags && has; i++) {
        has = false;
        for (uint32_t j = 0; j < given->tags; j++)
            has = has || given->tag[j] == w.tag[i];
    }
    return has;
}

/* For fetching.py: given(age_ms, left_ms, hashes of tags). The value that the loader returns came from
 * another host. False: it must not be stored, and nothing was noted. */
static PyObject *Flight_given(FlightObject *f, PyObject *args)
{
    struct given g = {0};
    PyObject *tags;
    if (!PyArg_ParseTuple(args, "O&O&O!:given", number64_from, &g.age_ms, number64_from, &g.left_ms,
                          &PyTuple_Type, &tags))
        return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(tags);
    for (Py_ssize_t i = 0; i < n && i < TAGS_MAX; i++)
        if (!number64_from(PyTuple_GET_ITEM(tags, i), &g.tag[g.tags++]))
            return NULL;
    if (n > TAGS_MAX || !f->asks_peers || f->state != FLIGHT_RUNNING || !f->owner ||
        !has_tags(&g, (SegmentObject *)f->owner, PyTuple_GET_ITEM(f->kept, KEPT_TAGS)))
        Py_RETURN_FALSE;
    f->given = g;
    f->is_given = true;
    Py_RETURN_TRUE;
}

static PyObject *Flight_asks_peers(FlightObject *f, void *unused)
{
    (void)unused;
    return PyBool_FromLong(f->asks_peers);
}

static PyMethodDef flight_methods[] = {
    {"given", (PyCFunction)Flight_given, METH_VARARGS, NULL},
    {"saw", (PyCFunction)Flight_saw, METH_O, NULL},
    {"outcome", (PyCFunction)Flight_outcome, METH_NOARGS, "outcome() -> (state, value or exception)"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef flight_attributes[] = {
    {"running", (getter)Flight_running, NULL, "does the loader still run?", NULL},
    {"asks_peers", (getter)Flight_asks_peers, NULL, "may another host give the value?", NULL},
    {"waiters", (getter)Flight_waiters, NULL, "a set of callables, each called once when the load is over",
     NULL},
    {"owner", (getter)Flight_owner, NULL, "the cache that loads; None once it is over", NULL},
    {"key", (getter)Flight_key, NULL, "the key that is loaded", NULL},
    {"batch", (getter)Flight_batch, NULL, "the flights of its load, one a key; None for the load of one",
     NULL},
    {"kept", (getter)Flight_kept, (setter)Flight_set_kept, "how the value will be kept: what _judge returned",
     NULL},
    {"stores", (getter)Flight_stores, (setter)Flight_set_stores,
     "a callable that turns the loaded value into the stored one; or None", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot flight_slots[] = {
    {Py_tp_doc, "One load of this process, for its loader and for the callers that wait for it."},
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

/* ---- the clock of loads, and what loads hold ---- */

/* For synced.py: a clock in ms that cannot be frozen or set back; the same in every segment. */
PyObject *Segment_real_ms(SegmentObject *s, PyObject *unused)
{
    (void)s;
    (void)unused;
    return PyLong_FromUnsignedLongLong(clock_real_ms());
}

/* For tests: _lateness(ms_min, ms_unknown). After how long a load counts as late. */
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
