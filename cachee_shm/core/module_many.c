/* module_many.c - loading many keys by one call of the loader. See many.py, which waits.
 *
 * Each key has a driver of its own, with its own lease, token, flight and answer. First each key is looked
 * up, and claimed if it is missing. Then the loader is called once with the claimed keys, each value is
 * filled, and all leases are given back. If another caller loads a key, the answer for it is "held"; nothing
 * waits here, because no caller may wait while it holds a lease.
 *
 * While the loader runs, each flight is the parent of the next, and the last one is the context's. So a
 * question about "the loads that run here" (module_loading.c) finds all of them. The chain is undone from its
 * end, while the drivers hold its links, so that freeing it does not recurse, however long it is.
 */
#include "module_loading.h"

struct try {
    struct driver d;
    PyObject *answer; /* as _load returns it; NULL: the key is claimed, or was not looked up yet */
    PyObject *value;  /* the loaded value */
    struct filled filled;
    bool led;
};

struct many {
    PyObject *loader;
    PyObject *outer; /* the flight whose loader calls, or NULL */
    Py_ssize_t count, led;
    struct try tries[];
};

/* ---- begin ---- */

static bool tries_from(struct many *m, SegmentObject *s, PyObject *asks, PyObject *kept, bool awaited)
{
    for (; m->count < PyTuple_GET_SIZE(asks); m->count++) {
        PyObject *ask = PyTuple_GET_ITEM(asks, m->count);
        struct driver *d = &m->tries[m->count].d;
        if (!PyTuple_CheckExact(ask) || PyTuple_GET_SIZE(ask) != 5) {
            fail(PyExc_TypeError, "each ask is (key, since, asked_ms, alone, early_of)");
            return false;
        }
        PyObject *const asking[] = {PyTuple_GET_ITEM(ask, 1), PyTuple_GET_ITEM(ask, 2),
                                    PyTuple_GET_ITEM(ask, 3), PyTuple_GET_ITEM(ask, 4)};
        if (!driver_of(d, s, PyTuple_GET_ITEM(ask, 0), kept, asking))
            return false;
        d->of_many = true;
        d->awaited = awaited;
    }
    return true;
}

struct many *many_from(SegmentObject *s, PyObject *const *args, Py_ssize_t n, bool awaited)
{
    if (n != 3 || !PyTuple_CheckExact(args[2]) || PyTuple_GET_SIZE(args[2]) != KEPTS) {
        fail(PyExc_TypeError, "_load_many(asks, loader, kept)");
        return NULL;
    }
    PyObject *asks = PySequence_Tuple(args[0]);
    struct many *m =
        asks ? PyMem_Calloc(1, sizeof *m + (size_t)PyTuple_GET_SIZE(asks) * sizeof *m->tries) : NULL;
    if (asks && !m)
        PyErr_NoMemory();
    if (m) {
        m->loader = Py_NewRef(args[1]);
        if (!tries_from(m, s, asks, args[2], awaited))
            many_free(m), m = NULL;
    }
    Py_XDECREF(asks);
    return m;
}

/* All leases were given back before. */
void many_free(struct many *m)
{
    for (Py_ssize_t i = 0; i < m->count; i++) {
        struct try *t = &m->tries[i];
        driver_clear(&t->d);
        Py_CLEAR(t->answer);
        Py_CLEAR(t->value);
        Py_CLEAR(t->filled.encoded);
        Py_CLEAR(t->filled.complaint);
    }
    Py_CLEAR(m->loader);
    Py_CLEAR(m->outer);
    PyMem_Free(m);
}

int many_traverse(struct many *m, visitproc visit, void *arg)
{
    Py_VISIT(m->loader);
    Py_VISIT(m->outer);
    for (Py_ssize_t i = 0; i < m->count; i++) {
        const struct try *t = &m->tries[i];
        Py_VISIT(t->d.s);
        Py_VISIT(t->d.key);
        Py_VISIT(t->d.kept);
        Py_VISIT(t->d.flight);
        Py_VISIT(t->d.before);
        Py_VISIT(t->answer);
        Py_VISIT(t->value);
        Py_VISIT(t->filled.encoded);
        Py_VISIT(t->filled.complaint);
    }
    return 0;
}

