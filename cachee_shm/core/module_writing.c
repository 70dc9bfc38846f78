/* module_writing.c - `with cache.writing(key) as w`: a write of the origin, with its cache entry.
 *
 * The intent is stored on entering and settled on leaving, both in this file, so no byte code lies between
 * an intent and its block. But between the block's last byte code and its end an exception may come (from a
 * signal handler), and then __exit__ is never called. So `__exit__` is a descriptor. What `with` looks up
 * before it enters, and keeps on its stack, is an Exit object that exists only for this block. The
 * interpreter drops it when it unwinds, and its destruction ends the block as an exception does. This works
 * even if the Writing or a traceback is kept in a variable.
 *
 * A direct call of __enter__ makes no Exit. Then the intent stays until __exit__ is called, or the process
 * ends.
 */
#include "module.h"

typedef struct { /* one block: its intent, and the value to store when it ends */
    PyObject_HEAD SegmentObject *s;
    PyObject *key;
    PyObject *value, *ttl, *tags;       /* value NULL: nothing was set */
    PyObject *stored;                   /* None until the block has ended */
    uint64_t token, started_ms, intent; /* intent: the number of an open block, see module_owed.c */
    bool open;
} WriteObject;

struct ExitObject;

typedef struct {
    PyObject_HEAD SegmentObject *s;
    PyObject *key;
    WriteObject *write; /* of the last entry, or NULL */
    /* looked up last, for the block that is entered next; borrowed: it ends this as it dies */
    struct ExitObject *next;
} WritingObject;

static PyTypeObject *write_type, *writing_type;

/* ---- w ---- */

static int Write_traverse(WriteObject *w, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(w));
    Py_VISIT(w->s);
    Py_VISIT(w->key);
    Py_VISIT(w->value);
    Py_VISIT(w->ttl);
    Py_VISIT(w->tags);
    return 0;
}

static int Write_clear(WriteObject *w)
{
    Py_CLEAR(w->value);
    Py_CLEAR(w->ttl);
    Py_CLEAR(w->tags);
    return 0;
}

static void Write_dealloc(WriteObject *w)
{
    PyTypeObject *type = Py_TYPE(w);
    PyObject_GC_UnTrack(w);
    Write_clear(w);
    Py_CLEAR(w->stored);
    Py_CLEAR(w->key);
    Py_CLEAR(w->s);
    type->tp_free(w);
    Py_DECREF(type);
}

static WriteObject *write_new(SegmentObject *s, PyObject *key)
{
    WriteObject *w = PyObject_GC_New(WriteObject, write_type);
    if (!w)
        return NULL;
    w->s = (SegmentObject *)Py_NewRef((PyObject *)s);
    w->key = Py_NewRef(key);
    w->value = w->ttl = w->tags = NULL;
    w->stored = Py_NewRef(Py_None);
    w->token = w->started_ms = w->intent = 0;
    w->open = false;
    PyObject_GC_Track(w);
    return w;
}

static PyObject *Write_set(WriteObject *w, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"value", "ttl", "tags"};
    PyObject *in[3];
    uint64_t ttl_ms;
    bool nothing;
    if (!parse_args("set", names, 1, 3, args, n, kwnames, in))
        return NULL;
    if (!w->open)
        return fail(
            PyExc_RuntimeError,
            "This writing block has ended: what it was given is stored or deleted. Nothing was changed "
            "now. Enter a block with cache.writing(key).");
    PyObject *tags;
    if (!ttl_from(w->s, in[1], &ttl_ms, &nothing) || !tags_held(in[2], &tags))
        return NULL;
    Py_XSETREF(w->ttl, Py_NewRef(in[1] ? in[1] : Py_Ellipsis));
    Py_XSETREF(w->tags, tags ? tags : Py_NewRef(Py_None));
    Py_XSETREF(w->value, Py_NewRef(in[0]));
    Py_RETURN_NONE;
}

/* By the origin of the key, which Python knows: cache.py. What it returns may be a coroutine. */
static PyObject *Write_store(WriteObject *w, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"value", "ttl", "tags"};
    PyObject *in[3];
    if (!parse_args("store", names, 1, 3, args, n, kwnames, in))
        return NULL;
    if (!w->open)
        return fail(PyExc_RuntimeError,
                    "This writing block has ended. The origin was not written, and nothing "
                    "was changed. Enter a block with cache.writing(key).");
    PyObject *tags;
    uint64_t ttl_ms;
    bool nothing;
    if (!ttl_from(w->s, in[1], &ttl_ms, &nothing) || !tags_held(in[2], &tags))
        return NULL;
    PyObject *stored = PyObject_CallMethod((PyObject *)w->s, "_store_through", "OOOOO", w, w->key, in[0],
                                           in[1] ? in[1] : Py_Ellipsis, tags ? tags : Py_None);
    Py_XDECREF(tags);
    return stored;
}

