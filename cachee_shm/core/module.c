/* module.c - the type: attaching, closing, forking, and the verbs gathered. See module.h. */
#include "module.h"

#include "lock.h"
#include "peers.h"

#include <errno.h>
#include <pthread.h>

enum { TRY_FIRST_MS = 8, TRY_EVERY_MS = 1000 }; /* doubled until then */

static SegmentObject *all_open;
struct error_classes errors;

SegmentObject *segments_open(void) { return all_open; }
PyTypeObject *segment_type;

/* ---- entering a verb ---- */

PyObject *fail(PyObject *type, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyErr_FormatV(type, format, args);
    va_end(args);
    return NULL;
}

static bool say_closed(void)
{
    fail(errors.closed,
         "This cache is closed. Nothing was read or written. Call cachee_shm.attach() for a new one.");
    return false;
}

/* What the next segment of this name is to know of this one. `incarnation` 0: there is none. */
static void see(SegmentObject *s, uint64_t incarnation, bool left, uint64_t lock_fence)
{
    fence_seen(s, lock_fence);
    if (incarnation > s->incarnation_seen)
        s->incarnation_seen = incarnation;
    if (incarnation)
        s->left_seen = left;
}

/* The next verb without a segment tries for one at once. */
static void try_anew(SegmentObject *s)
{
    s->try_at_ms = 0;
    s->pause_ms = TRY_FIRST_MS;
}

/* Let go of a segment that must not be used any more. `orphaned`: others may have left debts in it. */
static bool set_apart(SegmentObject *s, bool orphaned)
{
    uint32_t life = s->a.life;
    bool owes = orphaned && recovery_owes_clear(&s->a);
    see(s, load_acquire(&s->a.header->incarnation), peers_left(&s->a),
        load_acquire(&s->a.header->lock_fence));
    struct attachment *left = PyMem_Malloc(sizeof *left);
    if (!left || !segment_stand_in(&s->a, left)) {
        PyMem_Free(left);
        PyErr_NoMemory();
        return false;
    }
    if (owes)
        owe_clear(s);
    orphan_keep(s, left);
    blocks_move(s, life);
    s->attachments = (s->attachments + 1) & 0xfff;
    try_anew(s);
    near_release(near_take(s));
    return true;
}

/* cachee_shm.segment attaches this object to the present segment, or says once why it cannot. No verb waits
 * for that: while a thread tries, and until the next try is due, all others go on with the stand-in. */
static bool try_to_attach(SegmentObject *s)
{
    s->trying = true;
    PyObject *done = PyObject_CallMethod((PyObject *)s, "_reattach", NULL);
    s->trying = false;
    s->try_at_ms = segment_clock_ms() + s->pause_ms;
    s->pause_ms = s->pause_ms < TRY_EVERY_MS / 2 ? 2 * s->pause_ms : TRY_EVERY_MS;
    Py_XDECREF(done);
    return done != NULL;
}

/* From a segment that was retired, or that this forked child has no part in, to the present one, or to the
 * stand-in. */
static bool follow(SegmentObject *s, bool orphaned)
{
    if (s->follows && !s->a.stand_in && !set_apart(s, orphaned))
        return false;
    if (s->open && (s->trying || (s->follows && segment_clock_ms() < s->try_at_ms)))
        return true;
    if (s->open && !try_to_attach(s))
        return false;
    return s->open || say_closed();
}

/* In a forked child. A private segment stays the parent's: the child makes one of its own. */
static bool rejoin(SegmentObject *s)
{
    bool shared = s->a.file_name[0] || s->a.stand_in;
    return (shared && segment_after_fork(&s->a)) || follow(s, false);
}

bool enter_after_all_else(SegmentObject *s)
{
    if (!s->open)
        return say_closed();
    if (!segment_is_ours(&s->a) && !rejoin(s))
        return false;
    recovery_look_after(&s->a);
    if (s->orphan)
        orphan_watch(s);
    return !segment_retired(&s->a) || follow(s, true);
}

