/* module_loading.c - loading: find, lease, call the loader, fill, give back. See loading.py, which waits.
 *
 * Leases are taken and given back here, and no byte code runs in between except the loader's. So an exception
 * of a signal handler, or the cancellation of a task, comes out of the loader's own code, and the lease is
 * given back. A Flight is what the load shares with its waiters; it holds no lease.
 */
#include "module_loading.h"

#include <pythread.h>

#include "clock.h"
#include "journal.h"

/* ---- one caller's try ---- */

/* A refresh: it loads even if a fresh value is there, and no other value is returned in its place. */
static bool refreshes(const struct driver *d) { return d->early_of == EARLY_OF_ANY; }

/* A load ahead: no reader has asked for the key. */
static bool is_ahead(const struct driver *d) { return d->early_of == EARLY_OF_NONE; }

static PyObject *kept(const struct driver *d, int which) { return PyTuple_GET_ITEM(d->kept, which); }

bool driver_of(struct driver *d, SegmentObject *s, PyObject *key, PyObject *kept_as, PyObject *const *asking)
{
    *d = (struct driver){.hold.index = NO_LEASE};
    if (!number64_from(asking[0], &d->since) || !number64_from(asking[1], &d->asked_ms) ||
        !number64_from(asking[3], &d->early_of))
        return false;
    d->alone = asking[2] == Py_True;
    d->s = (SegmentObject *)Py_NewRef((PyObject *)s);
    d->key = Py_NewRef(key);
    d->kept = Py_NewRef(kept_as);
    return true;
}

bool driver_from(struct driver *d, SegmentObject *s, PyObject *const *args, Py_ssize_t n, const char *verb)
{
    if (n != 8 || !PyTuple_Check(args[2]) || !PyTuple_Check(args[3]) || PyTuple_GET_SIZE(args[3]) != KEPTS) {
        fail(PyExc_TypeError, "%s(key, loader, args, kept, since, asked_ms, alone, early_of)", verb);
        return false;
    }
    if (!driver_of(d, s, args[0], args[3], args + 4))
        return false;
    d->loader = Py_NewRef(args[1]);
    d->args = Py_NewRef(args[2]);
    return true;
}

void driver_clear(struct driver *d)
{
    Py_CLEAR(d->key);
    Py_CLEAR(d->loader);
    Py_CLEAR(d->args);
    Py_CLEAR(d->kept);
    Py_CLEAR(d->s);
}

/* The newest event of the key, of its tags, or of all: what was asked for before it is not stored after
 * it. */
static bool fence_now(SegmentObject *s, PyObject *key, PyObject *tags, bool local, uint64_t *hash,
                      uint64_t *fence)
{
    struct write w;
    if (!hash_from(s, key, hash))
        return false;
    tags_from(s, tags, &w);
    *fence = fence_of(&s->a, *hash);
    uint64_t clear = clear_of(&s->a, local);
    *fence = clear > *fence ? clear : *fence;
    for (uint32_t i = 0; i < w.tags; i++)
        if (tag_fence_of(&s->a, w.tag[i]) > *fence)
            *fence = tag_fence_of(&s->a, w.tag[i]);
    return true;
}

/* Does the loader of this very key ask, in itself, in a task that it began, or in a thread that it sent? */
static bool asks_itself(const struct driver *d, PyObject *here)
{
    bool own = false;
    for (FlightObject *f = (FlightObject *)here; f && !own; f = (FlightObject *)f->parent)
        own = f->state == FLIGHT_RUNNING && f->segment == d->s && f->hash == d->hash;
    return own;
}

/* ---- a loader that waits for another key's load ---- */

/* A load that others of this segment may wait for, and that is under way in the attachment of now. */
static bool is_waited_for(const FlightObject *f, const SegmentObject *s)
{
    return f->state == FLIGHT_RUNNING && f->segment == s && !f->alone;
}

static bool says(const FlightObject *f, const SegmentObject *s)
{
    return f->attachments == s->attachments && f->hold.index != NO_LEASE;
}

static void wait_is_over(SegmentObject *s, PyObject *here, uint64_t hash)
{
    for (FlightObject *f = (FlightObject *)here; f; f = (FlightObject *)f->parent)
        if (is_waited_for(f, s) && says(f, s))
            lease_waits_no_more(&s->a, &f->hold, hash);
}