static PyObject *Write_stored(WriteObject *w, void *unused)
{
    (void)unused;
    return Py_NewRef(w->stored);
}

static bool delete_key_of(WriteObject *w)
{
    PyObject *done = PyObject_CallMethod((PyObject *)w->s, "delete", "O", w->key);
    Py_XDECREF(done);
    return done != NULL;
}

/* A new reference to whether it was stored, or NULL with an error set. */
static PyObject *store(WriteObject *w)
{
    PyObject *stored =
        PyObject_CallMethod((PyObject *)w->s, "_set_fenced", "OOKKOO", w->key, w->value,
                            (unsigned long long)w->token, (unsigned long long)w->started_ms, w->ttl, w->tags);
    if (stored)
        return stored;
    /* errors of the value (its size, for example) must not prevent the announcement: the origin was
     * written */
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    if (!delete_key_of(w))
        PyErr_Clear();
    PyErr_Restore(type, error, trace);
    return NULL;
}

/* If the segment was retired meanwhile, Python code first attaches to its successor. That may raise an
 * exception. */
static PyObject *delete_for_sure(WriteObject *w)
{
    PyObject *type, *error, *trace;
    if (delete_key_of(w))
        return Py_NewRef(Py_False);
    PyErr_Fetch(&type, &error, &trace);
    if (!delete_key_of(w))
        PyErr_Clear();
    PyErr_Restore(type, error, trace);
    return NULL;
}

static bool leave_block(WriteObject *w, bool raised)
{
    if (!w->open) {
        fail(PyExc_RuntimeError, "This writing block is not open. Nothing was changed.");
        return false;
    }
    w->open = false; /* set first, because code that runs below may call this again */
    PyObject *stored = !raised && w->value ? store(w) : delete_for_sure(w);
    block_end(w->s, w->intent);
    Py_CLEAR(w->value);
    Py_SETREF(w->stored, Py_NewRef(stored ? stored : Py_False));
    Py_XDECREF(stored);
    return stored != NULL;
}

static PyObject *Write_exit(WriteObject *w, PyObject *const *args, Py_ssize_t n)
{
    return leave_block(w, n > 0 && args[0] != Py_None) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *Write_intent(WriteObject *w, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(w->intent);
}

/* ---- the block ---- */

static int Writing_traverse(WritingObject *w, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(w));
    Py_VISIT(w->s);
    Py_VISIT(w->key);
    Py_VISIT(w->write);
    return 0;
}

static int Writing_clear(WritingObject *w)
{
    Py_CLEAR(w->write);
    return 0;
}

static PyObject *Writing_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *segment, *key;
    static char *names[] = {"segment", "key", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:Writing", names, &segment, &key))
        return NULL;
    if (!PyObject_TypeCheck(segment, segment_type))
        return fail(PyExc_TypeError, "Writing(segment, key) is made by cache.writing(key)");
    WritingObject *w = (WritingObject *)type->tp_alloc(type, 0);
    if (!w)
        return NULL;
    w->s = (SegmentObject *)Py_NewRef(segment);
    w->key = Py_NewRef(key);
    return (PyObject *)w;
}

/* ---- the exit of one block ---- */

typedef struct ExitObject {
    PyObject_HEAD WritingObject *w;
    WriteObject *write; /* of its block; NULL: not entered, or entered by hand */
    bool awaited;
} ExitObject;

static PyTypeObject *exit_type;

static PyObject *exit_new(WritingObject *w, bool awaited)
{
    ExitObject *e = PyObject_GC_New(ExitObject, exit_type);
    if (!e)
        return NULL;
    e->w = (WritingObject *)Py_NewRef((PyObject *)w);
    e->write = NULL;
    e->awaited = awaited;
    w->next = e;
    PyObject_GC_Track(e);
    return (PyObject *)e;
}

static int Exit_traverse(ExitObject *e, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(e));
    Py_VISIT(e->w);
    Py_VISIT(e->write);
    return 0;
}

