/* module_peers.c - what the bridge writes about its peers, and what workers read of that (wait_synced,
 * health). See module.h. */
#include "module.h"
#include "peers.h"

/* ---- lists ---- */

struct rows rows_for(uint32_t room, size_t row_bytes)
{
    struct rows rows = {.at = PyMem_Calloc(room, row_bytes), .room = room, .row_bytes = row_bytes};
    if (!rows.at)
        PyErr_NoMemory();
    return rows;
}

void *rows_next(struct rows *rows) { return (char *)rows->at + rows->row_bytes * rows->count++; }

PyObject *rows_listed(struct rows *rows, PyObject *(*object_of)(const void *row))
{
    PyObject *list = rows->at ? PyList_New(0) : NULL;
    for (uint32_t i = 0; list && i < rows->count; i++) {
        PyObject *object = object_of((const char *)rows->at + rows->row_bytes * i);
        if (!object || PyList_Append(list, object) < 0)
            Py_CLEAR(list);
        Py_XDECREF(object);
    }
    PyMem_Free(rows->at);
    return list;
}

static PyObject *printable(PyObject *text)
{
    Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    Py_UCS4 *copy = PyUnicode_AsUCS4Copy(text);
    for (Py_ssize_t i = 0; copy && i < n; i++)
        copy[i] = Py_UNICODE_ISPRINTABLE(copy[i]) ? copy[i] : '?';
    PyObject *shown = copy ? PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, copy, n) : NULL;
    PyMem_Free(copy);
    return shown;
}

PyObject *text_from(const char *bytes, size_t bytes_max)
{
    PyObject *text = PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)strnlen(bytes, bytes_max), "replace");
    PyObject *shown = text ? printable(text) : NULL;
    Py_XDECREF(text);
    return shown;
}

/* ---- the bridge ---- */

static PyObject *Segment_source_acked(SegmentObject *s, PyObject *args)
{
    uint32_t i;
    uint64_t position;
    struct source_slot *slot;
    if (!PyArg_ParseTuple(args, "O&O&:source_acked", number32_from, &i, number64_from, &position) ||
        !enter_as_bridge(s) || !(slot = source_at(s, i)))
        return NULL;
    peers_acked(&s->a, slot, position);
    Py_RETURN_NONE;
}

static PyObject *Segment_source_tell(SegmentObject *s, PyObject *args)
{
    uint32_t i;
    int reachable;
    uint64_t fresh_ms;
    struct source_slot *slot;
    if (!PyArg_ParseTuple(args, "O&pO&:source_tell", number32_from, &i, &reachable, number64_from,
                          &fresh_ms) ||
        !enter_as_bridge(s) || !(slot = source_at(s, i)))
        return NULL;
    peers_tell(slot, reachable, fresh_ms);
    Py_RETURN_NONE;
}

static PyObject *Segment_bridge_vouch(SegmentObject *s, PyObject *arg)
{
    uint64_t until_ms;
    if (!number64_from(arg, &until_ms) || !enter_as_bridge(s))
        return NULL;
    peers_vouch(&s->a, until_ms);
    Py_RETURN_NONE;
}

static PyObject *Segment_sync_asked(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(peers_asked(&s->a)) : NULL;
}

static PyObject *Segment_raise_incarnation(SegmentObject *s, PyObject *arg)
{
    uint64_t incarnation;
    if (!number64_from(arg, &incarnation) || !enter_as_bridge(s))
        return NULL;
    if (incarnation <= load_acquire(&s->a.header->incarnation))
        return fail(PyExc_ValueError, "incarnation %llu is not above the segment's; nothing changed",
                    (unsigned long long)incarnation);
    peers_raise_incarnation(&s->a, incarnation);
    Py_RETURN_NONE;
}

static PyObject *Segment_bridge_leave(SegmentObject *s, PyObject *arg)
{
    int left = PyObject_IsTrue(arg);
    if (left < 0 || !enter_as_bridge(s))
        return NULL;
    peers_leave(&s->a, left);
    Py_RETURN_NONE;
}

/* ---- workers ---- */

static PyObject *Segment_written(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    return Py_BuildValue("(KK)", load_acquire(&s->a.header->incarnation), s->a.written);
}

/* If the segment was replaced since _written(), each peer must have met the successor (for which it evicts
 * everything), and must have applied what this process has announced in the successor. Without a bridge there
 * is no peer; without a segment nothing is announced. */
