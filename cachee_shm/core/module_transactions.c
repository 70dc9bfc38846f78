/* module_transactions.c - the type Transaction, its counts, and the questions to transactions.py. See
 * module_transactions.h. */
#include "module_transactions.h"

#include "clock.h"

uint32_t transactions_open, transactions_writing;

static PyObject *transactions_here;           /* a context variable: what transactions.py keeps there */
static PyObject *hides, *keeps, *snapshot_of; /* of transactions.py; NULL until it is imported */

/* ---- the type ---- */

enum state { STATE_OPEN, STATE_WRITING, STATE_ENDED };

typedef struct {
    PyObject_HEAD enum state state;
} TransactionObject;

static void become(TransactionObject *t, enum state state)
{
    transactions_open += (state != STATE_ENDED) - (t->state != STATE_ENDED);
    transactions_writing += (state == STATE_WRITING) - (t->state == STATE_WRITING);
    t->state = state;
}

static PyObject *Transaction_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args, (void)keywords;
    TransactionObject *t = (TransactionObject *)type->tp_alloc(type, 0);
    if (t) {
        t->state = STATE_ENDED;
        become(t, STATE_OPEN);
    }
    return (PyObject *)t;
}

static void Transaction_dealloc(TransactionObject *t)
{
    PyTypeObject *type = Py_TYPE(t);
    become(t, STATE_ENDED);
    type->tp_free(t);
    Py_DECREF(type);
}

static PyObject *Transaction_is_open(TransactionObject *t, void *unused)
{
    (void)unused;
    return PyBool_FromLong(t->state != STATE_ENDED);
}

static PyObject *Transaction_is_writing(TransactionObject *t, void *unused)
{
    (void)unused;
    return PyBool_FromLong(t->state == STATE_WRITING);
}

/* _write(): from now on the transaction may have written. _end() -> was it open? Then the caller ends it. */
static PyObject *Transaction_write(TransactionObject *t, PyObject *unused)
{
    (void)unused;
    if (t->state == STATE_OPEN)
        become(t, STATE_WRITING);
    Py_RETURN_NONE;
}

static PyObject *Transaction_end(TransactionObject *t, PyObject *unused)
{
    (void)unused;
    bool was_open = t->state != STATE_ENDED;
    become(t, STATE_ENDED);
    return PyBool_FromLong(was_open);
}