static void Exit_dealloc(ExitObject *e)
{
    PyTypeObject *type = Py_TYPE(e);
    PyObject *error_type, *error, *trace;
    PyObject_GC_UnTrack(e);
    if (e->w->next == e)
        e->w->next = NULL;
    PyErr_Fetch(&error_type, &error, &trace);
    if (e->write && e->write->open && !leave_block(e->write, true))
        PyErr_WriteUnraisable(NULL);
    PyErr_Restore(error_type, error, trace);
    Py_CLEAR(e->write);
    Py_CLEAR(e->w);
    type->tp_free(e);
    Py_DECREF(type);
}

/* ---- the block ---- */

/* `exit` is that of the `with` that enters, or NULL. */
static bool enter_block(WritingObject *w, ExitObject *exit)
{
    struct key k;
    /* first, because it may run Python code, which may enter the block */
    WriteObject *write = write_new(w->s, w->key);
    if (!write)
        return false;
    if (w->write && w->write->open) {
        Py_DECREF(write);
        fail(PyExc_RuntimeError,
             "This writing block is open already: in a block around this one, or in another task or thread. "
             "Nothing was changed. Give each block an object of its own: cache.writing(key).");
        return false;
    }
    if (!key_from(w->key, &k) || !enter(w->s) || !block_begin(w->s, &k, &write->intent)) {
        Py_DECREF(write);
        return false;
    }
    write->token = token_of(w->s, ring_tail(&w->s->a));
    write->started_ms = clock_ms(&w->s->a);
    write->open = true;
    if (exit)
        Py_XSETREF(exit->write, (WriteObject *)Py_NewRef((PyObject *)write));
    Py_XSETREF(w->write, write);
    return true;
}

static ExitObject *next_exit(WritingObject *w)
{
    ExitObject *exit = (ExitObject *)Py_XNewRef((PyObject *)w->next);
    w->next = NULL;
    return exit;
}

static WriteObject *entered(WritingObject *w)
{
    if (!w->write)
        fail(PyExc_RuntimeError, "This writing block was not entered yet. Nothing was changed. Use `with "
                                 "cache.writing(key) as w`.");
    return w->write;
}

static void Writing_dealloc(WritingObject *w)
{
    PyTypeObject *type = Py_TYPE(w);
    PyObject_GC_UnTrack(w);
    Py_CLEAR(w->write);
    Py_CLEAR(w->key);
    Py_CLEAR(w->s);
    type->tp_free(w);
    Py_DECREF(type);
}

static PyObject *Writing_enter(WritingObject *w, PyObject *unused)
{
    (void)unused;
    ExitObject *exit = next_exit(w);
    PyObject *write = enter_block(w, exit) ? Py_NewRef((PyObject *)w->write) : NULL;
    Py_XDECREF(exit);
    return write;
}

static bool leave_by(WritingObject *w, const ExitObject *exit, bool raised)
{
    WriteObject *write = exit && exit->write ? exit->write : entered(w);
    write = (WriteObject *)Py_XNewRef((PyObject *)write); /* what is run meanwhile may enter again */
    if (!write)
        return false;
    bool left = leave_block(write, raised);
    Py_DECREF((PyObject *)write);
    return left;
}

static PyObject *Writing_set(WritingObject *w, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    WriteObject *write = entered(w);
    return write ? Write_set(write, args, n, kwnames) : NULL;
}

static PyObject *Writing_stored(WritingObject *w, void *unused)
{
    return w->write ? Write_stored(w->write, unused) : Py_NewRef(Py_None);
}

/* ---- async with ---- */

typedef struct { /* enters or leaves at its first step; without one, it does nothing */
    PyObject_HEAD WritingObject *w;
    ExitObject *exit; /* of its `async with`; NULL: entered by hand */
    bool enters, raised, over;
} StepObject;

static PyTypeObject *step_type;

static PyObject *step_new(WritingObject *w, ExitObject *exit, bool enters, bool raised)
{
    StepObject *step = PyObject_GC_New(StepObject, step_type);
    if (!step)
        return NULL;
    step->w = (WritingObject *)Py_NewRef((PyObject *)w);
    step->exit = (ExitObject *)Py_XNewRef((PyObject *)exit);
    step->enters = enters, step->raised = raised, step->over = false;
    PyObject_GC_Track(step);
    return (PyObject *)step;
}

static int Step_traverse(StepObject *step, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(step));
    Py_VISIT(step->w);
    Py_VISIT(step->exit);
    return 0;
}

