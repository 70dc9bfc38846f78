/* stepping.c - see scenes.h. */
#include "scenes.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

static unsigned char buffer[VALUE_BYTES_LIMIT];

/* ---- the child ---- */

bool can_trace(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 0 : 1);
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

pid_t traced_child(void (*body)(void *), void *with)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        body(with);
        _exit(0);
    }
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "the child did not stop: %x",
            (unsigned)status);
    return pid;
}

static void run_scene(void *with)
{
    const struct scene *s = with;
    static struct attachment a;
    int fd = reopened(scene_file);
    if (s->run) {
        REQUIRE(segment_attach(&a, fd, &scene_config) == ATTACHED, "the stepped child cannot attach");
        a.frozen_ms = here.frozen_ms;
        s->warm_up(&a);
        let_stores_be_watched(&a);
    } else
        REQUIRE(segment_begin(&a, fd, &scene_config) == ATTACHED, "the stepped child finds no segment"); /* it changes nothing */
    raise(SIGSTOP);
    if (s->run)
        s->run(&a);
    else
        segment_join(&a, &scene_config);
    raise(SIGSTOP);
}

pid_t child_at_verb(const struct scene *s) { return traced_child(run_scene, (void *)s); }

int resume(pid_t pid, int how)
{
    int status;
    REQUIRE(ptrace(how, pid, 0, 0) == 0 && waitpid(pid, &status, 0) == pid, "ptrace: %s", strerror(errno));
    REQUIRE(WIFSTOPPED(status), "the stepped child ended: %x", (unsigned)status);
    return WSTOPSIG(status);
}

/* One instruction. False: the verb has returned. */
bool step(pid_t pid)
{
    int signal = resume(pid, PTRACE_SINGLESTEP);
    REQUIRE(signal == SIGTRAP || signal == SIGSTOP, "the stepped child got signal %d", signal);
    tally(STEPS);
    return signal == SIGTRAP;
}

void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- what must hold ---- */

/* Events up to here the entry need not give way to: its own, or, of the fenced set, those before its token. */
static uint64_t written_at(const struct entry_ref *e)
{
    bool fenced = !entry_spans(e) && load_relaxed(&entry_value(e)[1]) == 10;
    return fenced ? start_token : e->version >> 1;
}

/* The records of a map stand for TARGET; all but the last, which says that it is evicted. */
static bool is_about_target(const struct record *r)
{
    return r->hash == target.hash || (r->hash == EVERY_KEY && r->source && r->digest != EVERY_KEY_DONE);
}

/* Should an event that is newer than this entry have evicted it? */
static bool evicts(const struct attachment *a, const struct record *r, const struct entry_ref *e, uint64_t sequence)
{
    bool remote = r->source != 0;
    if (sequence <= written_at(e) || sequence == e->version >> 1 || !is_about_target(r))
        return false;
    if (remote && entry_local(e))
        return false;
    if (remote && r->kind == RECORD_SET) /* set_1's bytes may stay, touched or not */
        return load_relaxed(&entry_value(e)[1]) != 1 || r->digest != digest_bits(digest_of_set_1);
    return r->kind == RECORD_KEY || r->kind == RECORD_SET || r->kind == RECORD_LOCAL || r->kind == RECORD_GUARDED;
}

/* No visible entry of TARGET is older than the events in (after, upto]; none is there twice. */
void check_nothing_outlived(const struct attachment *a, uint64_t after, uint64_t upto, bool remote_too, const char *when)
{
    struct candidates c = index_candidates(a, target.hash);
    int visible = 0;
    for (int i = 0; i < CANDIDATE_WORDS; i++) {
        struct entry_ref e;
        uint64_t word = load_acquire(index_word(&c, i));
        if (!word || (word & INDEX_PENDING) || !entry_open(a, word, &e) || e.hash != target.hash)
            continue;
        visible++;
        for (uint64_t s = after + 1; s <= upto; s++) {
            struct record r;
            REQUIRE(ring_read(a, s, &r), "hole at %llu", (unsigned long long)s);
            if (r.source && !remote_too)
                continue;
            REQUIRE(!evicts(a, &r, &e, s) || !entry_valid(a, &e), "%s: an entry of version %llu (%s) is visible after event %llu, kind %d of source %u",
                    when, (unsigned long long)e.version >> 1, e.version & 1 ? "fill" : "set", (unsigned long long)s, (int)r.kind, r.source);
        }
    }
    REQUIRE(visible <= 1, "%s: the key is visible %d times", when, visible);
}