static bool claim_all(struct many *m)
{
    for (Py_ssize_t i = 0; i < m->count; i++) {
        PyObject *given = NULL;
        enum begin next = load_look(&m->tries[i].d, &given);
        m->tries[i].led = next == BEGIN_LOAD;
        m->led += next == BEGIN_LOAD;
        if (next == BEGIN_FOUND || next == BEGIN_HELD)
            m->tries[i].answer = load_not_made(next, given);
        if (next != BEGIN_LOAD && !m->tries[i].answer)
            return false;
    }
    return true;
}

/* Called when all keys are claimed: another caller that claims could find a flight in the list of loads. */
static bool take_off_all(struct many *m)
{
    struct driver *last = NULL;
    uint32_t place = 0;
    m->outer = flight_here();
    for (Py_ssize_t i = 0; i < m->count; i++) {
        struct driver *d = &m->tries[i].d;
        if (!m->tries[i].led)
            continue;
        if (!load_take_off(d, last ? Py_NewRef((PyObject *)last->flight) : Py_XNewRef(m->outer)))
            return false;
        d->flight->place = ++place;
        last = d;
    }
    return load_runs_here(last);
}

static PyObject *answers(struct many *m)
{
    PyObject *list = PyList_New(m->count);
    for (Py_ssize_t i = 0; list && i < m->count; i++)
        PyList_SET_ITEM(list, i, Py_NewRef(m->tries[i].answer));
    return list;
}

enum begin many_begin(struct many *m, PyObject **out)
{
    bool good = claim_all(m);
    if (good && !m->led)
        return (*out = answers(m)) ? BEGIN_FOUND : BEGIN_ERROR;
    if (good && take_off_all(m))
        return BEGIN_LOAD;
    many_let_go(m);
    return BEGIN_ERROR;
}

PyObject *many_call(struct many *m)
{
    PyObject *keys = PyList_New(m->led);
    for (Py_ssize_t i = 0, at = 0; keys && i < m->count; i++)
        if (m->tries[i].led)
            PyList_SET_ITEM(keys, at++, Py_NewRef(m->tries[i].d.key));
    PyObject *result = keys ? PyObject_CallOneArg(m->loader, keys) : NULL;
    Py_XDECREF(keys);
    return result;
}

/* ---- the end ---- */

static void unchain(struct many *m, FlightObject *f)
{
    f->place = 0;
    Py_XSETREF(f->parent, Py_XNewRef(m->outer));
}

/* Give back all leases first, before any Python code can run; then end the flights, with `error` as the
 * outcome of those that failed. */
static bool let_go(struct many *m, PyObject *error, PyObject *trace)
{
    bool told = true;
    for (Py_ssize_t i = 0; i < m->count; i++)
        if (m->tries[i].led)
            load_give_back(&m->tries[i].d);
    for (Py_ssize_t i = m->count; i-- > 0;) {
        struct try *t = &m->tries[i];
        if (!t->led)
            continue;
        t->led = false;
        if (t->d.flight)
            unchain(m, t->d.flight);
        bool failed = t->filled.state == FLIGHT_FAILED;
        PyObject *value = failed ? error : t->value;
        told = load_let_go(&t->d, t->filled.state, value, failed ? trace : NULL, t->filled.encoded) && told;
    }
    return told;
}

bool many_let_go(struct many *m)
{
    for (Py_ssize_t i = 0; i < m->count; i++)
        m->tries[i].filled.state = FLIGHT_ABANDONED;
    return let_go(m, NULL, NULL);
}