/* Says that those whose loader runs here wait. False: one of them would wait for itself, or there is no room
 * to say it. */
static bool may_wait(SegmentObject *s, PyObject *here, uint64_t hash)
{
    bool may = true;
    for (FlightObject *f = (FlightObject *)here; f && may; f = (FlightObject *)f->parent)
        if (is_waited_for(f, s))
            may = says(f, s) && lease_waits(&s->a, &f->hold, hash);
    for (FlightObject *f = (FlightObject *)here; f && may; f = (FlightObject *)f->parent)
        if (is_waited_for(f, s))
            may = !lease_leads_to(&s->a, hash, f->hash);
    if (!may)
        wait_is_over(s, here, hash);
    return may;
}

static bool is_late(const struct driver *d, const FlightObject *f, uint64_t now_ms)
{
    return now_ms - f->began_ms > lease_late_ms(&d->s->a, d->hash);
}

/* A load of this process that serves the caller. */
static FlightObject *flight_for(const struct driver *d, uint64_t now_ms)
{
    for (FlightObject *f = d->s->flights; f; f = f->next)
        if (f->hash == d->hash && f->life == d->s->a.life && f->token >= d->since && !is_late(d, f, now_ms))
            return f;
    return NULL;
}

static bool waited_long(const struct driver *d, uint64_t now_ms)
{
    return now_ms - d->asked_ms > 2 * lease_late_ms(&d->s->a, d->hash);
}

/* A blocking call in the thread of the very event loop that has to run the load. */
static bool blocks(const struct driver *d, const FlightObject *f)
{
    return !d->awaited && f->thread && f->thread == PyThread_get_thread_ident();
}

/* Within a transaction a load sees what was committed when the transaction began. Its token is that old, so
 * callers who know of something newer neither wait for it nor are served by it. */
static void see_through(struct driver *d)
{
    bool same = !((d->saw.token ^ d->token) >> TOKEN_POSITION_BITS);
    if (d->saw.older && same && d->saw.token < d->token)
        d->token = d->saw.token;
    d->saw.unstored = d->saw.unstored || (d->saw.older && !same);
}

/* Waiting is for BEGIN_HELD alone. On BEGIN_LOAD the lease is held, or the caller is alone. `here` was asked
 * for before: from fence_now on, no Python code may run. */
static enum begin claim_from(struct driver *d, PyObject *here, PyObject **flight)
{
    struct lease_wish wish = {.now_ms = clock_real_ms(), .since = d->since};
    if (!fence_now(d->s, d->key, kept(d, KEPT_TAGS), kept(d, KEPT_LOCAL) == Py_True, &d->hash, &wish.fence))
        return BEGIN_ERROR;
    FlightObject *running = NULL;
    struct attachment *a = &d->s->a;
    wait_is_over(d->s, here, d->hash);
    /* without a segment it is unknown what was written: each caller loads for itself */
    d->alone = d->alone || d->saw.unstored || a->stand_in;
    bool would_block_itself = !d->alone && asks_itself(d, here);
    if (!d->alone && waited_long(d, wish.now_ms)) {
        count(a, STAT_WAITS_OVER, 1);
        d->alone = true;
    }
    if (!d->alone && !would_block_itself)
        running = flight_for(d, wish.now_ms);
    would_block_itself = would_block_itself || (running && blocks(d, running));
    d->alone = d->alone || would_block_itself;
    d->token = token_of(d->s, ring_tail(a));
    see_through(d);
    wish.hash = d->hash, wish.token = d->token & TOKEN_POSITION_MASK;
    d->started_ms = clock_ms(a);
    d->attachments = d->s->attachments, d->life = a->life;
    if (would_block_itself ? !d->has_stale
                           : d->alone || (!running && lease_take(a, &wish, &d->hold) != LEASE_HELD))
        return BEGIN_LOAD;
    if (!d->has_stale && !d->of_many && !may_wait(d->s, here, d->hash)) { /* of many: _will_wait asks it */
        count(a, STAT_WAITS_CIRCULAR, 1);
        d->alone = true;
        return BEGIN_LOAD;
    }
    if (!d->has_stale)
        count(a, STAT_LEASE_WAITS, 1);
    *flight = Py_NewRef(running ? (PyObject *)running : Py_None);
    return BEGIN_HELD;
}

static enum begin claim(struct driver *d, PyObject **flight)
{
    PyObject *here = flight_here();
    enum begin next = claim_from(d, here, flight);
    Py_XDECREF(here);
    return next;
}

