/* module_values.c - keys, lifetimes, tags and values: between Python objects and plain bytes. See
 * module.h. */
#include "module.h"

/* ---- arguments ---- */

bool key_from_any(PyObject *o, struct key *k)
{
    Py_ssize_t n;
    if (PyUnicode_Check(o)) {
        k->bytes = PyUnicode_AsUTF8AndSize(o, &n);
        if (!k->bytes) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeError))
                return false;
            PyErr_Clear();
            fail(errors.invalid_key,
                 "A key of lone surrogates has no UTF-8 form. Nothing was read or written.");
            return false;
        }
    } else if (PyBytes_Check(o)) {
        k->bytes = PyBytes_AS_STRING(o);
        n = PyBytes_GET_SIZE(o);
    } else {
        fail(errors.invalid_key, "A key is a str or bytes, not %.100s. Nothing was read or written.",
             Py_TYPE(o)->tp_name);
        return false;
    }
    if (n > KEY_BYTES_MAX) {
        fail(errors.key_too_long,
             "A key has at most %d bytes (in UTF-8), this one has %zd. Nothing was read or written. "
             "Hash long keys yourself.",
             KEY_BYTES_MAX, n);
        return false;
    }
    k->n = (uint32_t)n;
    return true;
}

static bool unexpected(const char *verb, const char *const *names, int most, PyObject *name)
{
    PyObject *accepted = PyUnicode_FromString(names[0]);
    for (int i = 1; accepted && i < most; i++)
        Py_XSETREF(accepted, PyUnicode_FromFormat("%U, %s", accepted, names[i]));
    if (accepted)
        fail(PyExc_TypeError,
             "%s() got an unexpected or repeated argument '%U'. Nothing was read or written. Accepted: %U.",
             verb, name, accepted);
    Py_XDECREF(accepted);
    return false;
}

NEVER_INLINE bool parse_any_args(const char *verb, const char *const *names, int required, int most,
                                 PyObject *const *args, Py_ssize_t n, PyObject *kwnames, PyObject **out)
{
    Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    if (n > most) {
        fail(PyExc_TypeError, "%s() takes at most %d arguments (%zd given)", verb, most, n);
        return false;
    }
    for (int i = 0; i < most; i++)
        out[i] = i < n ? args[i] : NULL;
    for (Py_ssize_t k = 0; k < nkw; k++) {
        int i = (int)n; /* what was given by position cannot be named too */
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        while (i < most && PyUnicode_CompareWithASCIIString(name, names[i]) != 0)
            i++;
        if (i == most || out[i]) {
            return unexpected(verb, names, most, name);
        }
        out[i] = args[n + k];
    }
    for (int i = 0; i < required; i++) {
        if (!out[i]) {
            fail(PyExc_TypeError, "%s() misses argument '%s'", verb, names[i]);
            return false;
        }
    }
    return true;
}

/* work(on, argument) has raised the exception that is set. Does it raise again if it is called again? Then
 * the exception is the work's own, and is cleared. Otherwise a signal handler has raised it (Ctrl-C, a soft
 * time limit): it is the caller's, and stays set. */
static bool is_its_own(PyObject *(*work)(PyObject *, PyObject *), PyObject *on, PyObject *argument)
{
    PyObject *type, *error, *trace;
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return false;
    PyErr_Fetch(&type, &error, &trace);
    PyObject *done = work(on, argument);
    bool own = !done && PyErr_ExceptionMatches(type),
         ends = !done && !PyErr_ExceptionMatches(PyExc_Exception);
    Py_XDECREF(done);
    if (ends) { /* the program, or the task */
        Py_XDECREF(type), Py_XDECREF(error), Py_XDECREF(trace);
        return false;
    }
    PyErr_Clear();
    PyErr_Restore(own ? NULL : type, own ? NULL : error, own ? NULL : trace);
    if (own)
        Py_XDECREF(type), Py_XDECREF(error), Py_XDECREF(trace);
    return own;
}

static PyObject *repr(PyObject *o, PyObject *unused)
{
    (void)unused;
    return PyObject_Repr(o);
}

/* What an error says of an object: a new reference to its repr, which may be the caller's code and raise, or
 * to its type's name. NULL: an exception that ends the program or the task is set. */
