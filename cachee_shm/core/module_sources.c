/* module_sources.c - the table of sources: how far each host's ring has been applied here. It outlives the
 * bridge. See module.h. */
#include "module.h"
#include "peers.h"

enum { NOBODY = 0 }; /* the slot that no source has */

struct source_row {
    uint32_t index;
    uint64_t incarnation, cursor;
    char name[NAME_BYTES];
};

static PyObject *source_object(const void *at)
{
    const struct source_row *row = at;
    return Py_BuildValue("(INKK)", row->index, text_from(row->name, sizeof row->name), row->incarnation,
                         row->cursor);
}

static PyObject *sources_of(SegmentObject *s, enum source_use use)
{
    if (!enter(s))
        return NULL;
    struct rows rows = rows_for(s->a.geo.source_slots, sizeof(struct source_row));
    for (uint32_t i = 0; rows.at && i < s->a.geo.source_slots; i++) {
        struct source_slot *slot = &s->a.sources[i];
        if (load_acquire(&slot->used) != use)
            continue;
        struct source_row *row = rows_next(&rows);
        row->index = i;
        row->incarnation = load_acquire(&slot->incarnation);
        row->cursor = load_acquire(&slot->cursor);
        racing_read(row->name, slot->name, sizeof row->name);
    }
    return rows_listed(&rows, source_object);
}

static PyObject *Segment_sources(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return sources_of(s, SOURCE_MEMBER);
}

static PyObject *Segment_forgotten(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return sources_of(s, SOURCE_FORGOTTEN);
}

static bool source_named(const struct attachment *a, uint32_t i, const char *name)
{
    char have[NAME_BYTES];
    if (!load_acquire(&a->sources[i].used))
        return false;
    racing_read(have, a->sources[i].name, sizeof have);
    return strncmp(have, name, sizeof have) == 0;
}

/* The slot of this source, else the one that has been free for longest, else a forgotten source's; NOBODY:
 * there is none. */
static uint32_t source_slot_for(const struct attachment *a, const char *name)
{
    uint32_t free_slot = NOBODY, forgotten = NOBODY;
    for (uint32_t i = 1; i < a->geo.source_slots; i++) {
        uint64_t used = load_acquire(&a->sources[i].used);
        if (source_named(a, i, name))
            return i;
        if (used == SOURCE_FREE && (free_slot == NOBODY || load_relaxed(&a->sources[i].until) <
                                                               load_relaxed(&a->sources[free_slot].until)))
            free_slot = i;
        if (forgotten == NOBODY && used == SOURCE_FORGOTTEN)
            forgotten = i;
    }
    return free_slot != NOBODY ? free_slot : forgotten;
}

static void source_begin(struct attachment *a, struct source_slot *slot, const char *name, size_t n)
{
    if (load_acquire(&slot->used) == SOURCE_FORGOTTEN)
        store_release(&a->sources[NOBODY].used, SOURCE_FORGOTTEN);
    /* freed first, so that a death in here never leaves the cursor of one source under another's name */
    store_release(&slot->used, SOURCE_FREE);
    peers_rename(a, slot, name, n);
    store_relaxed(&slot->incarnation, 0);
    store_relaxed(&slot->cursor, 0);
    peers_reset(slot);
}

static PyObject *Segment_source_open(SegmentObject *s, PyObject *arg)
{
    Py_ssize_t n;
    const char *name = PyUnicode_AsUTF8AndSize(arg, &n);
    if (!name || !enter_as_bridge(s))
        return NULL;
    if (n < 1 || n >= NAME_BYTES)
        return fail(PyExc_ValueError, "a source's name has 1 to %d bytes", NAME_BYTES - 1);
    uint32_t i = source_slot_for(&s->a, name);
    if (i == NOBODY)
        return fail(
            errors.segment_error,
            "Segment '%.64s' knows %u hosts already and has no room for '%s'. Nothing changed. Forget "
            "dead hosts, or give the namespace more memory.",
            label_of(s).text, s->a.geo.source_slots - 1, name);
    struct source_slot *slot = &s->a.sources[i];
    if (!source_named(&s->a, i, name))
        source_begin(&s->a, slot, name, (size_t)n);
    store_release(&slot->used, SOURCE_MEMBER);
    return PyLong_FromUnsignedLong(i);
}

