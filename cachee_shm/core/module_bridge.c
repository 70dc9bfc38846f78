/* module_bridge.c - what the bridge calls: pack and apply records and maps of buckets, write the bridge's
 * words in the header, sweep. See module.h. */
#include "module.h"
#include "relay_buckets.h"
#include "stream_out.h"

enum {
    RING_READ_MAX = 4096,
    RING_RECORD_BYTES = 24,
    PACK_BYTES_MAX = PACK_RECORDS_MAX * WIRE_RECORD_BYTES_MAX
};

/* ---- the ring ---- */

static PyObject *Segment_pack(SegmentObject *s, PyObject *args)
{
    uint64_t cursor;
    uint32_t records_max, bytes_max;
    uint32_t used;
    if (!PyArg_ParseTuple(args, "O&O&O&:pack", number64_from, &cursor, number32_from, &records_max,
                          number32_from, &bytes_max) ||
        !enter(s))
        return NULL;
    if (bytes_max < WIRE_RECORD_BYTES_MAX || records_max < 1)
        return fail(PyExc_ValueError, "pack needs room for one record: %d bytes", WIRE_RECORD_BYTES_MAX);
    unsigned char out[PACK_BYTES_MAX];
    uint64_t to = cursor;
    uint32_t room = bytes_max < sizeof out ? bytes_max : (uint32_t)sizeof out;
    if (relay_pack(&s->a, &to, records_max, out, room, &used) != RELAY_OK)
        Py_RETURN_NONE;
    return Py_BuildValue("(Ky#)", to, (const char *)out, (Py_ssize_t)used);
}

static PyObject *Segment_missed(SegmentObject *s, PyObject *arg)
{
    uint64_t cursor;
    if (!number64_from(arg, &cursor) || !enter(s))
        return NULL;
    enum owed owed = relay_owes(&s->a, cursor);
    char kind = owed == OWED_NOTHING ? 0 : (char)relay_kind_owed(&s->a, owed);
    return PyBytes_FromStringAndSize(&kind, owed == OWED_NOTHING ? 0 : 1);
}

/* (healed up to, covered up to, frame). The frame is b'' if none of the covered records is this host's own.
 * If no frame can be made, covered up to is `cursor` itself. */
static PyObject *Segment_heal(SegmentObject *s, PyObject *args)
{
    uint64_t cursor, after;
    uint32_t records_max;
    PyObject *bytes;
    struct stream_frame frame;
    if (!PyArg_ParseTuple(args, "O&O&O&S:heal", number64_from, &cursor, number32_from, &records_max,
                          number64_from, &after, &bytes) ||
        !enter_as_bridge(s))
        return NULL;
    if (after > cursor || PyBytes_GET_SIZE(bytes) > FRAME_HEAD_BYTES_MAX)
        return fail(PyExc_ValueError,
                    "heal needs a position up to its cursor, and a head of at most %d bytes",
                    FRAME_HEAD_BYTES_MAX);
    struct stream_head head = {.at = (const unsigned char *)PyBytes_AS_STRING(bytes),
                               .bytes = (uint32_t)PyBytes_GET_SIZE(bytes)};
    uint64_t healed = cursor;
    relay_heal(&s->a, &healed, records_max);
    if (!stream_out(&s->a, &head, after, cursor, healed, &frame))
        return Py_BuildValue("(KKy#)", healed, cursor, "", (Py_ssize_t)0);
    return Py_BuildValue("(KKy#)", healed, frame.to, (const char *)frame.at, (Py_ssize_t)frame.bytes);
}

PyObject *ring_broken(SegmentObject *s)
{
    struct label label = label_of(s);
    store_release(&s->a.header->state, SEGMENT_RETIRED);
    return fail(errors.segment_retired,
                "The ring of segment '%.64s' is corrupt; the segment is retired. Attach again.", label.text);
}

/* A new reference to the bytes of a bytes-like object. Objects other than bytes are copied: another thread
 * may write to them, and releasing their buffer may run Python code. */
