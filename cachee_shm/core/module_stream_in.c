/* module_stream_in.c - the bridge's data path, the way in, for Python. See stream_in.h and module.h. */
#include "module.h"
#include "peers.h"
#include "stream_in.h"

/* Bytes that are read without a copy. No Python code runs while the verb works, so they are not changed or
 * resized meanwhile. */
static bool span_from(PyObject *o, const unsigned char **bytes, size_t *n)
{
    if (PyBytes_CheckExact(o)) {
        *bytes = (const unsigned char *)PyBytes_AS_STRING(o);
        *n = (size_t)PyBytes_GET_SIZE(o);
        return true;
    }
    if (PyByteArray_CheckExact(o)) {
        *bytes = (const unsigned char *)PyByteArray_AS_STRING(o);
        *n = (size_t)PyByteArray_GET_SIZE(o);
        return true;
    }
    fail(PyExc_TypeError, "bytes or a bytearray is required, not %.100s", Py_TYPE(o)->tp_name);
    return false;
}

struct receiving {
    uint32_t index, frames_max;
    const unsigned char *bytes;
    size_t n, head_n;
};

/* The segment's part: the verb has entered. False: an error is set. */
static bool receiving_ready(SegmentObject *s, PyObject *const *args, struct receiving *r,
                            struct stream_in *in)
{
    if (!(in->slot = source_at(s, r->index)) || !span_from(args[3], &in->head, &r->head_n) ||
        !span_from(args[4], &r->bytes, &r->n))
        return false;
    if (r->head_n < 1 || r->head_n > FRAME_HEAD_BYTES_MAX) {
        fail(PyExc_ValueError, "a frame's head has 1 to %d bytes, not %zu", FRAME_HEAD_BYTES_MAX, r->head_n);
        return false;
    }
    in->a = &s->a;
    in->head_bytes = (uint32_t)r->head_n;
    in->source = (uint16_t)r->index;
    return true;
}

/* receive(source, incarnation, cursor, head, bytes, sealed, frames_max) */
static PyObject *Segment_receive(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    struct receiving r;
    struct stream_in in = {0};
    if (n != 7)
        return fail(PyExc_TypeError, "receive takes 7 arguments, not %zd", n);
    if (!number32_from(args[0], &r.index) || !number64_from(args[1], &in.incarnation) ||
        !number64_from(args[2], &in.cursor) || !number32_from(args[6], &r.frames_max) ||
        !enter_as_bridge(s) || !receiving_ready(s, args, &r, &in))
        return NULL;
    in.seal_bytes = args[5] == Py_True ? FRAME_SEAL_BYTES : 0;
    size_t taken = stream_in_take(&in, r.bytes, r.n, r.frames_max);
    if (in.corrupt)
        return ring_broken(s);
    if (!taken)
        Py_RETURN_NONE;
    return Py_BuildValue("(nKII)", (Py_ssize_t)taken, in.cursor, in.frames, in.payloads);
}

PyMethodDef module_stream_in[] = {
    {"receive", FAST(Segment_receive), METH_FASTCALL,
     "receive(source, incarnation, cursor, head, bytes, sealed, frames_max) -> (bytes, cursor, frames, "
     "payloads) of what was "
     "taken, or None: the first message is not an ordinary frame in order"},
    {0},
};