PyObject *repr_of(PyObject *o)
{
    PyObject *text = repr(o, NULL);
    if (text || !is_its_own(repr, o, NULL))
        return text;
    return PyUnicode_FromFormat("an object of type %.100s", Py_TYPE(o)->tp_name);
}

static bool bad_lifetime(const char *format, PyObject *o)
{
    PyObject *text = repr_of(o);
    if (text)
        fail(errors.invalid_ttl, format, text);
    Py_XDECREF(text);
    return false;
}

static const double TTL_SECONDS_MAX = 1e11; /* 3,000 years: 48 bits of milliseconds hold it */

static PyObject *total_seconds(PyObject *o, PyObject *unused)
{
    (void)unused;
    return PyObject_CallMethod(o, "total_seconds", NULL);
}

/* -1: it is no time. False: an exception that is not of the object's making is set. */
static bool seconds_of(PyObject *o, double *seconds)
{
    bool is_number = PyFloat_Check(o) || PyLong_Check(o);
    PyObject *number = is_number ? Py_NewRef(o) : total_seconds(o, NULL);
    *seconds = -1;
    if (!number)
        return is_its_own(total_seconds, o, NULL);
    *seconds = PyFloat_AsDouble(number);
    Py_DECREF(number);
    if (!PyErr_Occurred())
        return true;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Clear();
    *seconds = -1;
    return true;
}

/* Milliseconds, 0 = never. A ttl of zero stores nothing. */
bool ttl_from(const SegmentObject *s, PyObject *o, uint64_t *ttl_ms, bool *store_nothing)
{
    *store_nothing = false;
    *ttl_ms = s->a.default_ttl_ms;
    if (!o || o == Py_Ellipsis)
        return true;
    *ttl_ms = 0;
    if (o == Py_None)
        return true;
    double seconds;
    if (!seconds_of(o, &seconds))
        return false;
    if (!(seconds >= 0) || seconds > TTL_SECONDS_MAX)
        return bad_lifetime(
            "A ttl is a number of seconds from 0 to 1e11, a timedelta, or None for never; not %U. "
            "Nothing was read or written.",
            o);
    *store_nothing = seconds == 0;
    *ttl_ms = seconds * 1000 < 1 ? 1 : (uint64_t)(seconds * 1000);
    return true;
}

static bool number_from(PyObject *o, unsigned long long most, unsigned long long *number)
{
    if (!PyLong_Check(o)) {
        fail(PyExc_TypeError, "An int from 0 to %llu is wanted, not %.100s. Nothing was changed.", most,
             Py_TYPE(o)->tp_name);
        return false;
    }
    *number = PyLong_AsUnsignedLongLong(o);
    bool overflows = *number == ULLONG_MAX && PyErr_Occurred();
    if (!overflows && *number <= most)
        return true;
    PyErr_Clear();
    fail(PyExc_OverflowError, "An int from 0 to %llu is wanted, not %R. Nothing was changed.", most, o);
    return false;
}

int number64_from(PyObject *o, void *number)
{
    unsigned long long n = 0;
    bool good = number_from(o, UINT64_MAX, &n);
    *(uint64_t *)number = n;
    return good;
}

int number32_from(PyObject *o, void *number)
{
    unsigned long long n = 0;
    bool good = number_from(o, UINT32_MAX, &n);
    *(uint32_t *)number = (uint32_t)n;
    return good;
}

bool period_from(PyObject *o, const char *name, uint64_t *ms)
{
    double seconds;
    if (!seconds_of(o, &seconds))
        return false;
    if (seconds >= 0 && seconds <= TTL_SECONDS_MAX) {
        *ms = (uint64_t)(seconds * 1000 + 0.5);
        return true;
    }
    PyObject *text = repr_of(o);
    if (text)
        fail(errors.invalid_ttl,
             "%s is a number of seconds from 0 to 1e11, or a timedelta; not %U. Nothing was read or written.",
             name, text);
    Py_XDECREF(text);
    return false;
}

uint64_t tag_hash(const SegmentObject *s, const struct key *tag)
{
    uint64_t key[2] = {s->a.hash_key[0], ~s->a.hash_key[1]}; /* tags are not keys: their own hash */
    return hash_key(key, tag->bytes, tag->n);
}