bool enter_as_bridge(SegmentObject *s)
{
    if (!enter(s))
        return false;
    if (!segment_bridge_ousted(&s->a))
        return true;
    fail(errors.bridge_running,
         "Another bridge serves segment '%.64s' by now. Nothing was changed. This one has to stop.",
         label_of(s).text);
    return false;
}

/* ---- attaching and closing ---- */

static void remember(SegmentObject *s)
{
    s->next = all_open;
    all_open = s;
    s->open = true;
    s->attachments = (s->attachments + 1) & 0xfff;
}

static void close_segment(SegmentObject *s)
{
    if (!s->open)
        return;
    for (SegmentObject **at = &all_open; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    s->open = false;
    segment_detach(&s->a);
}

/* In the child of a fork, before it can drop privileges: every attachment gets a slot of its own. One that
 * cannot stays marked as not ours, as a private one does; its next verb tries again and says why. */
static void after_fork_in_child(void)
{
    for (SegmentObject *s = all_open; s; s = s->next) {
        s->trying = false;
        if (s->a.file_name[0] || s->a.stand_in)
            segment_after_fork(&s->a);
    }
}

struct complaint {
    enum attach_result result;
    PyObject **type;
    const char *text;
};

/* What happened; the state of things; what to do. */
static const struct complaint complaints[] = {
    {ATTACH_LAYOUT, &errors.layout_mismatch,
     "Segment '%s' was made by another build of cachee. It is untouched; nothing was attached. Use one "
     "version on the host, or "
     "remove the segment with `cachee segment rm`."},
    {ATTACH_GARBAGE, &errors.layout_mismatch,
     "'%s' is not a cachee segment, or its header is damaged. It is untouched; nothing was attached. Remove "
     "it with `cachee "
     "segment rm`."},
    {ATTACH_RETIRED, &errors.segment_retired,
     "Segment '%s' is retired. Nothing was attached. Attach again: a new one is made."},
    {ATTACH_NOT_OURS, &errors.access_denied,
     "Segment '%s' is retired, and this user may not remove its file, which is another user's. Nothing was "
     "attached. Let that "
     "user, or root, run `cachee segment rm`; or run all workers as one user."},
    {ATTACH_FILE_LIMIT, &errors.process_limit,
     "Segment '%s' is larger than the files that this process may make (RLIMIT_FSIZE, `ulimit -f`). Nothing "
     "was attached and "
     "no file is left. Raise the limit, or give the namespace less memory."},
    {ATTACH_NO_SPACE, &errors.no_space,
     "There is not enough shared memory for segment '%s'. Nothing was attached or reserved. Enlarge /dev/shm "
     "(docker: "
     "--shm-size), or give the namespace less memory."},
    {ATTACH_TIME_NAMESPACE, &errors.time_namespace,
     "Segment '%s' belongs to another time namespace: clocks cannot be compared. Nothing was attached. Run "
     "all its processes "
     "in one time namespace."},
    {ATTACH_NO_PROC, &errors.segment_error,
     "Segment '%s': whether its clock is this process's cannot be told, because /proc is not mounted here, "
     "or was not where the "
     "segment was made. Nothing was attached. Mount /proc for all of its processes."},
    {ATTACH_HASH_KEY, &errors.layout_mismatch,
     "Segment '%s' hashes keys with another key than the configured one. It is untouched; nothing was "
     "attached. Use the same "
     "hash_key_file everywhere, or remove the segment with `cachee segment rm`."},
    {ATTACH_ROSTER_FULL, &errors.roster_full,
     "Segment '%s' has as many processes attached as its roster holds. Nothing was attached. Attach fewer, "
     "or give the "
     "namespace more memory (a slot for each 16 KiB, 4,096 at most)."},
    {ATTACH_BUSY, &errors.segment_busy,
     "Another process is making segment '%s', and has not finished. Nothing was attached. Look whether that "
     "process is stopped."},
    {ATTACH_TOO_SMALL, &errors.segment_error,
     "Segment '%s' is too small to hold anything. Nothing was attached. Give the namespace at least 2 MiB."},
};

static void complain(enum attach_result result, const char *name)
{
    for (size_t i = 0; i < sizeof complaints / sizeof complaints[0]; i++) {
        if (complaints[i].result == result) {
            PyErr_Format(*complaints[i].type, complaints[i].text, name);
            return;
        }
    }
    PyErr_SetFromErrno(PyExc_OSError); /* cachee_shm.segment says what it means */
}

static bool hash_key_from(PyObject *o, struct segment_config *config)
{
    if (o == Py_None)
        return true;
    if (!PyBytes_Check(o) || PyBytes_GET_SIZE(o) != sizeof config->hash_key) {
        fail(PyExc_ValueError, "hash_key is 16 bytes or None");
        return false;
    }
    memcpy(config->hash_key, PyBytes_AS_STRING(o), sizeof config->hash_key);
    config->has_hash_key = true;
    return true;
}

/* Making a segment takes long; the lock is let go for it. */
static enum attach_result attach_to(struct attachment *a, int fd, const struct segment_config *config)
{
    enum attach_result result = segment_begin(a, fd, config);
    if (result == ATTACH_EMPTY) {
        Py_BEGIN_ALLOW_THREADS;
        result = segment_create(a, config);
        Py_END_ALLOW_THREADS;
    }
    return result <= ATTACH_CREATED && !a->stand_in ? segment_join(a, config) : result;
}

struct near_wish {
    uint64_t bytes_max;
    uint32_t objects;
};

/* The object goes on with this attachment. What it owes is announced before anything else. */
static bool go_on_with(SegmentObject *s, const struct attachment *next, const struct near_wish *wish)
{
    uint32_t life = s->a.life;
    struct near_taken near = near_take(s);
    outside_forget(s);
    close_segment(s);
    s->a = *next;
    remember(s);
    blocks_move(s, life);
    if (s->a.stand_in)
        try_anew(s);
    else {
        lock_see_fence(&s->a, s->fence_seen);
        pay_owed(s);
    }
    s->orphan_second = 0; /* look at it now */
    if (s->orphan)
        orphan_watch(s);
    bool good = near_open(s, wish->bytes_max, wish->objects);
    near_release(near);
    return good;
}

static bool attach(SegmentObject *s, int fd, struct segment_config *config, const struct near_wish *wish)
{
    bool again = s->open, attached = false;
    struct attachment *next = PyMem_Malloc(sizeof *next);
    if (!next) {
        PyErr_NoMemory();
        return false;
    }
    config->incarnation_seen = s->incarnation_seen;
    config->left_seen = s->left_seen;
    enum attach_result result = attach_to(next, fd, config);
    see(s, next->incarnation_seen, next->left_seen, next->lock_fence_seen);
    if (result == ATTACH_NO_SPACE)
        orphan_forget(s); /* there is room for one of them */
    if (result != ATTACHED)
        complain(result, config->name);
    else if (again && !s->open) { /* by another thread, meanwhile */
        segment_detach(next);
        say_closed();
    } else
        attached = go_on_with(s, next, wish);
    PyMem_Free(next);
    return attached;
}

/* _attach(fd, name, memory, entry_bytes, prewarms, prewarm_weight, prewarm_budget, host, hash_key, has_name,
 * has_bridge, isolation_ttl_ms, on_isolation, default_ttl_ms, near_bytes, near_objects, doorbell, encode,
 * decoders, compress_bytes, follows) -> (memory, entry_bytes, prewarms) of the segment; compress_bytes is 0
 * for none. It takes fd over; without one (-1) it begins without a segment. Called again, it leaves the old
 * segment for the new one. Raises OSError where a system call failed. */
static PyObject *Segment_attach(SegmentObject *s, PyObject *args)
{
    struct segment_config config = {0};
    int fd, has_bridge, has_name, follows, prewarms;
    uint32_t on_isolation;
    struct near_wish wish;
    uint64_t memory, entry_bytes, isolation_ttl_ms, default_ttl_ms, compress_bytes;
    PyObject *hash_key, *encode, *decoders;
    if (!PyArg_ParseTuple(args, "isO&O&pddsOppO&O&O&O&O&sOO!O&p:_attach", &fd, &config.name, number64_from,
                          &memory, number64_from, &entry_bytes, &prewarms, &config.prewarm_weight,
                          &config.prewarm_budget, &config.host, &hash_key, &has_name, &has_bridge,
                          number64_from, &isolation_ttl_ms, number32_from, &on_isolation, number64_from,
                          &default_ttl_ms, number64_from, &wish.bytes_max, number32_from, &wish.objects,
                          &config.doorbell_name, &encode, &PyTuple_Type, &decoders, number64_from,
                          &compress_bytes, &follows) ||
        !hash_key_from(hash_key, &config))
        return NULL;
    config.total_bytes = memory;
    config.entry_bytes = entry_bytes;
    config.prewarms = prewarms;
    config.has_bridge = has_bridge;
    config.has_name = has_name;
    config.isolation_ttl_ms = isolation_ttl_ms;
    config.on_isolation = (enum on_isolation)on_isolation;
    config.default_ttl_ms = default_ttl_ms;
    PyObject *old_encode = s->encode, *old_decoders = s->decoders;
    s->encode = Py_NewRef(encode);
    s->decoders = Py_NewRef(decoders);
    s->compress_bytes =
        compress_bytes && compress_bytes < PY_SSIZE_T_MAX ? (Py_ssize_t)compress_bytes : PY_SSIZE_T_MAX;
    s->follows = follows;
    bool attached = attach(s, fd, &config, &wish);
    unsigned long long total_bytes = s->a.geo.total_bytes, made_for = s->a.geo.entry_bytes;
    int has_prewarm = s->a.prewarm != NULL;
    Py_XDECREF(old_encode); /* last: it may run Python code */
    Py_XDECREF(old_decoders);
    return attached ? Py_BuildValue("KKN", total_bytes, made_for, PyBool_FromLong(has_prewarm)) : NULL;
}

/* What is still owed has a last chance. */
static PyObject *Segment_close(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (s->open && s->a.stand_in && owes_anything(s) && !s->trying && !try_to_attach(s))
        return NULL;
    bool lost = s->open && s->a.stand_in && owes_anything(s);
    if (lost && s->orphan)
        roster_abandon(s->orphan); /* the processes that watch the orphan clear the successor */
    struct near_taken near = near_take(s);
    close_segment(s);
    orphan_forget(s);
    outside_forget(s);
    forget_owed(s);
    blocks_forget(s);
    near_release(near);
    return lost ? PyObject_CallMethod((PyObject *)s, "_never_announced", NULL) : Py_NewRef(Py_None);
}

/* Dropped without close(): the same last chance. */
static void Segment_finalize(SegmentObject *s)
{
    PyObject *type, *error, *trace;
    if (!s->open || !s->a.stand_in || !owes_anything(s))
        return;
    PyErr_Fetch(&type, &error, &trace);
    PyObject *closed = Segment_close(s, NULL);
    if (!closed)
        PyErr_WriteUnraisable((PyObject *)s);
    Py_XDECREF(closed);
    PyErr_Restore(type, error, trace);
}

static void Segment_dealloc(SegmentObject *s)
{
    PyTypeObject *type = Py_TYPE(s);
    PyObject_GC_UnTrack(s);
    close_segment(s);
    orphan_forget(s);
    outside_forget(s);
    forget_owed(s);
    blocks_forget(s);
    near_release(near_take(s));
    Py_CLEAR(s->encode);
    Py_CLEAR(s->decoders);
    type->tp_free(s);
    Py_DECREF(type);
}

static int Segment_traverse(SegmentObject *s, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(s));
    Py_VISIT(s->encode);
    Py_VISIT(s->decoders);
    return near_traverse(s, visit, arg);
}