static void Step_dealloc(StepObject *step)
{
    PyTypeObject *type = Py_TYPE(step);
    PyObject_GC_UnTrack(step);
    Py_CLEAR(step->exit);
    Py_CLEAR(step->w);
    type->tp_free(step);
    Py_DECREF(type);
}

static PySendResult Step_step(StepObject *step, PyObject *unused, PyObject **out)
{
    (void)unused;
    *out = NULL;
    if (step->over) {
        fail(PyExc_RuntimeError, "this step of a writing block was awaited already");
        return PYGEN_ERROR;
    }
    step->over = true;
    if (step->enters ? enter_block(step->w, step->exit) : leave_by(step->w, step->exit, step->raised))
        *out = step->enters ? Py_NewRef((PyObject *)step->w->write) : Py_NewRef(Py_None);
    return *out ? PYGEN_RETURN : PYGEN_ERROR;
}

static PyObject *Step_next(StepObject *step)
{
    PyObject *out, *stop;
    if (Step_step(step, Py_None, &out) != PYGEN_RETURN)
        return NULL;
    stop = PyObject_CallOneArg(PyExc_StopIteration, out);
    Py_DECREF(out);
    if (stop)
        PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    return NULL;
}

static PyObject *Writing_aenter(WritingObject *w, PyObject *unused)
{
    (void)unused;
    ExitObject *exit = next_exit(w);
    PyObject *step = step_new(w, exit, true, false);
    Py_XDECREF(exit);
    return step;
}

/* ---- __exit__ and __aexit__ ---- */