/* A tuple of what the caller's iterable gives, each a key; NULL: an error is set. A str is an iterable of its
 * characters, which nobody means. The caller may change the iterable at any time, but not the tuple. */
static PyObject *held(PyObject *o, const char *what)
{
    struct key unused;
    if (PyUnicode_Check(o) || PyBytes_Check(o))
        return fail(errors.invalid_key, "%s, not one %.100s. Nothing was read or written.", what,
                    Py_TYPE(o)->tp_name);
    if (!Py_TYPE(o)->tp_iter && !PySequence_Check(o))
        return fail(errors.invalid_key, "%s, not %.100s. Nothing was read or written.", what,
                    Py_TYPE(o)->tp_name);
    PyObject *keys = PySequence_Tuple(o);
    for (Py_ssize_t i = 0; keys && i < PyTuple_GET_SIZE(keys); i++)
        if (!key_from(PyTuple_GET_ITEM(keys, i), &unused))
            Py_CLEAR(keys);
    return keys;
}

PyObject *keys_held(PyObject *o) { return held(o, "keys is an iterable of str or bytes"); }

/* *tags is NULL for none. False: an error is set. */
bool tags_held(PyObject *o, PyObject **tags)
{
    *tags = NULL;
    if (!o || o == Py_None)
        return true;
    *tags = held(o, "tags is a sequence of str");
    if (*tags && PyTuple_GET_SIZE(*tags) > TAGS_MAX) {
        Py_CLEAR(*tags);
        fail(errors.invalid_key, "An entry has at most %d tags. Nothing was read or written.", TAGS_MAX);
    }
    return *tags != NULL;
}

/* Hash what tags_held gave for the present segment. */
void tags_from(const SegmentObject *s, PyObject *tags, struct write *w)
{
    Py_ssize_t n = tags ? PyTuple_GET_SIZE(tags) : 0;
    struct key tag;
    w->tags = 0;
    for (Py_ssize_t i = 0; i < n && key_from(PyTuple_GET_ITEM(tags, i), &tag); i++)
        w->tag[w->tags++] = tag_hash(s, &tag);
}

/* A random number from 0 to 1. Its one quality: forked workers that load at the same time get different ones.
 * */
static double chance(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t mixed = fold_multiply((uint64_t)t.tv_nsec << 32 ^ (uint64_t)t.tv_sec ^ (uint64_t)getpid(),
                                   0x9e3779b97f4a7c15ull);
    return (double)(mixed >> 11) / 9007199254740992.0; /* 2^53 */
}

uint64_t lifetime_shortened(uint64_t ttl_ms, double jitter)
{
    uint64_t off = (uint64_t)((double)ttl_ms * jitter * chance());
    return ttl_ms && off >= ttl_ms ? 1 : ttl_ms - off;
}

bool hash_from(SegmentObject *s, PyObject *key, uint64_t *hash)
{
    struct key k;
    if (!key_from(key, &k) || !enter(s))
        return false;
    *hash = hash_key(s->a.hash_key, k.bytes, k.n);
    return true;
}

/* ---- values ---- */

static bool plain_int(PyObject *o)
{
    int overflow;
    PyLong_AsLongLongAndOverflow(o, &overflow);
    return overflow == 0;
}

static bool plain_dict(PyObject *o, int depth)
{
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &value);)
        if (!PyUnicode_CheckExact(key) || !value_is_plain(value, depth))
            return false;
    return true;
}

static bool plain_list(PyObject *o, int depth)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(o); i++)
        if (!value_is_plain(PyList_GET_ITEM(o, i), depth))
            return false;
    return true;
}

/* Runs no Python code, so that nothing changes under it. */
bool value_is_plain(PyObject *o, int depth)
{
    if (PyUnicode_CheckExact(o) || PyBytes_CheckExact(o) || PyFloat_CheckExact(o) || PyBool_Check(o) ||
        o == Py_None)
        return true;
    if (PyLong_CheckExact(o))
        return plain_int(o);
    if (depth == 0)
        return false;
    return PyDict_CheckExact(o) ? plain_dict(o, depth - 1) : PyList_CheckExact(o) && plain_list(o, depth - 1);
}