static int Segment_clear_refs(SegmentObject *s)
{
    Py_CLEAR(s->encode);
    Py_CLEAR(s->decoders);
    near_release(near_take(s));
    return 0;
}

/* ---- the type and the module ---- */

static PyMethodDef own_methods[] = {
    {"_attach", (PyCFunction)Segment_attach, METH_VARARGS, NULL},
    {"close", (PyCFunction)Segment_close, METH_NOARGS,
     "close()\n--\n\nLeave the segment; its values stay for the others. Every later verb raises Closed."},
    {NULL, NULL, 0, NULL},
};

enum { METHODS_MAX = 160 };
static PyMethodDef methods[METHODS_MAX];

/* False: more methods than METHODS_MAX. Raise it. */
static bool gather(PyMethodDef *to, const PyMethodDef *from)
{
    while (to->ml_name)
        to++;
    for (; from->ml_name && to < methods + METHODS_MAX - 1; from++)
        *to++ = *from;
    return !from->ml_name;
}

static bool gather_all(void)
{
    static const PyMethodDef *const all[] = {
        own_methods,   module_verbs,   module_cas,        module_incr,      module_prewarm,
        module_bridge, module_sources, module_statistics, module_journal,   module_loading,
        module_canary, module_fetch,   module_peers,      module_stream_in, module_transactions,
    };
    bool fit = true;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        fit = fit && gather(methods, all[i]);
    if (!fit)
        fail(PyExc_SystemError, "cachee_shm._core has more than %d methods", METHODS_MAX - 1);
    return fit;
}

