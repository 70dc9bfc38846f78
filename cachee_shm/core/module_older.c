/* module_older.c - the type Older: this host's segment of another layout, for its bridge. See module.h,
 * older.h. */
#include "module.h"
#include "older.h"

typedef struct OlderObject {
    PyObject_HEAD struct older o;
    SegmentObject *mine; /* the bridge's own segment; NULL: this object is closed */
} OlderObject;

static bool complain(enum older_state state)
{
    static const char *const why[] = {
        [OLDER_NOT_READY] = "It is being made.",
        [OLDER_UNREADABLE] = "It is no segment of another layout, or its header is damaged.",
        [OLDER_FAILED] = "It cannot be mapped.",
    };
    fail(errors.layout_mismatch,
         "The segment cannot be relayed. %s Nothing was changed. Restart its workers.", why[state]);
    return false;
}

static int Older_init(OlderObject *self, PyObject *args, PyObject *keywords)
{
    PyObject *segment;
    int fd;
    (void)keywords;
    if (self->mine) {
        fail(PyExc_TypeError, "this Older is open already");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "Oi:Older", &segment, &fd))
        return -1;
    if (!PyObject_TypeCheck(segment, segment_type)) {
        fail(PyExc_TypeError, "Older(segment, fd): segment is a Segment");
        return -1;
    }
    SegmentObject *mine = (SegmentObject *)segment;
    if (!enter_as_bridge(mine))
        return -1;
    if (self->mine) { /* opened by code that ran meanwhile */
        fail(PyExc_TypeError, "this Older is open already");
        return -1;
    }
    enum older_state state = older_open(&self->o, fd, &mine->a);
    if (state != OLDER_OPEN) {
        older_close(&self->o);
        complain(state);
        return -1;
    }
    self->mine = (SegmentObject *)Py_NewRef(segment);
    return 0;
}

static PyObject *Older_close(OlderObject *self, PyObject *unused)
{
    (void)unused;
    SegmentObject *mine = self->mine;
    self->mine = NULL;
    if (mine)
        older_close(&self->o);
    Py_XDECREF(mine);
    Py_RETURN_NONE;
}