bool load_take_off(struct driver *d, PyObject *parent)
{
    FlightObject *f = d->flight = flight_new(d);
    if (!f) {
        Py_XDECREF(parent);
        return false;
    }
    f->life = d->life, f->attachments = d->attachments, f->hash = d->hash, f->began_ms = d->began_ms;
    f->began_us = clock_us(CLOCK_MONOTONIC);
    f->hold = d->hold, f->alone = d->alone;
    f->token = d->token & TOKEN_POSITION_MASK;
    f->thread = d->awaited ? PyThread_get_thread_ident() : 0;
    f->parent = parent;
    if (!d->alone)
        f->next = d->s->flights, d->s->flights = f;
    return true;
}

bool load_runs_here(struct driver *d)
{
    d->before = PyContextVar_Set(flight_running, (PyObject *)d->flight);
    return d->before != NULL;
}

static void land(struct driver *d)
{
    for (FlightObject **at = &d->s->flights; *at; at = &(*at)->next) {
        if (*at == d->flight) {
            *at = d->flight->next;
            break;
        }
    }
    if (d->before && PyContextVar_Reset(flight_running, d->before) < 0)
        PyErr_Clear(); /* it ends in another context than its own: that one is over */
    Py_CLEAR(d->before);
}

void load_give_back(struct driver *d)
{
    struct attachment *a = d->hold.index != NO_LEASE ? attachment_still(d->s, d->attachments) : NULL;
    if (a)
        lease_release(a, &d->hold);
    d->hold.index = NO_LEASE;
}

/* Wake the waiters. The event loop of one may be closed by now (RuntimeError). Any other error is an
 * exception of a signal handler, which the caller must get. False: such an error is set; all were woken all
 * the same. */
static bool wake(FlightObject *f)
{
    PyObject *all = PySequence_List(f->waiters), *type = NULL, *value = NULL, *trace = NULL;
    for (Py_ssize_t i = 0; all && i < PyList_GET_SIZE(all); i++) {
        PyObject *done = PyObject_CallNoArgs(PyList_GET_ITEM(all, i));
        Py_XDECREF(done);
        if (done || type)
            PyErr_Clear();
        else if (PyErr_ExceptionMatches(PyExc_RuntimeError))
            PyErr_Clear();
        else
            PyErr_Fetch(&type, &value, &trace);
    }
    Py_XDECREF(all);
    if (type)
        PyErr_Restore(type, value, trace);
    return !PyErr_Occurred();
}

bool load_let_go(struct driver *d, enum flight_state state, PyObject *value, PyObject *trace,
                 PyObject *encoded)
{
    PyObject *type, *error, *error_trace;
    PyErr_Fetch(&type, &error, &error_trace);
    load_give_back(d);
    bool told = true;
    FlightObject *f = d->flight;
    if (f) {
        land(d);
        f->state = state;
        f->value = Py_XNewRef(value);
        f->trace = Py_XNewRef(trace);
        f->encoded = Py_XNewRef(encoded);
        Py_CLEAR(f->owner);
        told = wake(f);
        d->flight = NULL;
        Py_DECREF((PyObject *)f);
    }
    if (told)
        PyErr_Restore(type, error, error_trace);
    else
        Py_XDECREF(type), Py_XDECREF(error), Py_XDECREF(error_trace);
    return told;
}

/* For the journal: this caller gets a value that is past its lifetime. */
static void note_stale(const struct driver *d, enum journal_why why)
{
    if (d->s->open)
        journal_key(&d->s->a, d->hash, JOURNAL_STALE_SERVED, why, 0);
}