/* Without it, an empty cache would be false, as len() is 0. */
static int Segment_true(SegmentObject *unused)
{
    (void)unused;
    return 1;
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "An attachment to one namespace's segment. cachee_shm.Cache is its public subclass."},
    {Py_tp_dealloc, Segment_dealloc},
    {Py_tp_finalize, Segment_finalize},
    {Py_tp_traverse, Segment_traverse},
    {Py_tp_clear, Segment_clear_refs},
    {Py_tp_methods, methods},
    {Py_tp_getset, module_attributes},
    {Py_mp_length, Segment_length},
    {Py_nb_bool, Segment_true},
    {Py_mp_subscript, Segment_subscript},
    {Py_mp_ass_subscript, Segment_ass_subscript},
    {Py_sq_contains, Segment_contains},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "cachee_shm._core.Segment",
    .basicsize = sizeof(SegmentObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static bool import_errors(void)
{
    static const struct {
        const char *name;
        PyObject **to;
    } wanted[] = {
        {"SegmentError", &errors.segment_error},
        {"LayoutMismatch", &errors.layout_mismatch},
        {"NoSpace", &errors.no_space},
        {"RosterFull", &errors.roster_full},
        {"SegmentRetired", &errors.segment_retired},
        {"Closed", &errors.closed},
        {"TimeNamespace", &errors.time_namespace},
        {"KeyTooLong", &errors.key_too_long},
        {"InvalidKey", &errors.invalid_key},
        {"InvalidTTL", &errors.invalid_ttl},
        {"NotACounter", &errors.not_a_counter},
        {"NotLocal", &errors.not_local},
        {"ValueTooLarge", &errors.value_too_large},
        {"Unserializable", &errors.unserializable},
        {"BridgeRunning", &errors.bridge_running},
        {"AccessDenied", &errors.access_denied},
        {"ProcessLimit", &errors.process_limit},
        {"SegmentBusy", &errors.segment_busy},
    };
    PyObject *module = PyImport_ImportModule("cachee_shm.errors");
    bool good = module != NULL;
    for (size_t i = 0; good && i < sizeof wanted / sizeof wanted[0]; i++)
        good = (*wanted[i].to = PyObject_GetAttrString(module, wanted[i].name)) != NULL;
    Py_XDECREF(module);
    return good;
}

static int exec_module(PyObject *module)
{
    static bool done;
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        fail(PyExc_ImportError,
             "cachee_shm works in the main interpreter only: attachments of this process are not shared "
             "between interpreters.");
        return -1;
    }
    if (!done) {
        if (!gather_all() || !import_errors() || pthread_atfork(NULL, NULL, after_fork_in_child) != 0)
            return -1;
        done = true;
    }
    PyObject *type = PyType_FromSpec(&spec);
    segment_type = (PyTypeObject *)Py_XNewRef(type);
    int failed = !type || PyModule_AddObjectRef(module, "Segment", type) < 0 ||
                 PyModule_AddIntConstant(module, "LAYOUT", LAYOUT_NUMBER) < 0 ||
                 PyModule_AddIntConstant(module, "KEY_BYTES_MAX", KEY_BYTES_MAX) < 0 ||
                 PyModule_AddIntConstant(module, "LOCK_BASE", LOCK_BASE) < 0 ||
                 PyModule_AddIntConstant(module, "LOCK_BRIDGE", LOCK_BRIDGE) < 0 ||
                 PyModule_AddIntConstant(module, "LOCK_SLOTS", LOCK_SLOTS) < 0;
    Py_XDECREF(type);
    failed = failed || !transactions_ready(module) || !loading_ready(module) || !writing_ready(module) ||
             !locks_ready(module) || older_type_into(module) < 0;
    return failed ? -1 : 0;
}