static void Older_dealloc(OlderObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(Older_close(self, NULL));
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Is the object open, and is this process still the bridge of its own segment? False: an error is set. */
static bool ready(OlderObject *self)
{
    SegmentObject *mine = (SegmentObject *)Py_XNewRef(self->mine); /* held: to enter may run Python code */
    bool entered = mine && enter_as_bridge(mine);
    Py_XDECREF(mine);
    if (entered && self->mine == mine)
        return true;
    if (!mine || entered)
        fail(errors.closed, "This older segment is closed. Nothing was read or written.");
    return false;
}

static PyObject *none_or_broken(OlderObject *self, bool good)
{
    return good ? Py_NewRef(Py_None) : ring_broken(self->mine);
}

static PyObject *Older_take(OlderObject *self, PyObject *unused)
{
    (void)unused;
    if (!ready(self))
        return NULL;
    enum older_taken taken = older_take(&self->o, &self->mine->a);
    return taken == OLDER_CORRUPT ? ring_broken(self->mine) : PyBool_FromLong(taken == OLDER_TAKEN);
}

static PyObject *Older_relay(OlderObject *self, PyObject *arg)
{
    uint32_t records_max;
    if (!number32_from(arg, &records_max) || !ready(self))
        return NULL;
    return none_or_broken(self, older_relay(&self->o, &self->mine->a, records_max));
}

static PyObject *Older_finish(OlderObject *self, PyObject *unused)
{
    (void)unused;
    return ready(self) ? none_or_broken(self, older_finish(&self->o, &self->mine->a)) : NULL;
}

static PyObject *Older_silence(OlderObject *self, PyObject *unused)
{
    (void)unused;
    if (!ready(self))
        return NULL;
    older_silence(&self->o);
    Py_RETURN_NONE;
}

static PyObject *Older_retire(OlderObject *self, PyObject *unused)
{
    (void)unused;
    if (!ready(self))
        return NULL;
    older_retire(&self->o);
    Py_RETURN_NONE;
}

static PyObject *Older_set_serve_until(OlderObject *self, PyObject *arg)
{
    uint64_t ms;
    if (!number64_from(arg, &ms) || !ready(self))
        return NULL;
    older_serve_until(&self->o, &self->mine->a, ms);
    Py_RETURN_NONE;
}

static PyObject *Older_vouch(OlderObject *self, PyObject *arg)
{
    uint64_t ms;
    if (!number64_from(arg, &ms) || !ready(self))
        return NULL;
    older_vouch(&self->o, &self->mine->a, ms);
    Py_RETURN_NONE;
}

static PyObject *Older_sleep(OlderObject *self, PyObject *arg)
{
    int sleeping = PyObject_IsTrue(arg);
    if (sleeping < 0 || !ready(self))
        return NULL;
    if (sleeping)
        return PyBool_FromLong(older_arm(&self->o));
    older_disarm(&self->o);
    Py_RETURN_TRUE;
}

static PyObject *Older_in_use(OlderObject *self, PyObject *unused)
{
    (void)unused;
    return ready(self) ? PyBool_FromLong(older_in_use(&self->o)) : NULL;
}

static PyObject *get_layout(OlderObject *self, void *unused)
{
    (void)unused;
    return ready(self) ? PyLong_FromUnsignedLong(self->o.layout) : NULL;
}

static PyObject *get_tail(OlderObject *self, void *unused)
{
    (void)unused;
    return ready(self) ? PyLong_FromUnsignedLongLong(ring_tail(&self->o.a)) : NULL;
}

static PyObject *get_pump_cursor(OlderObject *self, void *unused)
{
    (void)unused;
    return ready(self) ? PyLong_FromUnsignedLongLong(load_acquire(&self->o.a.header->pump_cursor)) : NULL;
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)Older_take, METH_NOARGS, "True if this process is now its bridge as well"},
    {"relay", (PyCFunction)Older_relay, METH_O,
     "relay(records_max): announce in the own segment what was written in the older one after pump_cursor"},
    {"silence", (PyCFunction)Older_silence, METH_NOARGS, "serve nothing from the older segment any more"},
    {"set_serve_until", (PyCFunction)Older_set_serve_until, METH_O, "set_serve_until(ms)"},
    {"vouch", (PyCFunction)Older_vouch, METH_O, "vouch(until_ms): its workers have a bridge until then"},
    {"bridge_sleep", (PyCFunction)Older_sleep, METH_O,
     "bridge_sleep(sleeping) -> False: do not sleep, records came"},
    {"in_use", (PyCFunction)Older_in_use, METH_NOARGS, "does any process hold a slot there?"},
    {"retire", (PyCFunction)Older_retire, METH_NOARGS, "no process may attach to it any more"},
    {"finish", (PyCFunction)Older_finish, METH_NOARGS,
     "when it is no longer in use: announce in the own segment all that was written or is owed there"},
    {"close", (PyCFunction)Older_close, METH_NOARGS, "give back its lock, mapping and descriptor"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"layout", (getter)get_layout, NULL, "its layout's number (int)", NULL},
    {"tail", (getter)get_tail, NULL, "the last sequence of its ring (int)", NULL},
    {"pump_cursor", (getter)get_pump_cursor, NULL, "up to where its ring was relayed (int)", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Older(segment, fd): this host's segment of another layout, beside the bridge's own "
                "`segment`; it takes fd over."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, Older_init},
    {Py_tp_dealloc, Older_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {0, NULL},
};

static PyType_Spec spec = {.name = "cachee_shm._core.Older",
                           .basicsize = sizeof(OlderObject),
                           .flags = Py_TPFLAGS_DEFAULT,
                           .slots = slots};

int older_type_into(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);
    int failed = !type ? -1 : PyModule_AddObjectRef(module, "Older", type);
    Py_XDECREF(type);
    return failed;
}