enum begin load_look(struct driver *d, PyObject **out)
{
    d->began_ms = clock_real_ms();
    if (!transaction_snapshot(d->s, &d->saw))
        return BEGIN_ERROR;
    /* before the lease is taken, and behind it: the last holder may have filled */
    for (int look = 0; look < 2; look++) {
        PyObject *stale;
        struct age age = {0};
        d->s->a.looks_ahead = is_ahead(d);
        int found = find_value(d->s, d->key, &stale, &age);
        d->s->a.looks_ahead = false;
        if (found == FOUND && (refreshes(d) || (d->early_of && age.expires_ms == d->early_of)))
            found = FOUND_STALE;
        if (found < 0 || found == FOUND) {
            load_let_go(d, FLIGHT_ABANDONED, NULL, NULL, NULL);
            *out = stale;
            return found < 0 ? BEGIN_ERROR : BEGIN_FOUND;
        }
        d->has_stale = found == FOUND_STALE && !refreshes(d);
        enum begin next = look ? BEGIN_LOAD : claim(d, out);
        if (next == BEGIN_HELD && d->has_stale) { /* somebody else reloads it */
            note_stale(d, WHY_RELOADING);
            count(&d->s->a, STAT_WAITS_STALE, 1);
            Py_SETREF(*out, stale);
            return BEGIN_FOUND;
        }
        Py_XDECREF(stale);
        if (next != BEGIN_LOAD)
            return next;
    }
    return BEGIN_LOAD;
}

enum begin load_begin(struct driver *d, PyObject **out)
{
    enum begin next = load_look(d, out);
    if (next != BEGIN_LOAD || (load_take_off(d, flight_here()) && load_runs_here(d)))
        return next;
    load_let_go(d, FLIGHT_ABANDONED, NULL, NULL, NULL);
    return BEGIN_ERROR;
}

/* ---- the end ---- */

/* What the loader saw of transactions, once it has returned: it may have begun one, or written. *changed: its
 * waiters do not know that yet. False: an error is set. */
static bool saw_in_all(struct driver *d, bool *changed)
{
    struct snapshot now, before = d->saw;
    if (!transaction_snapshot(d->s, &now))
        return false;
    snapshot_older(&d->saw, &d->flight->saw);
    snapshot_older(&d->saw, &now);
    uint64_t token = d->token;
    see_through(d);
    *changed = d->token != token || d->saw.unstored != before.unstored;
    return true;
}

/* `said` was judged, so that nothing here fails. */
static struct fill fill_as(const struct driver *d, PyObject *said, bool is_none)
{
    bool negative = is_none && PyTuple_GET_ITEM(said, KEPT_NEGATIVE) != Py_None;
    bool early = PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(said, KEPT_EARLY)) > 0;
    struct fill f = {.announced = refreshes(d),
                     .ahead = is_ahead(d),
                     .token = d->token,
                     .started_ms = d->started_ms,
                     .load_ms = early ? (uint32_t)(clock_real_ms() - d->flight->began_ms) + 1 : 0,
                     .jitter = PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(said, KEPT_JITTER)),
                     .ttl = PyTuple_GET_ITEM(said, negative ? KEPT_NEGATIVE : KEPT_TTL),
                     .tags = PyTuple_GET_ITEM(said, KEPT_TAGS),
                     .local = PyTuple_GET_ITEM(said, KEPT_LOCAL)};
    period_from(PyTuple_GET_ITEM(said, KEPT_STALE), "stale", &f.grace_ms);
    period_from(PyTuple_GET_ITEM(said, KEPT_SLIDING), "sliding", &f.sliding_ms);
    return f;
}

/* `ttl` was judged. */
static bool stores_nothing(SegmentObject *s, PyObject *ttl)
{
    uint64_t ms;
    bool nothing = false;
    return ttl_from(s, ttl, &ms, &nothing) && nothing;
}

/* A value that cannot be cached is the caller's all the same. *complaint: why it is not cached. False: an
 * error is set. */