static PyObject *leave(WritingObject *w, ExitObject *exit, bool awaited, bool raised)
{
    if (awaited)
        return step_new(w, exit, false, raised);
    return leave_by(w, exit, raised) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *Exit_call(ExitObject *e, PyObject *args, PyObject *unused)
{
    (void)unused;
    return leave(e->w, e, e->awaited, PyTuple_GET_SIZE(args) > 0 && PyTuple_GET_ITEM(args, 0) != Py_None);
}

typedef struct {
    PyObject_HEAD bool awaited;
} ExitsObject;

/* Of a Writing: the exit of its next block. Of the type: itself, which is called with a Writing first. */
static PyObject *Exits_get(ExitsObject *exits, PyObject *of, PyObject *unused)
{
    (void)unused;
    if (!of || !PyObject_TypeCheck(of, writing_type))
        return Py_NewRef((PyObject *)exits);
    return exit_new((WritingObject *)of, exits->awaited);
}

static PyObject *Exits_call(ExitsObject *exits, PyObject *args, PyObject *unused)
{
    (void)unused;
    Py_ssize_t n = PyTuple_GET_SIZE(args);
    if (n < 1 || !PyObject_TypeCheck(PyTuple_GET_ITEM(args, 0), writing_type))
        return fail(PyExc_TypeError,
                    "__exit__ is called with the object of a writing block first. Nothing was changed.");
    return leave((WritingObject *)PyTuple_GET_ITEM(args, 0), NULL, exits->awaited,
                 n > 1 && PyTuple_GET_ITEM(args, 1) != Py_None);
}

/* ---- types ---- */

static const char set_doc[] =
    "set(value, ttl=<default_ttl>, tags=())\n--\n\nWhat the origin holds now; stored when the block "
    "ends. The last call counts. ttl: seconds, a timedelta, None for ever. Raises InvalidTTL, "
    "InvalidKey and KeyTooLong (of tags) at once, and RuntimeError outside of the block.";

static const char store_doc[] = "store(value, ttl=<default_ttl>, tags=())\n--\n\nWrite the value to the "
                                "key's origin (Cache.origin), and then "
                                "set what that returned, or the value where it returned None. Returns what "
                                "was set; a coroutine, where the "
                                "origin's functions are coroutine functions. Raises what the origin raises, "
                                "NoOrigin where none can store the "
                                "key, and as set does.";

static PyMethodDef write_methods[] = {
    {"set", FAST(Write_set), METH_FASTCALL | METH_KEYWORDS, set_doc},
    {"store", FAST(Write_store), METH_FASTCALL | METH_KEYWORDS, store_doc},
    {"__exit__", FAST(Write_exit), METH_FASTCALL, "What the end of the block does; for who enters by hand."},
    {NULL, NULL, 0, NULL},
};

static const char stored_doc[] = "After the block: True if the value is cached here. None before.";

static PyGetSetDef write_attributes[] = {
    {"stored", (getter)Write_stored, NULL, stored_doc, NULL},
    {"_intent", (getter)Write_intent, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef writing_methods[] = {
    {"set", FAST(Writing_set), METH_FASTCALL | METH_KEYWORDS, set_doc},
    {"__enter__", (PyCFunction)Writing_enter, METH_NOARGS, NULL},
    {"__aenter__", (PyCFunction)Writing_aenter, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef writing_attributes[] = {
    {"stored", (getter)Writing_stored, NULL, stored_doc, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot write_slots[] = {
    {Py_tp_doc, "The write of one `writing` block: `with cache.writing(key) as w: db.save(x); w.set(x)`."},
    {Py_tp_dealloc, Write_dealloc},
    {Py_tp_traverse, Write_traverse},
    {Py_tp_clear, Write_clear},
    {Py_tp_methods, write_methods},
    {Py_tp_getset, write_attributes},
    {0, NULL},
};

static PyType_Slot writing_slots[] = {
    {Py_tp_doc,
     "A write of the origin, with its cache entry: `with cache.writing(key) as w: db.save(x); w.set(x)`.\n\n"
     "On entering, the key's hash is left in the roster as an intent (if this process dies inside, the sweep "
     "announces it) and "
     "a token is taken. On leaving, the value given to `set` is announced and stored, unless the key was "
     "written by somebody "
     "else since: then it is announced only. Without `set`, or after an exception, the key is deleted. "
     "Commit the origin's "
     "transaction inside the block: the announcement follows at its end, and a peer that reloads earlier "
     "would find the old "
     "row. An object can be entered again after its block has ended, not while it is open."},
    {Py_tp_new, Writing_new},
    {Py_tp_dealloc, Writing_dealloc},
    {Py_tp_traverse, Writing_traverse},
    {Py_tp_clear, Writing_clear},
    {Py_tp_methods, writing_methods},
    {Py_tp_getset, writing_attributes},
    {0, NULL},
};

static PyType_Slot exit_slots[] = {
    {Py_tp_dealloc, Exit_dealloc},
    {Py_tp_traverse, Exit_traverse},
    {Py_tp_call, Exit_call},
    {0, NULL},
};

static PyType_Slot exits_slots[] = {
    {Py_tp_descr_get, Exits_get},
    {Py_tp_call, Exits_call},
    {0, NULL},
};

static PyType_Slot step_slots[] = {
    {Py_tp_dealloc, Step_dealloc},
    {Py_tp_traverse, Step_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Step_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, Step_step},
    {0, NULL},
};

static PyType_Spec specs[] = {
    {"cachee_shm._core.Write", sizeof(WriteObject), 0,
     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, write_slots},
    {"cachee_shm._core.Writing", sizeof(WritingObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
     writing_slots},
    {"cachee_shm._core.WritingStep", sizeof(StepObject), 0,
     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, step_slots},
    {"cachee_shm._core.WritingExit", sizeof(ExitObject), 0,
     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, exit_slots},
    {"cachee_shm._core.WritingExits", sizeof(ExitsObject), 0,
     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, exits_slots},
};

static bool add_exit(PyTypeObject *exits_type, const char *name, bool awaited)
{
    ExitsObject *exits = PyObject_New(ExitsObject, exits_type);
    if (!exits)
        return false;
    exits->awaited = awaited;
    bool added = PyObject_SetAttrString((PyObject *)writing_type, name, (PyObject *)exits) == 0;
    Py_DECREF((PyObject *)exits);
    return added;
}

bool writing_ready(PyObject *module)
{
    write_type = (PyTypeObject *)PyType_FromSpec(&specs[0]);
    writing_type = (PyTypeObject *)PyType_FromSpec(&specs[1]);
    step_type = (PyTypeObject *)PyType_FromSpec(&specs[2]);
    exit_type = (PyTypeObject *)PyType_FromSpec(&specs[3]);
    PyTypeObject *exits_type = (PyTypeObject *)PyType_FromSpec(&specs[4]);
    return write_type && writing_type && step_type && exit_type && exits_type &&
           add_exit(exits_type, "__exit__", false) && add_exit(exits_type, "__aexit__", true) &&
           PyModule_AddObjectRef(module, "Write", (PyObject *)write_type) == 0 &&
           PyModule_AddObjectRef(module, "Writing", (PyObject *)writing_type) == 0;
}