static bool value_by_codec(SegmentObject *s, PyObject *o, struct value *v)
{
    PyObject *encode = Py_XNewRef(s->encode), *data = NULL; /* held: the call may attach to another segment */
    PyObject *pair =
        encode ? PyObject_CallOneArg(encode, o) : fail(errors.closed, "This cache has no codec any more.");
    long tag = 0;
    Py_XDECREF(encode);
    if (!pair)
        return false;
    if (PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2 &&
        PyLong_CheckExact(PyTuple_GET_ITEM(pair, 0))) {
        tag = PyLong_AsLong(PyTuple_GET_ITEM(pair, 0));
        data = PyTuple_GET_ITEM(pair, 1);
    }
    if (!data || !PyBytes_CheckExact(data) || tag < 0 || tag > 255) {
        PyErr_Clear();
        Py_DECREF(pair);
        fail(PyExc_TypeError, "the codec did not return (tag, bytes)");
        return false;
    }
    v->held = pair;
    v->type = (uint8_t)tag;
    v->bytes = PyBytes_AS_STRING(data);
    v->n = PyBytes_GET_SIZE(data);
    return true;
}

static bool str_value(SegmentObject *s, PyObject *o, struct value *v)
{
    v->type = PyUnicode_IS_COMPACT_ASCII(o) ? TYPE_ASCII : TYPE_UTF8;
    v->bytes = PyUnicode_AsUTF8AndSize(o, &v->n);
    if (v->bytes && v->n < s->compress_bytes)
        return true;
    PyErr_Clear();
    /* the codec may compress it, or raises the error about lone surrogates */
    return value_by_codec(s, o, v);
}

bool value_from(SegmentObject *s, PyObject *o, struct value *v)
{
    v->bytes = v->scratch;
    v->n = 0;
    v->held = NULL;
    if (PyBytes_CheckExact(o)) {
        if (PyBytes_GET_SIZE(o) >= s->compress_bytes)
            return value_by_codec(s, o, v);
        v->type = TYPE_BYTES;
        v->bytes = PyBytes_AS_STRING(o);
        v->n = PyBytes_GET_SIZE(o);
    } else if (PyUnicode_CheckExact(o)) {
        return str_value(s, o, v);
    } else if (o == Py_None || o == Py_True || o == Py_False) {
        v->type = o == Py_None ? TYPE_NONE : o == Py_True ? TYPE_TRUE : TYPE_FALSE;
    } else if (PyFloat_CheckExact(o)) {
        double d = PyFloat_AS_DOUBLE(o);
        v->type = TYPE_FLOAT;
        memcpy(v->scratch, &d, v->n = 8);
    } else if (PyLong_CheckExact(o)) {
        int overflow;
        long long i = PyLong_AsLongLongAndOverflow(o, &overflow);
        if (overflow)
            return value_by_codec(s, o, v);
        v->type = TYPE_INT64;
        memcpy(v->scratch, &i, v->n = 8);
    } else {
        return value_by_codec(s, o, v);
    }
    return true;
}

static bool all_ascii(const unsigned char *p, size_t n)
{
    uint64_t seen = 0;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        seen |= w;
    }
    while (n--)
        seen |= *p++;
    return !(seen & 0x8080808080808080ull);
}

/* Fixed-size types: no object is made before the bytes are confirmed. */
static NEVER_INLINE enum reading read_small(SegmentObject *s, const struct entry_ref *e, PyObject **out)
{
    char raw[8];
    double d;
    long long i;
    bool numeric = entry_type(e) == TYPE_INT64 || entry_type(e) == TYPE_FLOAT;
    if (numeric && e->value_bytes == 8)
        racing_read(raw, entry_value(e), 8);
    if (!cache_confirm(&s->a, e))
        return READ_TORN;
    if (e->value_bytes != (numeric ? 8 : 0))
        return READ_GARBAGE;
    memcpy(&d, raw, numeric ? 8 : 0);
    memcpy(&i, raw, numeric ? 8 : 0);
    *out = entry_type(e) == TYPE_INT64   ? PyLong_FromLongLong(i)
           : entry_type(e) == TYPE_FLOAT ? PyFloat_FromDouble(d)
           : entry_type(e) == TYPE_NONE  ? Py_NewRef(Py_None)
                                         : PyBool_FromLong(entry_type(e) == TYPE_TRUE);
    return *out ? READ_OK : READ_ERROR;
}