static bool fill(struct driver *d, PyObject *value, PyObject **encoded, PyObject **complaint,
                 enum flight_state *state)
{
    PyObject *said = Py_NewRef(d->flight->kept), *stored = flight_stored(d->flight, value);
    if (!stored) {
        Py_DECREF(said);
        *state = FLIGHT_ABANDONED;
        return false;
    }
    struct fill f = flight_given(d->flight, fill_as(d, said, value == Py_None));
    *state = FLIGHT_LOADED;
    bool nothing = stores_nothing(d->s, f.ttl);
    int result = nothing && f.announced ? STORE_NOTHING : fill_value(d->s, &f, d->key, stored, encoded);
    Py_DECREF(stored), Py_DECREF(said);
    if (result >= 0) {
        load_counted(d, result == STORE_LOST ? STAT_LOADS_REFUSED : STAT_LOADS_OK);
        return true;
    }
    bool unserializable = PyErr_ExceptionMatches(errors.unserializable);
    if (!unserializable && !PyErr_ExceptionMatches(errors.value_too_large)) {
        *state = FLIGHT_ABANDONED;
        return false;
    }
    load_counted(d, STAT_LOADS_OK);
    /* one object is not given to several callers */
    *state = unserializable ? FLIGHT_UNSHARED : FLIGHT_LOADED;
    PyObject *type, *trace;
    PyErr_Fetch(&type, complaint, &trace);
    PyErr_NormalizeException(&type, complaint, &trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    if (nothing) /* and nothing was to be cached */
        Py_CLEAR(*complaint);
    return true;
}

/* A refresh whose result must not be stored deletes the old value: on every host, when the open transaction
 * that writes has ended. */
static bool drop_refreshed(struct driver *d)
{
    PyObject *done = PyObject_CallMethod((PyObject *)d->s, "delete", "O", d->key);
    Py_XDECREF(done);
    return done != NULL;
}

PyObject *load_older(struct driver *d)
{
    PyObject *stale = NULL;
    if (!d->has_stale || !d->s->open)
        return NULL;
    int found = find_value(d->s, d->key, &stale, NULL);
    if (found < 0 && (PyErr_ExceptionMatches(errors.segment_error) || PyErr_ExceptionMatches(errors.closed)))
        PyErr_Clear();
    if (found == FOUND_STALE && kept(d, KEPT_RAISES) == Py_True)
        Py_CLEAR(stale);
    if (found == FOUND_STALE && stale)
        note_stale(d, WHY_LOAD_FAILED);
    return stale;
}

/* With the loader's exception set: the older value; or NULL with that exception, or with the one that the
 * look raised. */
static PyObject *fall_back(struct driver *d)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyObject *stale = load_older(d);
    if (stale || PyErr_Occurred())
        Py_XDECREF(type), Py_XDECREF(error), Py_XDECREF(trace);
    else
        PyErr_Restore(type, error, trace);
    return stale;
}

PyObject *load_found(PyObject *value) { return Py_BuildValue("(iNO)", IS_FOUND, value, Py_None); }

bool load_fill(struct driver *d, PyObject *value, struct filled *filled)
{
    *filled = (struct filled){.state = FLIGHT_ABANDONED};
    bool changed = false, good = saw_in_all(d, &changed);
    if (good && !d->saw.unstored)
        good = fill(d, value, &filled->encoded, &filled->complaint, &filled->state);
    else if (good)
        load_counted(d, STAT_LOADS_REFUSED);
    if (good && d->saw.unstored && refreshes(d))
        good = drop_refreshed(d);
    if (changed && filled->state == FLIGHT_LOADED)
        filled->state = FLIGHT_ABANDONED;
    return good;
}

static PyObject *finish_loaded(struct driver *d, PyObject *value)
{
    struct filled filled;
    bool good = load_fill(d, value, &filled);
    good = load_let_go(d, filled.state, value, NULL, filled.encoded) && good;
    PyObject *done =
        good ? Py_BuildValue("(iOO)", IS_FOUND, value, filled.complaint ? filled.complaint : Py_None) : NULL;
    Py_XDECREF(filled.encoded);
    Py_XDECREF(filled.complaint);
    Py_DECREF(value);
    return done;
}

/* With the loader's exception set. An exception that ends the program or the task is not an answer of the
 * origin. */
static PyObject *finish_failed(struct driver *d)
{
    bool answer = PyErr_ExceptionMatches(PyExc_Exception);
    PyObject *stale = answer ? fall_back(d) : NULL;
    if (answer)
        load_counted(d, stale ? STAT_LOADS_STALE : STAT_LOADS_FAILED);
    PyObject *type = NULL, *error = NULL, *trace = NULL;
    if (!stale) {
        PyErr_Fetch(&type, &error, &trace);
        PyErr_NormalizeException(&type, &error, &trace);
        if (trace)
            PyException_SetTraceback(error, trace);
    }
    bool told = load_let_go(d, answer && !stale ? FLIGHT_FAILED : FLIGHT_ABANDONED, error, trace, NULL);
    if (told && stale)
        return load_found(stale);
    Py_XDECREF(stale);
    if (told)
        PyErr_Restore(type, error, trace);
    else
        Py_XDECREF(type), Py_XDECREF(error), Py_XDECREF(trace);
    return NULL;
}

