/* module_awaited.c - the awaitable that _aload and _aload_many return: _load, with a loader that is a
 * coroutine function.
 *
 * It drives the loader's coroutine itself, so that no bytecode runs between the loader's end and the fill. A
 * Load whose task is dropped half-way gives its lease back when it is freed. No Python variable holds it, so
 * a traceback that somebody keeps does not keep it alive.
 */
#include "module_loading.h"

static PyTypeObject *load_type;

typedef struct {
    PyObject_HEAD struct driver d;
    struct many *many; /* in the place of d, or NULL */
    PyObject *inner;   /* the loader's iterator, while it runs */
    bool begun, over;
    bool steps; /* the loader runs now; its code may find this object, and call it */
} LoadObject;

static LoadObject *load_new(void)
{
    LoadObject *l = PyObject_GC_New(LoadObject, load_type);
    if (l)
        memset((char *)l + sizeof(PyObject), 0, sizeof *l - sizeof(PyObject));
    return l;
}

PyObject *Segment_aload(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct driver d;
    if (!driver_from(&d, s, args, n, "_aload"))
        return NULL;
    LoadObject *l = load_new();
    if (!l) {
        driver_clear(&d);
        return NULL;
    }
    l->d = d;
    l->d.awaited = true;
    PyObject_GC_Track(l);
    return (PyObject *)l;
}

PyObject *Segment_aload_many(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct many *m = many_from(s, args, n, true);
    LoadObject *l = m ? load_new() : NULL;
    if (!l) {
        if (m)
            many_free(m);
        return NULL;
    }
    l->many = m;
    PyObject_GC_Track(l);
    return (PyObject *)l;
}

/* ---- one key, or many ---- */

/* *loads: the loader was called, and *awaitable is what it returned (NULL: it raised). Otherwise returns the
 * result of the load, or NULL with an error set. */
static PyObject *begin(LoadObject *l, bool *loads, PyObject **awaitable)
{
    PyObject *out = NULL;
    enum begin next = l->many ? many_begin(l->many, &out) : load_begin(&l->d, &out);
    *loads = next == BEGIN_LOAD;
    if (*loads)
        *awaitable = l->many ? many_call(l->many) : PyObject_CallObject(l->d.loader, l->d.args);
    return *loads || l->many ? out : load_not_made(next, out);
}

static PyObject *finish(LoadObject *l, PyObject *value)
{
    return l->many ? many_finish(l->many, value) : load_finish(&l->d, value);
}

static bool let_go(LoadObject *l)
{
    return l->many ? many_let_go(l->many) : load_let_go(&l->d, FLIGHT_ABANDONED, NULL, NULL, NULL);
}

/* ---- the object ---- */

static int Load_traverse(LoadObject *l, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(l));
    Py_VISIT(l->inner);
    Py_VISIT(l->d.s);
    Py_VISIT(l->d.key);
    Py_VISIT(l->d.loader);
    Py_VISIT(l->d.args);
    Py_VISIT(l->d.kept);
    Py_VISIT(l->d.flight);
    Py_VISIT(l->d.before);
    return l->many ? many_traverse(l->many, visit, arg) : 0;
}

/* Keeps the segment and the flight until the object is freed: let_go needs them. */
static int Load_clear(LoadObject *l)
{
    Py_CLEAR(l->inner);
    Py_CLEAR(l->d.loader);
    Py_CLEAR(l->d.args);
    return 0;
}

static void Load_dealloc(LoadObject *l)
{
    PyTypeObject *type = Py_TYPE(l);
    PyObject *error_type, *error, *trace;
    PyObject_GC_UnTrack(l);
    PyErr_Fetch(&error_type, &error, &trace);
    Py_CLEAR(l->inner); /* closes the loader's coroutine */
    if (l->begun && !l->over && !let_go(l))
        PyErr_WriteUnraisable(NULL);
    PyErr_Restore(error_type, error, trace);
    driver_clear(&l->d);
    if (l->many)
        many_free(l->many);
    type->tp_free(l);
    Py_DECREF(type);
}