/* Confirm the entry. If some of its spans are gone (not `whole`), remove its word too: it counts as evicted.
 * */
static bool confirmed(SegmentObject *s, const struct entry_ref *e, bool whole)
{
    if (!cache_confirm(&s->a, e))
        return false;
    if (!whole)
        cache_drop_broken(&s->a, e);
    return whole;
}

static NEVER_INLINE enum reading read_ascii(SegmentObject *s, const struct entry_ref *e, PyObject **out)
{
    PyObject *text = PyUnicode_New(e->value_bytes, 127);
    if (!text)
        return READ_ERROR;
    unsigned char *to = PyUnicode_1BYTE_DATA(text);
    bool whole = e->value_bytes == 0 || cache_read(&s->a, e, to); /* the empty str is one shared object */
    if (!confirmed(s, e, whole)) {
        memset(to, 0, e->value_bytes); /* a str that is marked as ASCII must hold ASCII when it is freed */
        Py_DECREF(text);
        return READ_TORN;
    }
    if (all_ascii(to, e->value_bytes)) {
        *out = text;
        return READ_OK;
    }
    memset(to, 0, e->value_bytes);
    Py_DECREF(text);
    return READ_GARBAGE;
}

bool bytes_bounded(PyObject *data)
{
    Py_ssize_t n = PyBytes_GET_SIZE(data);
    return n < MSGPACK_CHECKED_FROM ||
           msgpack_bounded((const unsigned char *)PyBytes_AS_STRING(data), (size_t)n);
}

/* The bytes are untrusted input: any exception that decoding raises means that they do not decode. */
static NEVER_INLINE enum reading decoded(SegmentObject *s, uint8_t type, PyObject *data, PyObject **out)
{
    PyObject *decoders = Py_XNewRef(s->decoders); /* held: a decoder may attach to another segment */
    PyObject *decode =
        decoders && type < PyTuple_GET_SIZE(decoders) ? PyTuple_GET_ITEM(decoders, type) : NULL;
    if (type == TYPE_PLAIN && !bytes_bounded(data))
        decode = NULL;
    bool garbage = type != TYPE_UTF8 && !decode;
    if (type == TYPE_UTF8)
        *out = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), NULL);
    else if (decode)
        *out = PyObject_CallOneArg(decode, data);
    if (!*out && type == TYPE_UTF8 && PyErr_ExceptionMatches(PyExc_UnicodeError))
        garbage = true, PyErr_Clear();
    else if (!*out && decode && type != TYPE_UTF8)
        garbage = is_its_own(PyObject_CallOneArg, decode, data);
    Py_DECREF(data);
    Py_XDECREF(decoders);
    return *out ? READ_OK : garbage ? READ_GARBAGE : READ_ERROR;
}

/* *data: a new bytes object with the stored bytes. Runs no Python code. */
enum reading read_bytes(SegmentObject *s, const struct entry_ref *e, PyObject **data)
{
    *data = PyBytes_FromStringAndSize(NULL, e->value_bytes);
    if (!*data)
        return READ_ERROR;
    bool whole = e->value_bytes == 0 || cache_read(&s->a, e, PyBytes_AS_STRING(*data));
    if (confirmed(s, e, whole))
        return READ_OK;
    Py_CLEAR(*data);
    return READ_TORN;
}

enum reading read_value(SegmentObject *s, const struct entry_ref *e, PyObject **out)
{
    uint8_t type = entry_type(e);
    if (type == TYPE_BYTES)
        return read_bytes(s, e, out);
    if (type == TYPE_ASCII)
        return read_ascii(s, e, out);
    if (type >= TYPE_INT64 && type <= TYPE_NONE)
        return read_small(s, e, out);
    PyObject *data;
    enum reading r = read_bytes(s, e, &data);
    return r == READ_OK ? decoded(s, type, data, out) : r;
}