void check_ring(struct attachment *a)
{
    for (uint64_t s = 1; s <= ring_tail(a); s++) {
        struct record r;
        REQUIRE(ring_read(a, s, &r), "hole at %llu of %llu", (unsigned long long)s, (unsigned long long)ring_tail(a));
        uint64_t fence = r.kind == RECORD_TAG ? tag_fence_of(a, r.hash) : r.kind == RECORD_CLEAR || r.kind == RECORD_ALL ? clear_of(a, false)
                                                                                                                  : fence_of(a, r.hash);
        REQUIRE(fence >= s, "the fence of record %llu is %llu", (unsigned long long)s, (unsigned long long)fence);
    }
}

uint64_t number_read(struct attachment *a)
{
    uint32_t bytes;
    return read_value(a, &target, buffer, &bytes) ? value_number(buffer, bytes, TARGET) : 0;
}

/* Nothing may be left of the dead. */
/* The only other one that may live is the process which forked us. */
static bool lives(const struct attachment *a, uint32_t slot) { return slot == a->slot || (slot == here.slot && roster_alive(a, slot)); }

void check_swept(struct attachment *a)
{
    recovery_sweep(a);
    for (uint32_t i = 0; i < a->geo.roster_slots; i++) {
        struct roster_slot *slot = &a->roster[i];
        if (lives(a, i))
            continue;
        REQUIRE((load_acquire(&slot->word) & ROSTER_STATE_MASK) == SLOT_FREE, "slot %u is still taken", i);
        REQUIRE(!load_acquire(&slot->verb_hash), "slot %u still owes a write", i);
        for (int n = 0; n < INTENT_BUCKET_WORDS; n++)
            REQUIRE(!load_acquire(&slot->shared[n]), "slot %u still has a shared intent", i);
    }
    for (uint32_t i = 0; i < a->geo.intent_slots; i++) {
        uint64_t owner = load_acquire(&a->intents[i].owner);
        REQUIRE(!owner || lives(a, (uint32_t)(owner & 0xffff) - 1), "an intent of slot %llu is left", (unsigned long long)(owner & 0xffff) - 1);
    }
    for (uint32_t page = 0; page < a->geo.page_count; page++) {
        uint64_t word = load_acquire(&a->page_words[page]);
        REQUIRE(!page_held(word) || lives(a, page_owner(word)), "page %u is held by slot %u", page, page_owner(word));
    }
}

static void check_incr_works(struct attachment *a)
{
    int64_t sum, before;
    set_counter(a, INT64_MAX - 1);
    enum incr result = cache_incr(a, counter.hash, counter.text, counter.bytes, 1, false, &sum);
    REQUIRE(result == INCR_DONE && sum == INT64_MAX && counted(a) == sum, "incr does not work: %d", (int)result);
    before = counted(a);
    result = cache_incr(a, counter.hash, counter.text, counter.bytes, 1, false, &sum);
    REQUIRE(result == INCR_OVERFLOW && counted(a) == before, "a sum too large for 64 bits: %d", (int)result);
    result = cache_incr(a, target.hash, target.text, target.bytes, 1, false, &sum);
    REQUIRE(result == INCR_OTHER && number_read(a) == 20, "incr of what is no number: %d", (int)result);
}