static PyObject *Segment_synced(SegmentObject *s, PyObject *args)
{
    uint64_t incarnation, written;
    if (!PyArg_ParseTuple(args, "O&O&:_synced", number64_from, &incarnation, number64_from, &written) ||
        !enter(s))
        return NULL;
    if (load_acquire(&s->a.header->incarnation) != incarnation)
        written = s->a.written;
    bool synced = !s->a.stand_in && (!s->a.has_bridge || peers_synced(&s->a, written));
    if (!synced && !s->a.stand_in)
        peers_ask(&s->a, written);
    return PyBool_FromLong(synced);
}

struct peer_row {
    struct peer peer;
    char name[NAME_BYTES];
};

static PyObject *peer_object(const void *at)
{
    const struct peer_row *row = at;
    uint64_t acked = row->peer.acked;
    return Py_BuildValue(
        "(NNNK)", text_from(row->name, sizeof row->name), PyBool_FromLong(row->peer.reachable),
        acked == NOT_ACKED ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(acked - 1), row->peer.fresh_ms);
}

static PyObject *Segment_left(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyBool_FromLong(peers_left(&s->a)) : NULL;
}

static PyObject *Segment_peers(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    struct rows rows = rows_for(s->a.geo.source_slots, sizeof(struct peer_row));
    for (uint32_t i = 1; rows.at && i < s->a.geo.source_slots; i++) {
        struct peer peer;
        if (!peers_look(&s->a, i, &peer))
            continue;
        struct peer_row *row = rows_next(&rows);
        row->peer = peer;
        racing_read(row->name, s->a.sources[i].name, sizeof row->name);
    }
    return rows_listed(&rows, peer_object);
}

static PyObject *Segment_bridge(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    const struct header *h = s->a.header;
    return Py_BuildValue("(NKKK)", PyBool_FromLong(roster_bridge_alive(&s->a)),
                         load_acquire(&h->bridge_since_ms), load_acquire(&h->bridge_told_ms),
                         load_acquire(&h->bridge_until_ms));
}

/* The bytes of free pages, and of pages that a process has drained and not yet opened. */
static PyObject *Segment_free_bytes(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    uint64_t pages = 0;
    if (!enter(s))
        return NULL;
    for (uint32_t i = 0; i < s->a.geo.page_count; i++) {
        uint64_t state = load_relaxed(&s->a.page_words[i]) & PAGE_STATE_MASK;
        pages += state == PAGE_FREE || state == PAGE_SPARE;
    }
    return PyLong_FromUnsignedLongLong(pages * s->a.geo.page_bytes);
}

static PyObject *Segment_call(SegmentObject *s, PyObject *name)
{
    Py_ssize_t n;
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &n) : NULL;
    if (!text)
        return PyErr_Occurred() ? NULL : fail(PyExc_TypeError, "a service's name is text");
    if (!enter(s))
        return NULL;
    roster_call(&s->a, text, (size_t)n);
    Py_RETURN_NONE;
}

PyMethodDef module_peers[] = {
    {"_call", (PyCFunction)Segment_call, METH_O, "_call(service): what the roster calls this process"},
    {"source_acked", (PyCFunction)Segment_source_acked, METH_VARARGS,
     "source_acked(index, position): the peer has applied this host's ring up to there"},
    {"source_tell", (PyCFunction)Segment_source_tell, METH_VARARGS,
     "source_tell(index, reachable, fresh_ms)"},
    {"bridge_vouch", (PyCFunction)Segment_bridge_vouch, METH_O,
     "bridge_vouch(until_ms): what the bridge wrote about sources is valid until then"},
    {"sync_asked", (PyCFunction)Segment_sync_asked, METH_NOARGS,
     "the ring position up to which a worker waits for the peers"},
    {"raise_incarnation", (PyCFunction)Segment_raise_incarnation, METH_O,
     "raise_incarnation(incarnation): ValueError unless it is higher"},
    {"bridge_leave", (PyCFunction)Segment_bridge_leave, METH_O,
     "bridge_leave(left): the mark that workers see after its farewell"},
    {"_left", (PyCFunction)Segment_left, METH_NOARGS,
     "the bridge has said farewell, and none has come back (bool)"},
    {"_written", (PyCFunction)Segment_written, METH_NOARGS,
     "_written() -> (incarnation, the last position that this process announced)"},
    {"_synced", (PyCFunction)Segment_synced, METH_VARARGS,
     "_synced(*_written()): has every peer that can be reached applied that?"},
    {"_peers", (PyCFunction)Segment_peers, METH_NOARGS, "[(name, reachable, acked or None, fresh_ms)]"},
    {"_bridge", (PyCFunction)Segment_bridge, METH_NOARGS, "(alive, since_ms, told_ms, until_ms)"},
    {"_free_bytes", (PyCFunction)Segment_free_bytes, METH_NOARGS, "bytes of pages that hold nothing"},
    {NULL, NULL, 0, NULL},
};