/* A generator that types.coroutine has marked, which `await` takes as it is. */
static bool is_old_coroutine(PyObject *o)
{
    PyObject *code = PyGen_CheckExact(o) ? PyObject_GetAttrString(o, "gi_code") : NULL;
    bool marked = code && PyCode_Check(code) && (((PyCodeObject *)code)->co_flags & CO_ITERABLE_COROUTINE);
    if (!code)
        PyErr_Clear();
    Py_XDECREF(code);
    return marked;
}

/* The iterator of what the loader returned, as `await` would take it; NULL: an error is set. */
static PyObject *iterator_of(PyObject *awaitable)
{
    if (!awaitable || is_old_coroutine(awaitable))
        return awaitable;
    PyAsyncMethods *methods = Py_TYPE(awaitable)->tp_as_async;
    PyObject *iterator = methods && methods->am_await ? methods->am_await(awaitable) : NULL;
    if (!iterator && !PyErr_Occurred())
        fail(PyExc_TypeError,
             "the loader of aget_or_load returned %.100s, which cannot be awaited. Nothing was cached. Give "
             "it "
             "a coroutine function, or use get_or_load.",
             Py_TYPE(awaitable)->tp_name);
    Py_DECREF(awaitable);
    return iterator;
}

static PySendResult ended(LoadObject *l, PyObject *result, PyObject **out)
{
    l->over = true;
    *out = result;
    return result ? PYGEN_RETURN : PYGEN_ERROR;
}

/* The loader's iterator has returned `value`, or raised (NULL). */
static PySendResult inner_ended(LoadObject *l, PyObject *value, PyObject **out)
{
    Py_CLEAR(l->inner);
    return ended(l, finish(l, value), out);
}

static PySendResult first_step(LoadObject *l, PyObject **out)
{
    l->begun = true;
    bool loads;
    PyObject *awaitable = NULL, *result = begin(l, &loads, &awaitable);
    if (!loads)
        return ended(l, result, out);
    l->inner = iterator_of(awaitable);
    return l->inner ? PYGEN_NEXT : inner_ended(l, NULL, out);
}

static bool may_step(LoadObject *l)
{
    if (l->steps || l->over)
        fail(PyExc_RuntimeError,
             l->steps ? "this load is awaited already" : "this load is over: it cannot be awaited again");
    return !l->steps && !l->over;
}

static PySendResult step_on(LoadObject *l, PyObject *sent, PyObject **out)
{
    if (!l->begun) {
        PySendResult first = first_step(l, out);
        if (first != PYGEN_NEXT)
            return first;
    }
    PyObject *got = NULL;
    PySendResult result = PyIter_Send(l->inner, sent, &got);
    if (result == PYGEN_NEXT)
        *out = got;
    return result == PYGEN_NEXT ? result : inner_ended(l, result == PYGEN_RETURN ? got : NULL, out);
}

static PySendResult Load_step(LoadObject *l, PyObject *sent, PyObject **out)
{
    *out = NULL;
    if (!may_step(l))
        return PYGEN_ERROR;
    l->steps = true;
    PySendResult result = step_on(l, sent, out);
    l->steps = false;
    return result;
}

/* Answer as a generator's methods do: the yielded object, or StopIteration with the result. */
static PyObject *told(PySendResult result, PyObject *out)
{
    if (result != PYGEN_RETURN)
        return out;
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, out);
    Py_DECREF(out);
    if (stop)
        PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    return NULL;
}

static PyObject *Load_send(LoadObject *l, PyObject *sent)
{
    PyObject *out;
    PySendResult result = Load_step(l, sent, &out);
    return told(result, out);
}

static PyObject *Load_next(LoadObject *l) { return Load_send(l, Py_None); }