struct source_slot *source_at(SegmentObject *s, unsigned int i)
{
    if (i >= 1 && i < s->a.geo.source_slots)
        return &s->a.sources[i];
    fail(PyExc_ValueError, "no source %u", i);
    return NULL;
}

static PyObject *Segment_source_store(SegmentObject *s, PyObject *args)
{
    uint32_t i;
    uint64_t incarnation, cursor;
    struct source_slot *slot;
    if (!PyArg_ParseTuple(args, "O&O&O&:source_store", number32_from, &i, number64_from, &incarnation,
                          number64_from, &cursor) ||
        !enter_as_bridge(s) || !(slot = source_at(s, i)))
        return NULL;
    peers_keep(slot, incarnation, cursor);
    Py_RETURN_NONE;
}

static PyObject *Segment_source_cursor(SegmentObject *s, PyObject *arg)
{
    uint32_t i;
    struct source_slot *slot;
    if (!number32_from(arg, &i) || !enter(s) || !(slot = source_at(s, i)))
        return NULL;
    uint64_t incarnation = load_acquire(&slot->incarnation), cursor = load_acquire(&slot->cursor);
    return Py_BuildValue("(KK)", incarnation, cursor);
}

static PyObject *Segment_source_forget(SegmentObject *s, PyObject *arg)
{
    uint32_t i;
    struct source_slot *slot;
    if (!number32_from(arg, &i) || !enter_as_bridge(s) || !(slot = source_at(s, i)))
        return NULL;
    store_relaxed(&slot->until, ring_tail(&s->a));
    store_release(&slot->used, SOURCE_FREE);
    Py_RETURN_NONE;
}

/* For events.py: source_name(index, sequence) -> the host where a record began; "": no longer known. */
static PyObject *Segment_source_name(SegmentObject *s, PyObject *args)
{
    uint32_t i;
    uint64_t sequence;
    char name[NAME_BYTES];
    if (!PyArg_ParseTuple(args, "O&O&:_source_name", number32_from, &i, number64_from, &sequence) ||
        !enter(s))
        return NULL;
    bool known = peers_name_at(&s->a, i, sequence, name);
    return text_from(name, known ? sizeof name : 0);
}

static PyObject *Segment_source_set_aside(SegmentObject *s, PyObject *arg)
{
    uint32_t i;
    struct source_slot *slot;
    if (!number32_from(arg, &i) || !enter_as_bridge(s) ||
        !(slot = i == NOBODY ? &s->a.sources[NOBODY] : source_at(s, i)))
        return NULL;
    store_release(&slot->used, SOURCE_FORGOTTEN);
    Py_RETURN_NONE;
}

PyMethodDef module_sources[] = {
    {"sources", (PyCFunction)Segment_sources, METH_NOARGS,
     "[(index, name, incarnation, cursor)] of every host known"},
    {"forgotten", (PyCFunction)Segment_forgotten, METH_NOARGS, "the same of the sources that were set aside"},
    {"source_open", (PyCFunction)Segment_source_open, METH_O, "source_open(name) -> index"},
    {"source_store", (PyCFunction)Segment_source_store, METH_VARARGS,
     "source_store(index, incarnation, cursor)"},
    {"source_cursor", (PyCFunction)Segment_source_cursor, METH_O,
     "source_cursor(index) -> (incarnation, cursor)"},
    {"source_forget", (PyCFunction)Segment_source_forget, METH_O, "source_forget(index)"},
    {"_source_name", (PyCFunction)Segment_source_name, METH_VARARGS,
     "_source_name(index, sequence): the host where that record began, or ''"},
    {"source_set_aside", (PyCFunction)Segment_source_set_aside, METH_O,
     "source_set_aside(index): forget the source, but keep its cursor for its return; 0: no slot was free"},
    {NULL, NULL, 0, NULL},
};
