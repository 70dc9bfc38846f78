/* module_loading.h - what the two kinds of loads share: module_loading.c blocks its caller, module_awaited.c
 * is awaited. */
#ifndef CACHEE_MODULE_LOADING_H
#define CACHEE_MODULE_LOADING_H

#include "module_transactions.h"

enum outcome { IS_HELD = 0, IS_FOUND = 1 };
enum begin { BEGIN_ERROR = -1, BEGIN_HELD, BEGIN_FOUND, BEGIN_LOAD };

enum flight_state { FLIGHT_RUNNING, FLIGHT_LOADED, FLIGHT_FAILED, FLIGHT_ABANDONED, FLIGHT_UNSHARED };

/* The places of `kept`, as loading.Options names them: each is what _judge takes, and again what it
 * returns. */
enum {
    KEPT_TTL,
    KEPT_STALE,
    KEPT_NEGATIVE,
    KEPT_TAGS,
    KEPT_LOCAL,
    KEPT_RAISES,
    KEPT_JITTER,
    KEPT_SLIDING,
    KEPT_EARLY,
    KEPTS
};

struct FlightObject { /* one load of this process, as its waiters see it */
    PyObject_HEAD enum flight_state state;
    const SegmentObject *segment; /* compared, never followed */
    uint32_t life, attachments;
    uint64_t hash, token, began_ms;
    int64_t began_us;       /* by the precise clock, for statistics */
    struct lease_hold hold; /* a copy: the driver gives it back */
    unsigned long thread;   /* the thread of an awaited load's event loop; 0: not awaited */
    bool alone;             /* no caller waits for it */
    /* its place in a load of many keys, from 1 on, while that runs; each is the parent of the next. 0: the
     * only key */
    uint32_t place;
    bool asks_peers; /* another host may give the value in place of its loader */
    bool is_given;   /* and has */
    struct given given;
    struct snapshot saw; /* the transactions whose statements its loader ran, in any thread */
    PyObject *value;     /* LOADED: as the loader returned it; FAILED: the exception */
    PyObject *trace;     /* of the exception, as it was raised */
    PyObject *encoded;   /* LOADED: (tag, bytes), if waiters need their own copy of the value; else NULL */
    PyObject *decoders;
    PyObject *waiters; /* a set of callables */
    PyObject *parent;  /* the flight whose loader asked for this one, or NULL */
    PyObject *owner;   /* while it runs: the cache that loads */
    PyObject *key;
    PyObject *kept;   /* as the driver's, unless the loader says otherwise: see loads.py */
    PyObject *stores; /* a callable that converts the loaded value to the stored one, or NULL */
    struct FlightObject *next;
};

#define EARLY_OF_ANY UINT64_MAX
#define EARLY_OF_NONE (UINT64_MAX - 1)

/* One call of get_or_load or its variants. */
struct driver {
    SegmentObject *s;
    PyObject *key, *loader, *args, *kept; /* kept: of loading.Options */
    uint64_t since, asked_ms;             /* where and when the call began */
    /* The expiry of the value that this caller reloads early; 0: it does not. EARLY_OF_ANY: it reloads any
     * value, and announces the result. EARLY_OF_NONE: a load ahead, see prewarm.h */
    uint64_t early_of;
    bool alone; /* it waits for no other load, and no caller waits for it */
    bool awaited, has_stale, of_many;
    struct snapshot saw; /* of the transactions that were open when it began */
    uint32_t attachments, life;
    uint64_t hash, token, started_ms, began_ms;
    struct lease_hold hold;
    FlightObject *flight; /* running, or NULL */
    PyObject *before;     /* the context variable's token */
};

/* asking: since, asked_ms, alone, early_of. False: an error is set. */
bool driver_of(struct driver *d, SegmentObject *s, PyObject *key, PyObject *kept_as, PyObject *const *asking);
bool driver_from(struct driver *d, SegmentObject *s, PyObject *const *args, Py_ssize_t n, const char *verb);
void driver_clear(struct driver *d);

/* BEGIN_FOUND: *out is a value. BEGIN_HELD: *out is a flight or None. BEGIN_LOAD: call the loader, then end
 * by load_finish or load_let_go, which give back what begin has taken. */