static void check_verbs_work(struct attachment *a)
{
    struct write w = target_write(20, 100);
    REQUIRE(cache_set(a, &w) == STORED && number_read(a) == 20, "set does not work");
    check_incr_works(a);
    cache_delete(a, target.hash);
    REQUIRE(number_read(a) == 0, "delete does not work");
    w = target_write(21, 100);
    REQUIRE(cache_fill(a, &w, ring_tail(a), FROZEN_MS) == STORED && number_read(a) == 21, "fill does not work");
    REQUIRE(cache_touch(a, target.hash, target.text, target.bytes, 9000) == 1 && number_read(a) == 21, "touch does not work");
    w = target_write(22, 100);
    REQUIRE(cache_add(a, &w) == STORE_LOST && number_read(a) == 21, "add overwrote: found %llu", (unsigned long long)number_read(a));
    cache_delete_tag(a, scene_tag);
    REQUIRE(number_read(a) == 0, "delete_tag does not work");
    w = target_write(23, 100);
    REQUIRE(cache_add(a, &w) == STORED && number_read(a) == 23, "add does not work");
    apply_key(a);
    REQUIRE(number_read(a) == 0, "apply does not work");
    struct lease_hold hold;
    REQUIRE(lease_wanted(a, target.hash, &hold) == LEASE_TAKEN, "the lease of a dead process cannot be taken");
    struct lock_hold lock;
    uint32_t by;
    REQUIRE(lock_take(a, &(struct lock_wish){.hash = target.hash}, &lock, &by) == LOCK_TAKEN && lock_release(a, &lock),
            "the lock of a dead process cannot be taken");
    cache_clear(a);
}

/* Does somebody who is dead owe an invalidation of TARGET? */
static bool is_owed(const struct attachment *a)
{
    bool owed = false;
    for (uint32_t i = 0; i < a->geo.roster_slots; i++) {
        struct roster_slot *slot = &a->roster[i];
        if (i != a->slot && (load_acquire(&slot->word) & ROSTER_STATE_MASK) == SLOT_LIVE)
            owed |= load_acquire(&slot->verb_hash) == target.hash;
    }
    for (uint32_t i = 0; i < a->geo.intent_slots; i++) { /* of a slot that is being swept, all are announced */
        uint64_t owner = load_acquire(&a->intents[i].owner), word = owner ? load_acquire(&a->roster[(owner & 0xffff) - 1].word) : 0;
        owed |= (word & ROSTER_STATE_MASK) == SLOT_LIVE && load_acquire(&a->intents[i].hash) == target.hash;
    }
    return owed;
}

static int copy_of(const struct death *d)
{
    int fd = memory_file();
    REQUIRE(write(fd, d->image, d->total) == (ssize_t)d->total, "no memory for an image");
    return fd;
}

void check_death(void *with)
{
    const struct death *d = with;
    static struct attachment a;
    struct segment_config unguarded = scene_config;
    unguarded.has_bridge = false;
    enum attach_result r = segment_attach(&a, d->image ? copy_of(d) : reopened(scene_file), &unguarded);
    REQUIRE(r == ATTACHED, "attaching: %d", (int)r);
    a.frozen_ms = FROZEN_MS + 20;
    uint64_t first = number_read(&a), second = number_read(&a);
    REQUIRE(first == second, "flapping: %llu, then %llu", (unsigned long long)first, (unsigned long long)second);
    int64_t count = counted(&a);
    REQUIRE(!count || count == COUNT_BEFORE || count == COUNT_BEFORE + 1, "a count of %lld", (long long)count);
    struct write late = target_write(30, 48); /* loaded before all this: the sweep's announcements must evict it */
    cache_fill(&a, &late, start_token, FROZEN_MS);
    if (d->first == HEAL_FIRST) { /* as a bridge does before it forwards */
        uint64_t cursor = 0;
        relay_heal(&a, &cursor, UINT32_MAX);
        check_nothing_outlived(&a, 0, ring_tail(&a), false, "after healing");
    }
    if (d->first == SWEEP_FIRST) {
        bool owed = d->owed || is_owed(&a);
        check_swept(&a);
        REQUIRE(!owed || number_read(&a) == 0, "an owed invalidation was lost");
        check_ring(&a);
        /* A peer's event that its dead bridge did not finish is sent again: that bridge's cursor has not moved. */
        check_nothing_outlived(&a, 0, ring_tail(&a), false, "after the sweep");
    }
    check_verbs_work(&a);
    check_ring(&a);
    check_swept(&a);
    check_nothing_outlived(&a, 0, ring_tail(&a), true, "at the end");
    REQUIRE(segment_become_bridge(&a), "a dead bridge holds its place");
    segment_detach(&a);
}