static PyMethodDef transaction_methods[] = {
    {"_write", (PyCFunction)Transaction_write, METH_NOARGS, NULL},
    {"_end", (PyCFunction)Transaction_end, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef transaction_attributes[] = {
    {"is_open", (getter)Transaction_is_open, NULL, "neither committed nor rolled back", NULL},
    {"is_writing", (getter)Transaction_is_writing, NULL, "open, and may have written", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot transaction_slots[] = {
    {Py_tp_doc, "A transaction's state. cachee_shm.transactions.Transaction is its public subclass."},
    {Py_tp_new, Transaction_new},
    {Py_tp_dealloc, Transaction_dealloc},
    {Py_tp_methods, transaction_methods},
    {Py_tp_getset, transaction_attributes},
    {0, NULL},
};

static PyType_Spec transaction_spec = {"cachee_shm._core.Transaction", sizeof(TransactionObject), 0,
                                       Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, transaction_slots};

/* ---- questions ---- */

/* Fast path: a context without any transaction needs no call into Python. */
static bool context_has_any(void)
{
    PyObject *o = NULL;
    if (PyContextVar_Get(transactions_here, NULL, &o) < 0)
        PyErr_Clear();
    Py_XDECREF(o);
    return o != NULL;
}

static int answer(PyObject *said)
{
    int yes = said ? PyObject_IsTrue(said) : -1;
    Py_XDECREF(said);
    return yes;
}

int transaction_hides_slowly(void)
{
    return hides && context_has_any() ? answer(PyObject_CallNoArgs(hides)) : 0;
}

int transaction_keeps(SegmentObject *s, enum kept_kind kind, const struct key *k)
{
    if (!transactions_open || !keeps || !context_has_any())
        return 0;
    PyObject *args = Py_BuildValue("(Oiy#)", s, (int)kind, k ? k->bytes : "", (Py_ssize_t)(k ? k->n : 0));
    PyObject *said = args ? PyObject_CallObject(keeps, args) : NULL;
    Py_XDECREF(args);
    return answer(said);
}

bool transaction_snapshot(SegmentObject *s, struct snapshot *snapshot)
{
    *snapshot = (struct snapshot){0};
    if (!transactions_open || !snapshot_of || !context_has_any())
        return true;
    PyObject *said = PyObject_CallOneArg(snapshot_of, (PyObject *)s);
    bool good = said != NULL;
    snapshot->unstored = said == Py_False;
    snapshot->older = said && PyLong_CheckExact(said);
    if (snapshot->older)
        good = number64_from(said, &snapshot->token);
    Py_XDECREF(said);
    return good;
}

/* tokens() -> {attachment: its present token}. Creating objects may run Python code that closes attachments,
 * so references to them are taken first. */
PyObject *transaction_tokens(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    uint32_t count = 0, i = 0;
    for (SegmentObject *s = segments_open(); s; s = s->next)
        count++;
    struct held {
        SegmentObject *s;
        uint64_t token;
    } *all = PyMem_Calloc(count ? count : 1, sizeof *all);
    if (!all)
        return PyErr_NoMemory();
    for (SegmentObject *s = segments_open(); s; s = s->next, i++)
        all[i] = (struct held){(SegmentObject *)Py_NewRef((PyObject *)s), token_of(s, ring_tail(&s->a))};
    PyObject *tokens = PyDict_New();
    for (i = 0; i < count; i++) {
        PyObject *token = tokens ? PyLong_FromUnsignedLongLong(all[i].token) : NULL;
        if (tokens && (!token || PyDict_SetItem(tokens, (PyObject *)all[i].s, token) < 0))
            Py_CLEAR(tokens);
        Py_XDECREF(token);
        Py_DECREF((PyObject *)all[i].s);
    }
    PyMem_Free(all);
    return tokens;
}

/* transaction_hooks(hides, keeps, snapshot_of): the functions of transactions.py that answer. */
PyObject *transaction_hooks(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *a, *b, *c;
    if (!PyArg_ParseTuple(args, "OOO:transaction_hooks", &a, &b, &c))
        return NULL;
    Py_XSETREF(hides, Py_NewRef(a));
    Py_XSETREF(keeps, Py_NewRef(b));
    Py_XSETREF(snapshot_of, Py_NewRef(c));
    Py_RETURN_NONE;
}

/* ---- intents: announced by the transaction when it ends, or by the sweep if its process has died ---- */

static PyObject *Segment_intend(SegmentObject *s, PyObject *key)
{
    struct key k;
    uint64_t number;
    return key_from(key, &k) && enter(s) && block_begin(s, &k, &number) ? PyLong_FromUnsignedLongLong(number)
                                                                        : NULL;
}

static PyObject *Segment_settle(SegmentObject *s, PyObject *intent)
{
    uint64_t number;
    if (!number64_from(intent, &number) || !enter(s))
        return NULL;
    block_end(s, number);
    Py_RETURN_NONE;
}

/* ---- writes whose outcome is unknown: see doubt.h ---- */

static bool kind_and_name(PyObject *const *args, Py_ssize_t n, Py_ssize_t expected, enum kept_kind *kind,
                          struct key *k)
{
    uint32_t number;
    if (n != expected) {
        fail(PyExc_TypeError, "wrong number of arguments");
        return false;
    }
    if (!number32_from(args[0], &number))
        return false;
    *kind = number <= KEPT_ALL ? (enum kept_kind)number : KEPT_ALL;
    *k = (struct key){"", 0};
    return *kind == KEPT_ALL || key_from(args[1], k);
}

static uint64_t hash_of(SegmentObject *s, enum kept_kind kind, const struct key *k)
{
    return kind == KEPT_KEY ? hash_key(s->a.hash_key, k->bytes, k->n) : kind == KEPT_TAG ? tag_hash(s, k) : 0;
}

enum { PLACE_BITS = 16 };

static enum record_kind due_kind(enum kept_kind kind)
{
    return kind == KEPT_KEY ? RECORD_KEY : kind == KEPT_TAG ? RECORD_TAG : RECORD_CLEAR;
}

static uint64_t due_hash(SegmentObject *s, enum kept_kind kind, const struct key *k)
{
    return kind == KEPT_ALL ? DUE_OF_ALL : hash_of(s, kind, k);
}

/* _owe(kind, name) -> when and where: a commit is about to be sent. Even if this process dies, its write is
 * announced later. */
static PyObject *Segment_owe(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    enum kept_kind kind;
    struct key k;
    if (!kind_and_name(args, n, 2, &kind, &k) || !enter(s))
        return NULL;
    uint32_t place = NO_DUE;
    uint64_t due_ms = clock_ms(&s->a) + s->a.unknown_ttl_ms;
    if (s->a.unknown_ttl_ms && !s->a.stand_in)
        place = doubt_owe(&s->a, due_kind(kind), due_hash(s, kind, &k), due_ms);
    return PyLong_FromUnsignedLongLong(due_ms << PLACE_BITS | (place & ((1u << PLACE_BITS) - 1)));
}

/* _owe_no_more(kind, name, when and where): the outcome of the commit is known. */
static PyObject *Segment_owe_no_more(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    enum kept_kind kind;
    struct key k;
    uint64_t due;
    if (!kind_and_name(args, n, 3, &kind, &k) || !number64_from(args[2], &due) || !enter(s))
        return NULL;
    if (!s->a.stand_in)
        doubt_settle(&s->a, (uint32_t)(due & ((1u << PLACE_BITS) - 1)), due_kind(kind), due_hash(s, kind, &k),
                     due >> PLACE_BITS);
    Py_RETURN_NONE;
}

static int delete_unknown(SegmentObject *s, enum kept_kind kind, const struct key *k)
{
    if (s->a.stand_in) {
        kind == KEPT_KEY ? owe_key(s, k) : kind == KEPT_TAG ? owe_tag(s, k) : owe_everything(s);
        return 0;
    }
    static const enum record_kind record_of[] = {RECORD_KEY, RECORD_TAG, RECORD_CLEAR};
    uint64_t hash = hash_of(s, kind, k);
    bool twice = doubt_begin(&s->a, record_of[kind], hash);
    if (kind == KEPT_KEY)
        return twice ? cache_delete_unknown(&s->a, hash) : cache_delete(&s->a, hash);
    return kind == KEPT_TAG ? cache_delete_tag(&s->a, hash) : cache_clear(&s->a);
}

/* _delete_unknown(kind, name): delete, because it is unknown whether the commit has happened. */
static PyObject *Segment_delete_unknown(SegmentObject *s, PyObject *const *args, Py_ssize_t n)
{
    enum kept_kind kind;
    struct key k;
    int done = -1;
    if (!kind_and_name(args, n, 2, &kind, &k))
        return NULL;
    for (int tries = 0; done < 0 && tries < 2; tries++) {
        if (!enter(s))
            return NULL;
        done = delete_unknown(s, kind, &k);
    }
    if (done < 0)
        return fail(errors.segment_retired,
                    "The segment was found corrupt or removed, and its successor too. Nothing was "
                    "announced. See who else writes into it, or removes it.");
    Py_RETURN_NONE;
}

static PyObject *Segment_set_unknown_ttl(SegmentObject *s, PyObject *ms)
{
    if (!number64_from(ms, &s->a.unknown_ttl_ms))
        return NULL;
    Py_RETURN_NONE;
}

/* For segment.py, as above: _set_origin_lag(ms). */
static PyObject *Segment_set_origin_lag(SegmentObject *s, PyObject *ms)
{
    if (!number64_from(ms, &s->a.lag.ms))
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef module_transactions[] = {
    {"_owe", FAST(Segment_owe), METH_FASTCALL, NULL},
    {"_owe_no_more", FAST(Segment_owe_no_more), METH_FASTCALL, NULL},
    {"_delete_unknown", FAST(Segment_delete_unknown), METH_FASTCALL, NULL},
    {"_set_unknown_ttl", (PyCFunction)Segment_set_unknown_ttl, METH_O, NULL},
    {"_set_origin_lag", (PyCFunction)Segment_set_origin_lag, METH_O, NULL},
    {"_intend", (PyCFunction)Segment_intend, METH_O, NULL},
    {"_settle", (PyCFunction)Segment_settle, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

bool transactions_ready(PyObject *module)
{
    transactions_here = PyContextVar_New("cachee_shm.transactions", NULL);
    PyObject *type = PyType_FromSpec(&transaction_spec);
    bool good = transactions_here && type &&
                PyModule_AddObjectRef(module, "transactions", transactions_here) == 0 &&
                PyModule_AddObjectRef(module, "Transaction", type) == 0;
    Py_XDECREF(type);
    return good;
}