static PyObject *bytes_held(PyObject *o)
{
    if (PyBytes_CheckExact(o))
        return Py_NewRef(o);
    if (PyObject_CheckBuffer(o))
        return PyBytes_FromObject(o);
    return fail(PyExc_TypeError, "a bytes-like object is required, not %.100s", Py_TYPE(o)->tp_name);
}

static PyObject *Segment_apply(SegmentObject *s, PyObject *args)
{
    uint32_t source;
    PyObject *payload;
    uint32_t applied;
    if (!PyArg_ParseTuple(args, "O&O:apply", number32_from, &source, &payload) ||
        !(payload = bytes_held(payload)))
        return NULL;
    enum relay result = RELAY_MALFORMED;
    Py_ssize_t n = PyBytes_GET_SIZE(payload);
    bool entered = enter_as_bridge(s);
    if (entered && source <= META_SOURCE_BITS && n <= UINT32_MAX)
        result = relay_apply(&s->a, (uint16_t)source, (const unsigned char *)PyBytes_AS_STRING(payload),
                             (uint32_t)n, &applied);
    PyObject *answer = !entered ? NULL
                       : result == RELAY_MALFORMED
                           ? fail(PyExc_ValueError, "malformed payload; nothing of it was applied")
                       : result == RELAY_CORRUPT ? ring_broken(s)
                                                 : PyLong_FromUnsignedLong(applied);
    Py_DECREF(payload);
    return answer;
}

/* ---- maps of buckets ---- */

static PyObject *Segment_map_piece(SegmentObject *s, PyObject *args)
{
    uint64_t cursor;
    uint32_t at, room;
    if (!PyArg_ParseTuple(args, "O&O&O&:map_piece", number64_from, &cursor, number32_from, &at, number32_from,
                          &room) ||
        !enter(s))
        return NULL;
    uint32_t bytes = relay_map_bytes(&s->a), left = at < bytes ? bytes - at : 0,
             n = room < left ? room : left;
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (out)
        relay_map_pack(&s->a, cursor, at, (unsigned char *)PyBytes_AS_STRING(out), n);
    return out;
}

/* Enter, and read a map out of bytes that the verb holds. False: an error is set. */
static bool enter_with_map(SegmentObject *s, unsigned int source, PyObject *bytes, struct bucket_map *map)
{
    if (!enter_as_bridge(s))
        return false;
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(bytes);
    if (source <= META_SOURCE_BITS && relay_map_read(at, (uint64_t)PyBytes_GET_SIZE(bytes), map))
        return true;
    fail(PyExc_ValueError, "malformed map of buckets; nothing of it was applied");
    return false;
}

static PyObject *Segment_fence_map(SegmentObject *s, PyObject *args)
{
    uint32_t source, steps_max;
    uint64_t sequence, at;
    PyObject *bytes, *answer = NULL;
    struct bucket_map map;
    int known = 0;
    if (!PyArg_ParseTuple(args, "O&OO&O&O&|p:fence_map", number32_from, &source, &bytes, number64_from,
                          &sequence, number64_from, &at, number32_from, &steps_max, &known) ||
        !(bytes = bytes_held(bytes)))
        return NULL;
    if (enter_with_map(s, source, bytes, &map)) {
        map.known = known;
        struct map_fencing f = {.sequence = sequence, .at = at};
        bool good = relay_map_fence(&s->a, (uint16_t)source, &map, steps_max, &f);
        answer = good ? Py_BuildValue("(KK)", f.sequence, f.at) : ring_broken(s);
    }
    Py_DECREF(bytes);
    return answer;
}