/* The value of a StopIteration that is set; NULL: another exception is set. */
static PyObject *value_of_stop(void)
{
    PyObject *type, *value, *trace, *result = NULL;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return NULL;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    result = PyObject_GetAttrString(value, "value");
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return result;
}

static PyObject *exception_from(PyObject *const *args, Py_ssize_t n)
{
    PyObject *value = n > 1 && args[1] != Py_None ? args[1] : args[0];
    if (PyExceptionClass_Check(value))
        return PyObject_CallNoArgs(value);
    if (n > 1 && PyExceptionClass_Check(args[0]) && !PyExceptionInstance_Check(value))
        return PyObject_CallOneArg(args[0], value);
    return PyExceptionInstance_Check(value) ? Py_NewRef(value)
                                            : fail(PyExc_TypeError, "throw() takes an exception");
}

/* Throw the exception into the loader. Takes the reference to it. */
static PyObject *throw_in(LoadObject *l, PyObject *exception)
{
    PyObject *out;
    if (l->over || !l->inner) {
        l->over = l->begun = true;
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
        return NULL;
    }
    PyObject *yielded = PyObject_CallMethod(l->inner, "throw", "O", exception);
    if (!yielded && PyErr_ExceptionMatches(PyExc_AttributeError) &&
        !PyObject_HasAttrString(l->inner, "throw"))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    if (yielded)
        return yielded;
    PySendResult result = inner_ended(l, value_of_stop(), &out);
    return told(result, out);
}

static PyObject *Load_throw(LoadObject *l, PyObject *const *args, Py_ssize_t n)
{
    PyObject *exception =
        n > 0 ? exception_from(args, n) : fail(PyExc_TypeError, "throw() takes an exception");
    if (!exception)
        return NULL;
    if (l->steps) {
        Py_DECREF(exception);
        return fail(PyExc_RuntimeError, "this load is awaited already");
    }
    l->steps = true;
    PyObject *yielded = throw_in(l, exception);
    l->steps = false;
    return yielded;
}

/* The awaiting coroutine is being closed: close the loader's first. */
static PyObject *close_inner(LoadObject *l)
{
    PyObject *closed = l->inner ? PyObject_CallMethod(l->inner, "close", NULL) : Py_NewRef(Py_None);
    if (!closed && PyErr_ExceptionMatches(PyExc_AttributeError) && !PyObject_HasAttrString(l->inner, "close"))
        PyErr_Clear(); /* an iterator that is no generator */
    Py_CLEAR(l->inner);
    Py_XDECREF(closed);
    bool good = !l->begun || l->over || let_go(l);
    l->over = l->begun = true;
    return good && !PyErr_Occurred() ? Py_NewRef(Py_None) : NULL;
}

static PyObject *Load_close(LoadObject *l, PyObject *unused)
{
    (void)unused;
    if (l->steps)
        return fail(PyExc_RuntimeError, "this load is awaited already");
    l->steps = true;
    PyObject *closed = close_inner(l);
    l->steps = false;
    return closed;
}

static PyMethodDef load_methods[] = {
    {"send", (PyCFunction)Load_send, METH_O, NULL},
    {"throw", FAST(Load_throw), METH_FASTCALL, NULL},
    {"close", (PyCFunction)Load_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot load_slots[] = {
    {Py_tp_doc, "One awaited try at loading a key: see module_loading.c."},
    {Py_tp_dealloc, Load_dealloc},
    {Py_tp_traverse, Load_traverse},
    {Py_tp_clear, Load_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Load_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, Load_step},
    {Py_tp_methods, load_methods},
    {0, NULL},
};

static PyType_Spec load_spec = {"cachee_shm._core.Load", sizeof(LoadObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                load_slots};

bool awaited_ready(PyObject *module)
{
    load_type = (PyTypeObject *)PyType_FromSpec(&load_spec);
    return load_type && PyModule_AddObjectRef(module, "Load", (PyObject *)load_type) == 0;
}