/* A coroutine function was given to the verb that does not await. NULL: the error is set. */
static PyObject *unless_awaitable(PyObject *value)
{
    PyAsyncMethods *methods = value ? Py_TYPE(value)->tp_as_async : NULL;
    if (!methods || !methods->am_await)
        return value;
    PyObject *closed = PyCoro_CheckExact(value) ? PyObject_CallMethod(value, "close", NULL) : NULL;
    Py_XDECREF(closed);
    fail(PyExc_TypeError,
         "the loader of get_or_load returned %.100s, which has to be awaited. Nothing was cached. Use "
         "aget_or_load.",
         Py_TYPE(value)->tp_name);
    Py_DECREF(value);
    return NULL;
}

PyObject *load_finish(struct driver *d, PyObject *value)
{
    if (!d->awaited)
        value = unless_awaitable(value);
    load_note_duration(d);
    load_took(d);
    return value ? finish_loaded(d, value) : finish_failed(d);
}

PyObject *load_not_made(enum begin next, PyObject *out)
{
    return next == BEGIN_ERROR   ? NULL
           : next == BEGIN_FOUND ? load_found(out)
                                 : Py_BuildValue("(iNO)", IS_HELD, out, Py_None);
}

/* ---- the verbs ---- */

/* For loading.py: _load(key, loader, args, kept, since, asked_ms, alone, early_of) -> (1, value, why it is
 * not cached or None), or (0, flight of this process or None, None): another caller loads. Raises what the
 * loader raises. */
static PyObject *Segment_load(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct driver d;
    PyObject *out = NULL;
    if (!driver_from(&d, s, args, n, "_load"))
        return NULL;
    enum begin next = load_begin(&d, &out);
    PyObject *result = next == BEGIN_LOAD ? load_finish(&d, PyObject_CallObject(d.loader, d.args))
                                          : load_not_made(next, out);
    driver_clear(&d);
    return result;
}

/* For loading.py: find_early(key, times) -> (state, value, expires_ms), counted. A fresh value that expires
 * within `times` as long as its load took has state 3, and tells when it expires. */
static PyObject *Segment_find_early(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    enum { FOUND_EARLY = 3 };
    PyObject *value;
    struct age age = {0};
    if (n != 2 || !PyFloat_CheckExact(args[1]))
        return fail(PyExc_TypeError, "_find_early(key, times)");
    int f = find_value(s, args[0], &value, &age);
    if (f < 0)
        return NULL;
    if (s->open)
        count(&s->a, f == FOUND ? STAT_HITS : STAT_MISSES, 1);
    double left_ms = (double)age.expires_ms - (double)age.now_ms;
    bool early =
        f == FOUND && age.expires_ms && age.load_ms && age.load_ms * PyFloat_AS_DOUBLE(args[1]) >= left_ms;
    return Py_BuildValue("(iNK)", early ? FOUND_EARLY : f, value ? value : Py_NewRef(Py_None),
                         (unsigned long long)age.expires_ms);
}

/* For loading.py: _arrive(key, tags, local) -> (since, asked_ms): where and when a call begins. */
static PyObject *Segment_arrive(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    uint64_t hash, fence;
    if (n != 3)
        return fail(PyExc_TypeError, "_arrive takes 3 arguments");
    if (!fence_now(s, args[0], args[1], args[2] == Py_True, &hash, &fence))
        return NULL;
    return Py_BuildValue("(KK)", fence, clock_real_ms());
}

/* For waiting.py: _waits(key, kept, since, asked_ms): would _load say that another caller loads? */
static PyObject *Segment_waits(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct entry_ref e;
    struct key k;
    struct lease_wish wish = {.now_ms = clock_real_ms()};
    if (n != 4 || !PyTuple_Check(args[1]) || PyTuple_GET_SIZE(args[1]) != KEPTS)
        return fail(PyExc_TypeError, "_waits(key, kept, since, asked_ms)");
    struct driver d = {.s = s, .kept = args[1]};
    if (!number64_from(args[2], &d.since) || !number64_from(args[3], &d.asked_ms) || !key_from(args[0], &k) ||
        !fence_now(s, args[0], kept(&d, KEPT_TAGS), kept(&d, KEPT_LOCAL) == Py_True, &d.hash, &wish.fence))
        return NULL;
    wish.since = d.since;
    wish.hash = d.hash;
    bool there = cache_find(&s->a, d.hash, k.bytes, k.n, &e) == FOUND;
    bool held = flight_for(&d, wish.now_ms) || lease_is_held(&s->a, &wish);
    return PyBool_FromLong(held && !there && !waited_long(&d, wish.now_ms));
}