/* For codec.py. */
static PyObject *module_is_plain(PyObject *module, PyObject *value)
{
    (void)module;
    return PyBool_FromLong(value_is_plain(value, PLAIN_DEPTH_MAX));
}

static PyObject *module_is_bounded(PyObject *module, PyObject *data)
{
    (void)module;
    return PyBytes_CheckExact(data) ? PyBool_FromLong(bytes_bounded(data))
                                    : fail(PyExc_TypeError, "is_bounded takes bytes");
}

#ifdef CACHEE_REENTRY
static PyObject *caller;
static bool calls;

void reentry_here(const char *where)
{
    PyObject *type, *value, *trace;
    if (!caller || calls)
        return;
    calls = true;
    (PyErr_Fetch)(&type, &value, &trace);
    PyObject *done = (PyObject_CallFunction)(caller, "s", where);
    if (!done)
        (PyErr_WriteUnraisable)(caller);
    (PyErr_Restore)(type, value, trace);
    calls = false;
    reentry_let_go(done);
}

PyObject *reentry_hook(PyObject *unused, PyObject *hook)
{
    (void)unused;
    PyObject *old = caller;
    caller = hook == Py_None ? NULL : Py_NewRef(hook);
    reentry_let_go(old);
    return Py_NewRef(Py_None);
}
#endif

static PyMethodDef functions[] = {
#ifdef CACHEE_REENTRY
    {"_reentry", reentry_hook, METH_O, NULL},
#endif
    {"transaction_tokens", transaction_tokens, METH_NOARGS, NULL},
    {"transaction_hooks", transaction_hooks, METH_VARARGS, NULL},
    {"is_bounded", module_is_bounded, METH_O,
     "is_bounded(data) -> bool: decoding these bytes of msgpack costs no more than their length"},
    {"is_plain", module_is_plain, METH_O,
     "is_plain(value) -> bool: is it dicts with keys of str, lists, and scalars of 64 bits alone, at most 64 "
     "deep?"},
    {"send_each", (PyCFunction)(void (*)(void))module_send_each, METH_FASTCALL,
     "send_each(descriptors, data) -> None if each socket took all of its bytes, else how many each took. It "
     "waits for none. A descriptor below 0 is passed over."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, exec_module},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_USED}, /* two threads cannot share an attachment's open page without it */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,  .m_name = "_core",       .m_doc = "The segment: see core/layout.h.",
    .m_methods = functions, .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