/* many.py's wrapper of the loader returns a list with one value for each key. */
static bool values_from(struct many *m, PyObject *values)
{
    if (!PyList_CheckExact(values) || PyList_GET_SIZE(values) != m->led) {
        fail(PyExc_TypeError, "_load_many: the loader returns a list, a value for each key");
        return false;
    }
    for (Py_ssize_t i = 0, at = 0; i < m->count; i++)
        if (m->tries[i].led)
            m->tries[i].value = Py_NewRef(PyList_GET_ITEM(values, at++));
    return true;
}

static PyObject *finish_loaded(struct many *m)
{
    bool good = true;
    for (Py_ssize_t i = 0; i < m->count; i++)
        m->tries[i].filled.state = FLIGHT_ABANDONED;
    for (Py_ssize_t i = 0; good && i < m->count; i++) {
        struct try *t = &m->tries[i];
        if (!t->led)
            continue;
        good = load_fill(&t->d, t->value, &t->filled);
        if (good)
            t->answer = Py_BuildValue("(iOO)", IS_FOUND, t->value,
                                      t->filled.complaint ? t->filled.complaint : Py_None);
        good = good && t->answer;
    }
    return let_go(m, NULL, NULL) && good ? answers(m) : NULL;
}

/* Find the older value of each claimed key. False: one has none, or an error is set. */
static bool all_have_older(struct many *m)
{
    bool all = true;
    for (Py_ssize_t i = 0; i < m->count; i++) {
        struct try *t = &m->tries[i];
        PyObject *older = t->led ? load_older(&t->d) : NULL;
        if (PyErr_Occurred())
            return false;
        if (t->led && !older)
            t->filled.state = FLIGHT_FAILED;
        if (older)
            t->answer = load_found(older);
        all = all && t->answer;
    }
    return all;
}

/* The loader's exception is set. It is the result, unless each claimed key has an older value. */
static PyObject *finish_failed(struct many *m)
{
    bool answer = PyErr_ExceptionMatches(PyExc_Exception), all = false, alien = false;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace)
        PyException_SetTraceback(error, trace);
    for (Py_ssize_t i = 0; i < m->count; i++)
        m->tries[i].filled.state = FLIGHT_ABANDONED;
    if (answer)
        all = all_have_older(m), alien = PyErr_Occurred();
    for (Py_ssize_t i = 0; answer && i < m->count; i++)
        if (m->tries[i].led)
            load_counted(&m->tries[i].d, all ? STAT_LOADS_STALE : STAT_LOADS_FAILED);
    bool told = let_go(m, error, trace);
    if (told && !all && !alien) {
        PyErr_Restore(type, error, trace);
        return NULL;
    }
    Py_XDECREF(type), Py_XDECREF(error), Py_XDECREF(trace);
    return told && all ? answers(m) : NULL;
}

/* There is one, because something was loaded. */
static struct try *first_led(struct many *m)
{
    struct try *t = m->tries;
    while (!t->led)
        t++;
    return t;
}

PyObject *many_finish(struct many *m, PyObject *values)
{
    for (Py_ssize_t i = 0; i < m->count; i++)
        if (m->tries[i].led)
            load_note_duration(&m->tries[i].d);
    load_took(&first_led(m)->d);
    bool good = values && values_from(m, values);
    Py_XDECREF(values);
    return good ? finish_loaded(m) : finish_failed(m);
}

/* ---- the verbs ---- */

/* For many.py: _load_many(asks, loader, kept) -> a list of what _load returns, one for each ask. An ask is
 * (key, since, asked_ms, alone, early_of), and no key is in two. loader(keys) is called at most once, and
 * returns a list of as many values. */
PyObject *Segment_load_many(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct many *m = many_from(s, args, n, false);
    PyObject *out = NULL;
    if (m && many_begin(m, &out) == BEGIN_LOAD)
        out = many_finish(m, many_call(m));
    if (m)
        many_free(m);
    return out;
}

/* For many.py: _keys(keys): a tuple of the keys that an iterable gives. */
PyObject *Segment_keys(SegmentObject *s, PyObject *keys)
{
    PyObject *held = keys_held(keys);
    if (held && !enter(s))
        Py_CLEAR(held);
    return held;
}