/* For loading.py: _woke(key, flight): the wait that _load has sent the caller into is over. */
static PyObject *Segment_woke(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    uint64_t hash;
    struct key k;
    if (n != 2 || !(args[1] == Py_None || is_flight(args[1])))
        return fail(PyExc_TypeError, "_woke(key, flight)");
    if (!key_from(args[0], &k) || !hash_from(s, args[0], &hash))
        return NULL;
    PyObject *here = flight_here();
    if (here)
        wait_is_over(s, here, hash);
    count(&s->a, wait_brought(s, args[1], hash, &k), 1);
    Py_XDECREF(here);
    Py_RETURN_NONE;
}

/* For many.py and gathering.py: _will_wait(key): may the caller wait for this key's load? The wait ends by
 * _woke, or with the caller's own load. False: the caller would wait for itself. */
static PyObject *Segment_will_wait(SegmentObject *s, PyObject *key)
{
    PyObject *here = flight_here();
    uint64_t hash;
    bool good = hash_from(s, key, &hash), may = good && may_wait(s, here, hash);
    if (good && !may)
        count(&s->a, STAT_WAITS_CIRCULAR, 1);
    Py_XDECREF(here);
    return good ? PyBool_FromLong(may) : NULL;
}

/* For loading.py: _judge(ttl, stale, negative_ttl, tags, local, raises, jitter, sliding, early) -> what
 * `kept` is, once all of it is known to be right. The last five are what Options made of them. */
static PyObject *Segment_judge(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    uint64_t ms, stale_ms, sliding_ms;
    bool nothing;
    if (n != KEPTS || !PyFloat_CheckExact(args[KEPT_JITTER]) || !PyFloat_CheckExact(args[KEPT_EARLY]))
        return fail(PyExc_TypeError,
                    "_judge(ttl, stale, negative_ttl, tags, local, raises, jitter, sliding, early)");
    int local = PyObject_IsTrue(args[KEPT_LOCAL]);
    if (local < 0 || !ttl_from(s, args[KEPT_TTL], &ms, &nothing) ||
        !period_from(args[KEPT_STALE], "stale", &stale_ms) ||
        !ttl_from(s, args[KEPT_NEGATIVE], &ms, &nothing) ||
        !period_from(args[KEPT_SLIDING], "sliding", &sliding_ms))
        return NULL;
    PyObject *tags;
    if (!tags_held(args[KEPT_TAGS], &tags))
        return NULL;
    return Py_BuildValue("(OdONOOOdO)", args[KEPT_TTL], (double)stale_ms / 1000, args[KEPT_NEGATIVE],
                         tags ? tags : PyTuple_New(0), local ? Py_True : Py_False, args[KEPT_RAISES],
                         args[KEPT_JITTER], (double)sliding_ms / 1000, args[KEPT_EARLY]);
}

/* ---- the methods ---- */

PyMethodDef module_loading[] = {
    {"_woke", FAST(Segment_woke), METH_FASTCALL, NULL},
    {"_will_wait", (PyCFunction)Segment_will_wait, METH_O, NULL},
    {"_judge", FAST(Segment_judge), METH_FASTCALL, NULL},
    {"_arrive", FAST(Segment_arrive), METH_FASTCALL, NULL},
    {"_load", FAST(Segment_load), METH_FASTCALL, NULL},
    {"_aload", FAST(Segment_aload), METH_FASTCALL, NULL},
    {"_load_many", FAST(Segment_load_many), METH_FASTCALL, NULL},
    {"_aload_many", FAST(Segment_aload_many), METH_FASTCALL, NULL},
    {"_keys", (PyCFunction)Segment_keys, METH_O, NULL},
    {"_find_early", FAST(Segment_find_early), METH_FASTCALL, NULL},
    {"_stored", (PyCFunction)Segment_stored, METH_O, NULL},
    {"_waits", FAST(Segment_waits), METH_FASTCALL, NULL},
    {"_real_ms", (PyCFunction)Segment_real_ms, METH_NOARGS, NULL},
    {"_lateness", (PyCFunction)Segment_lateness, METH_VARARGS, NULL},
    {"_holds", (PyCFunction)Segment_holds, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

bool loading_ready(PyObject *module) { return flights_ready(module) && awaited_ready(module); }