static PyObject *Segment_evict_map(SegmentObject *s, PyObject *args)
{
    uint32_t source, words_max;
    uint64_t version, from;
    PyObject *bytes, *answer = NULL;
    struct bucket_map map;
    if (!PyArg_ParseTuple(args, "O&OO&O&O&:evict_map", number32_from, &source, &bytes, number64_from,
                          &version, number64_from, &from, number32_from, &words_max) ||
        !(bytes = bytes_held(bytes)))
        return NULL;
    if (enter_with_map(s, source, bytes, &map)) {
        uint32_t evicted = 0;
        uint64_t next = relay_map_evict(&s->a, (uint16_t)source, &map, version, from,
                                        words_max ? words_max : 1, &evicted);
        answer = Py_BuildValue("(KI)", next, evicted);
    }
    Py_DECREF(bytes);
    return answer;
}

/* Records for events.py, 24 bytes each: sequence u64, hash u64, kind u8, own u8, source u16, digest u16,
 * padding. */
static void pack_event(unsigned char *out, uint64_t sequence, const struct record *r)
{
    memset(out, 0, RING_RECORD_BYTES);
    memcpy(out, &sequence, 8);
    memcpy(out + 8, &r->hash, 8);
    out[16] = (unsigned char)r->kind;
    out[17] = r->own;
    memcpy(out + 18, &r->source, 2);
    memcpy(out + 20, &r->digest, 2);
}

/* (cursor, records), or None: the reader was lapped. */
static PyObject *Segment_read_ring(SegmentObject *s, PyObject *args)
{
    uint64_t cursor;
    uint32_t records_max;
    if (!PyArg_ParseTuple(args, "O&O&:read_ring", number64_from, &cursor, number32_from, &records_max) ||
        !enter(s))
        return NULL;
    uint64_t tail = ring_tail(&s->a);
    if (cursor > tail || tail - cursor > s->a.geo.ring_slots)
        Py_RETURN_NONE;
    uint64_t n = tail - cursor < records_max ? tail - cursor : records_max;
    n = n < RING_READ_MAX ? n : RING_READ_MAX;
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n * RING_RECORD_BYTES);
    for (uint64_t i = 0; out && i < n; i++) {
        struct record r;
        if (!ring_read(&s->a, cursor + i + 1, &r)) {
            Py_DECREF(out);
            Py_RETURN_NONE;
        }
        pack_event((unsigned char *)PyBytes_AS_STRING(out) + i * RING_RECORD_BYTES, cursor + i + 1, &r);
    }
    return out ? Py_BuildValue("(KN)", cursor + n, out) : NULL;
}

/* ---- lines: they separate values that were loaded before from those that were loaded after ---- */

/* Append a record that concerns no key and is never sent. Later tokens are not below its position. */
static PyObject *Segment_draw_line(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    static const struct record nothing = {.kind = RECORD_LOCAL};
    uint64_t sequence = enter_as_bridge(s) ? ring_append(&s->a, &nothing) : RING_CORRUPT;
    if (PyErr_Occurred())
        return NULL;
    return sequence == RING_CORRUPT ? ring_broken(s) : PyLong_FromUnsignedLongLong(sequence);
}

static PyObject *Segment_evict_before(SegmentObject *s, PyObject *arg)
{
    uint64_t sequence;
    if (!number64_from(arg, &sequence) || !enter_as_bridge(s))
        return NULL;
    if (sequence > ring_tail(&s->a))
        return fail(PyExc_ValueError, "no record has sequence %llu yet", (unsigned long long)sequence);
    fence_clear_before(&s->a, sequence);
    Py_RETURN_NONE;
}

/* ---- the bridge's own words ---- */

static PyObject *Segment_set_serve_until(SegmentObject *s, PyObject *arg)
{
    uint64_t ms;
    if (!number64_from(arg, &ms) || !enter_as_bridge(s))
        return NULL;
    store_release(&s->a.header->serve_until_ms, ms);
    Py_RETURN_NONE;
}

static PyObject *Segment_bridge_acquire(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyBool_FromLong(segment_become_bridge(&s->a)) : NULL;
}

static PyObject *Segment_bridge_generation(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(load_acquire(&s->a.header->bridge_generation)) : NULL;
}

