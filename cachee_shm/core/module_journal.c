/* module_journal.c - the journal, for people: what happened to a key on this host, and watching (arming) a
 * key. See module.h. */
#include "arming.h"
#include "module.h"
#include "peers.h"

static const char *const kind_names[JOURNAL_KINDS] = {
    [JOURNAL_NOTHING] = "",
    [JOURNAL_WRITTEN] = "written",
    [JOURNAL_DELETED] = "deleted",
    [JOURNAL_SENT] = "sent",
    [JOURNAL_RECEIVED] = "received",
    [JOURNAL_EVICTED] = "evicted",
    [JOURNAL_FILLED] = "filled",
    [JOURNAL_REFUSED] = "refused",
    [JOURNAL_STALE_SERVED] = "stale_served",
    [JOURNAL_FIRST_READ] = "first_read",
    [JOURNAL_HELD] = "held",
};

static const char *const why_names[WHYS] = {
    [WHY_NONE] = "",
    [WHY_LOST] = "lost to a newer write",
    [WHY_GUARDED] = "another host had just written",
    [WHY_NO_ROOM] = "no room",
    [WHY_TTL_0] = "stored nothing",
    [WHY_TAG] = "tag",
    [WHY_CLEAR] = "clear",
    [WHY_LOCAL] = "local",
    [WHY_UNKNOWN_OUTCOME] = "unknown outcome",
    [WHY_HAD_EVICTED] = "evicted a copy",
    [WHY_SAME_VALUE] = "kept: same value",
    [WHY_NOT_HELD] = "not held",
    [WHY_CAPACITY] = "capacity",
    [WHY_EXPIRED] = "expired",
    [WHY_INVALID] = "invalidated",
    [WHY_REPAIR] = "repair",
    [WHY_FENCE] = "written since it was loaded",
    [WHY_RELOADING] = "being reloaded",
    [WHY_LOAD_FAILED] = "its load failed",
    [WHY_ISOLATED] = "isolated",
};

struct journal_line {
    struct journal_read read;
    char source[NAME_BYTES]; /* where it began */
};

static double seconds_of_ms(uint64_t ms) { return (double)ms / 1e3; }

static PyObject *line_object(const void *at)
{
    const struct journal_line *line = at;
    const struct journal_read *r = &line->read;
    return Py_BuildValue(
        "{s:d,s:s,s:s,s:s,s:N,s:K,s:K,s:K,s:N,s:N,s:d,s:i,s:K}", "at", (double)r->at_ns / 1e9, "kind",
        kind_names[r->event.kind], "why", why_names[r->event.why], "layer",
        r->event.layer == LAYER_NEAR ? "near" : "segment", "source",
        text_from(line->source, sizeof line->source), "incarnation", r->incarnation, "sequence",
        r->event.sequence, "pid", r->name.pid, "command", text_from(r->name.command, sizeof r->name.command),
        "service", text_from(r->name.service, sizeof r->name.service), "since",
        seconds_of_ms(r->event.since_ms), "digest", (int)r->event.digest, "hash", r->event.hash);
}

static void name_source(const struct attachment *a, struct journal_line *line)
{
    uint32_t source = line->read.event.source;
    memset(line->source, 0, sizeof line->source);
    if (source == 0)
        memcpy(line->source, a->header->host, sizeof line->source);
    else if (!peers_name_at(a, source, line->read.event.sequence, line->source))
        line->source[0] = 0;
}

/* Rows about all keys (a clear, for example) count as rows of this key. */
static bool look_at_row(const struct attachment *a, uint32_t row, uint64_t hash, struct journal_read *out)
{
    return journal_look(a, row, hash, out) || (hash && journal_look(a, row, EVERY_KEY, out));
}

static PyObject *Segment_journal(SegmentObject *s, PyObject *arg)
{
    uint64_t hash;
    if (!number64_from(arg, &hash) || !enter(s))
        return NULL;
    struct attachment *a = &s->a;
    uint32_t rows_there = journal_rows(a);
    struct rows rows = rows_for(rows_there, sizeof(struct journal_line));
    for (uint32_t i = 0; rows.at && i < rows_there; i++) {
        struct journal_read read = {0};
        if (!look_at_row(a, i, hash, &read))
            continue;
        struct journal_line *line = rows_next(&rows);
        line->read = read;
        name_source(a, line);
    }
    return rows_listed(&rows, line_object);
}

static PyObject *Segment_arm(SegmentObject *s, PyObject *args)
{
    uint64_t hash, for_ms;
    PyObject *seconds;
    if (!PyArg_ParseTuple(args, "O&O:arm", number64_from, &hash, &seconds) ||
        !period_from(seconds, "seconds", &for_ms) || !enter(s))
        return NULL;
    return PyBool_FromLong(arming_arm(&s->a, hash, for_ms));
}

static PyObject *Segment_journal_mode(SegmentObject *s, PyObject *arg)
{
    uint32_t mode;
    if (!number32_from(arg, &mode) || !enter(s))
        return NULL;
    if (mode > JOURNAL_ALL)
        return fail(PyExc_ValueError, "no journal mode %u", mode);
    journal_set_mode(&s->a, (enum journal_mode)mode);
    Py_RETURN_NONE;
}

PyMethodDef module_journal[] = {
    {"journal", (PyCFunction)Segment_journal, METH_O,
     "journal(hash) -> list of dicts: what this host's journal has of a key, in no order"},
    {"arm", (PyCFunction)Segment_arm, METH_VARARGS,
     "arm(hash, seconds) -> bool: for that time, journal all events of a key, and its next read; True: it "
     "is held here"},
    {"_journal_mode", (PyCFunction)Segment_journal_mode, METH_O, "0 sampled, 1 off, 2 all"},
    {NULL, NULL, 0, NULL},
};