enum begin load_begin(struct driver *d, PyObject **out);

/* The parts of load_begin and load_finish, for loads of many. load_let_go gives back what load_look has
 * claimed and load_take_off has taken (which steals the reference to `parent`). False or BEGIN_ERROR: an
 * error is set. */
enum begin load_look(struct driver *d, PyObject **out);
bool load_take_off(struct driver *d, PyObject *parent);
/* its flight is the context's running flight from here to load_let_go */
bool load_runs_here(struct driver *d);
void load_give_back(struct driver *d);     /* its lease alone */
void load_note_duration(struct driver *d); /* so that later waiters know when a load of this key is late */
PyObject *load_found(PyObject *value);     /* the return value of _load for it; steals the reference */

/* After the loader failed: an older value that is still there and was not invalidated meanwhile; else NULL.
 * An error is then set only if the lookup raised one that is not about the cache (a signal handler's). With
 * on_error="raise", a value past its lifetime is not returned. */
PyObject *load_older(struct driver *d);

struct filled {
    PyObject *encoded, *complaint; /* complaint: why it is not cached; or NULL */
    enum flight_state state;
};
bool load_fill(struct driver *d, PyObject *value, struct filled *filled);

/* What _load returns: without a load to make; and from the loader's value, or NULL with its exception set. */
PyObject *load_not_made(enum begin next, PyObject *out);
PyObject *load_finish(struct driver *d, PyObject *value);

/* Every way out of a load. The lease is given back first, because no exception can come before that. False:
 * an exception came while waiters were notified, and is set. */
bool load_let_go(struct driver *d, enum flight_state state, PyObject *value, PyObject *trace,
                 PyObject *encoded);

/* module_tallies.c: for people. load_took: once for each call of a loader; load_counted: what came of a load,
 * one of STAT_LOADS_...; wait_brought: what came of a wait */
extern const uint32_t load_bounds_us[LOAD_BOUNDS]; /* of the histogram: each bucket's upper end */
void load_took(struct driver *d);
void load_counted(struct driver *d, enum statistic what);
enum statistic wait_brought(SegmentObject *s, PyObject *flight, uint64_t hash, const struct key *k);

/* module_flights.c */
extern PyObject *flight_running; /* a context variable: the flight whose loader runs here */
PyObject *flight_here(void);     /* it, or NULL */
FlightObject *flight_new(const struct driver *d);
bool is_flight(PyObject *o);
/* the value to store for the loaded value; NULL: an error is set */
PyObject *flight_stored(const FlightObject *f, PyObject *value);
struct fill flight_given(const FlightObject *f, struct fill fill);      /* as another host says of it */
void snapshot_older(struct snapshot *saw, const struct snapshot *also); /* what the older of two saw */
PyObject *Segment_stored(SegmentObject *s, PyObject *key);
PyObject *Segment_real_ms(SegmentObject *s, PyObject *unused); /* module_flights.c, as the two below */
PyObject *Segment_lateness(SegmentObject *s, PyObject *args);
PyObject *Segment_holds(SegmentObject *s, PyObject *unused);
bool flights_ready(PyObject *module);

/* module_many.c: many keys, one call of the loader. many_begin: BEGIN_LOAD, then many_call, then many_finish
 * or many_let_go; or BEGIN_FOUND with *out as _load_many returns it; or BEGIN_ERROR. many_free, at last. */
struct many;
struct many *many_from(SegmentObject *s, PyObject *const *args, Py_ssize_t n, bool awaited);
void many_free(struct many *m);
int many_traverse(struct many *m, visitproc visit, void *arg);
enum begin many_begin(struct many *m, PyObject **out);
PyObject *many_call(struct many *m);
PyObject *many_finish(struct many *m, PyObject *values);
bool many_let_go(struct many *m);
PyObject *Segment_load_many(SegmentObject *s, PyObject *const *args, Py_ssize_t n);
PyObject *Segment_keys(SegmentObject *s, PyObject *keys);

/* module_awaited.c */
PyObject *Segment_aload(SegmentObject *s, PyObject *const *args, Py_ssize_t n);
PyObject *Segment_aload_many(SegmentObject *s, PyObject *const *args, Py_ssize_t n);
bool awaited_ready(PyObject *module);

#endif