static PyObject *Segment_bridge_sleep(SegmentObject *s, PyObject *arg)
{
    int sleeping = PyObject_IsTrue(arg);
    if (sleeping < 0 || !enter_as_bridge(s))
        return NULL;
    if (sleeping)
        return PyBool_FromLong(doorbell_arm(&s->a, load_relaxed(&s->a.header->pump_cursor)));
    doorbell_disarm(&s->a);
    Py_RETURN_TRUE;
}

static PyObject *Segment_sweep(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (s->open)
        s->a.house_second = clock_second(); /* it counts what it sweeps: entering must not sweep before it */
    return enter(s) ? PyLong_FromUnsignedLong(recovery_sweep(&s->a)) : NULL;
}

static PyObject *Segment_freeze(SegmentObject *s, PyObject *arg)
{
    long long ms = arg == Py_None ? -1 : PyLong_AsLongLong(arg);
    if (PyErr_Occurred() || !enter(s))
        return NULL;
    s->a.frozen_ms = ms;
    Py_RETURN_NONE;
}

/* Called before a segment is removed: its workers notice at their next verb. */
static PyObject *Segment_retire(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    store_release(&s->a.header->state, SEGMENT_RETIRED);
    Py_RETURN_NONE;
}

PyMethodDef module_bridge[] = {
    {"pack", (PyCFunction)Segment_pack, METH_VARARGS,
     "pack(cursor, records_max, bytes_max) -> (to, payload) or None if lapped"},
    {"missed", (PyCFunction)Segment_missed, METH_O,
     "missed(cursor) -> b'': nothing; CLEAR, ALL or ALL_KNOWN: send that; 6 or 9: send the map (map_piece)"},
    {"map_piece", (PyCFunction)Segment_map_piece, METH_VARARGS,
     "map_piece(cursor, at, bytes_max) -> bytes of the map of own writes after cursor"},
    {"fence_map", (PyCFunction)Segment_fence_map, METH_VARARGS,
     "fence_map(source, map, sequence, at, steps_max, known=False) -> (sequence, at), 0 and 0 at first; at "
     "0: "
     "done, sequence is evict_map's version"},
    {"evict_map", (PyCFunction)Segment_evict_map, METH_VARARGS,
     "evict_map(source, map, version, at, words_max) -> (at or 0: done, evicted)"},
    {"heal", (PyCFunction)Segment_heal, METH_VARARGS,
     "heal(cursor, records_max, after, head) -> (healed, to, frame): re-apply own records at home; a FRAME "
     "of those after `after` up to `to`"},
    {"apply", (PyCFunction)Segment_apply, METH_VARARGS,
     "apply(source, payload) -> records applied; ValueError: none was"},
    {"read_ring", (PyCFunction)Segment_read_ring, METH_VARARGS,
     "read_ring(cursor, records_max) -> (cursor, bytes) or None if lapped"},
    {"draw_line", (PyCFunction)Segment_draw_line, METH_NOARGS, "the sequence of a record of no key"},
    {"evict_before", (PyCFunction)Segment_evict_before, METH_O,
     "evict_before(sequence): evict all that was loaded before it, except local entries"},
    {"set_serve_until", (PyCFunction)Segment_set_serve_until, METH_O, "set_serve_until(ms)"},
    {"bridge_acquire", (PyCFunction)Segment_bridge_acquire, METH_NOARGS,
     "True if this process is now the segment's bridge"},
    {"bridge_generation", (PyCFunction)Segment_bridge_generation, METH_NOARGS,
     "how many bridges this segment has had"},
    {"bridge_sleep", (PyCFunction)Segment_bridge_sleep, METH_O,
     "bridge_sleep(sleeping) -> False: do not sleep, records came"},
    {"sweep", (PyCFunction)Segment_sweep, METH_NOARGS, "free the slots of dead processes -> how many"},
    {"_freeze", (PyCFunction)Segment_freeze, METH_O,
     "_freeze(ms or None): stop this attachment's clock, or let it run again"},
    {"retire", (PyCFunction)Segment_retire, METH_NOARGS,
     "retire(): all processes leave this segment for its successor"},
    {NULL, NULL, 0, NULL},
};
