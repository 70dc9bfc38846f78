/* torture_segment.c - creating and attaching; and bytes that nobody wrote.
 *
 * Creators: 64 processes, and mostly 4, attach to one empty file at once, wanting different sizes; in half of the rounds some are killed
 * in mid-creation. Exactly one made the segment (at most one of the living), all see the same incarnation and geometry.
 *
 * Corrupt headers: every field that is validated, wrong, is refused with its own result, and the file is untouched.
 *
 * Garbage: random words anywhere in a segment in use, then every verb and a page turn: a miss or a clear result, never a
 * crash, a hang, or a read beyond the mapping.
 *
 * The late creator: one that found the file empty is stopped at each of its system calls in turn, until it holds the
 * creation lock; meanwhile another creates the segment and writes. The late one must find that segment.
 *
 * Its power: a creator that does not look again once it has the lock is caught at once (by racing it was not in 20 s).
 */
#include "census.h"
#include "scenes.h"

#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { CREATORS = 64, FEW_CREATORS = 4, SEGMENT_BYTES = 1 << 20, VERBS_ON_GARBAGE = 400 };
enum { ROUNDS, CREATED, CREATE_KILLS, HEADERS, GARBAGE, LATE };

static struct model {
    a64 go, created, incarnation, bytes, attached;
} *model;

static void create_one(int fd, uint64_t bytes)
{
    struct attachment a;
    struct segment_config config = plain_config(bytes);
    while (!load_acquire(&model->go)) {
    }
    enum attach_result r = attach_patiently(&a, fd, &config);
    REQUIRE(r == ATTACHED || r == ATTACH_CREATED, "attach: %d", (int)r);
    uint64_t none = 0, incarnation = load_acquire(&a.header->incarnation);
    if (!cas(&model->incarnation, &none, incarnation))
        REQUIRE(none == incarnation, "two segments in one file");
    none = 0;
    if (!cas(&model->bytes, &none, a.geo.total_bytes))
        REQUIRE(none == a.geo.total_bytes, "two sizes of one segment");
    if (r == ATTACH_CREATED)
        REQUIRE(a.geo.total_bytes == bytes, "created with another's size");
    atomic_fetch_add(&model->created, r == ATTACH_CREATED);
    atomic_fetch_add(&model->attached, 1);
    struct named_key k = key_named(&a, 1);
    unsigned char value[64];
    struct write w = write_of(&k, value, value_make(value, 1, 1, 40));
    enum store stored = cache_set(&a, &w);
    REQUIRE(stored == STORED || stored == STORE_LOST || stored == STORE_NO_ROOM, "set: %d", (int)stored);
    segment_detach(&a);
}

static void creation_round(struct chance *c, int creators, bool killing)
{
    pid_t pid[CREATORS];
    int file = memory_file();
    memset(model, 0, sizeof *model);
    for (int i = 0; i < creators; i++) {
        uint64_t bytes = SEGMENT_BYTES + (uint64_t)chance_below(c, 64) * 65536;
        pid[i] = fork();
        REQUIRE(pid[i] >= 0, "fork");
        if (pid[i] == 0) {
            create_one(reopened(file), bytes);
            _exit(0);
        }
    }
    store_release(&model->go, 1);
    for (int i = 0; killing && i < creators / 2; i++) {
        nap_us(chance_below(c, 200));
        kill(pid[i], SIGKILL);
    }
    for (int i = 0; i < creators; i++) {
        int status;
        waitpid(pid[i], &status, 0);
        bool killed = killing && i < creators / 2 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        REQUIRE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "a creator ended with %x", (unsigned)status);
        if (killed)
            tally(CREATE_KILLS);
    }
    uint64_t created = load_acquire(&model->created);
    REQUIRE(created == 1 || (killing && created == 0), "%llu segments were created", (unsigned long long)created);
    tally(ROUNDS);
    close(file);
}

/* ---- the late creator ---- */

enum { LATE_CALLS_MAX = 200 };

static void create_late(void *file)
{
    static struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int fd = reopened(*(int *)file);
    raise(SIGSTOP);
    enum attach_result r = segment_attach(&a, fd, &config);
    struct named_key k = key_named(&a, 1);
    unsigned char value[64];
    uint32_t bytes;
    if (load_acquire(&model->attached)) {
        REQUIRE(r == ATTACHED, "a late creator: %d", (int)r);
        REQUIRE(read_value(&a, &k, value, &bytes) && value_number(value, bytes, 1) == 7, "a late creator began anew");
    }
    raise(SIGSTOP);
}

/* Can another create now, or does the late one hold the lock? */
static bool lock_is_free(int file)
{
    struct stat s;
    struct attachment probe = {.fd = reopened(file)};
    REQUIRE(fstat(probe.fd, &s) == 0, "fstat");
    probe.file_inode = (uint64_t)s.st_ino, probe.file_device = (uint64_t)s.st_dev;
    void *held = roster_hold_byte(&probe, LOCK_CREATE);
    roster_release_byte(held);
    close(probe.fd);
    return held != NULL;
}

static void create_meanwhile(int file)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    unsigned char value[64];
    attach_to(&a, file, &config);
    struct named_key k = key_named(&a, 1);
    struct write w = write_of(&k, value, value_make(value, 1, 7, 40));
    REQUIRE(cache_set(&a, &w) == STORED, "set");
    store_release(&model->attached, 1);
    segment_detach(&a);
}

/* Stopped at its nth system call. False: it holds the lock by then, or has ended. */
static bool late_by(int calls)
{
    int file = memory_file(), signal = 0;
    memset(model, 0, sizeof *model);
    pid_t pid = traced_child(create_late, &file);
    for (int i = 0; i < calls && signal != SIGSTOP; i++)
        signal = resume(pid, PTRACE_SYSCALL);
    bool in_time = signal != SIGSTOP && lock_is_free(file);
    if (in_time) {
        create_meanwhile(file);
        REQUIRE(resume(pid, PTRACE_CONT) == SIGSTOP, "a late creator got a signal");
        tally(LATE);
    }
    end_child(pid);
    close(file);
    return in_time;
}

static void check_late_creators(void)
{
    int calls = 0;
    while (can_trace() && late_by(calls))
        REQUIRE(++calls < LATE_CALLS_MAX, "the creation lock is never held");
}

/* ---- headers ---- */

struct wrong {
    size_t at, bytes;
    enum attach_result result;
};

#define FIELD(name, expected) {offsetof(struct header, name), sizeof(((struct header *)0)->name), expected}
static const struct wrong wrongs[] = {
    FIELD(magic, ATTACH_GARBAGE),       FIELD(fingerprint, ATTACH_LAYOUT),      FIELD(total_bytes, ATTACH_GARBAGE),
    FIELD(roster_slots, ATTACH_GARBAGE), FIELD(source_slots, ATTACH_GARBAGE),   FIELD(lease_slots, ATTACH_GARBAGE),
    FIELD(ring_slots, ATTACH_GARBAGE),  FIELD(tag_slots, ATTACH_GARBAGE),       FIELD(bucket_count, ATTACH_GARBAGE),
    FIELD(entry_bytes, ATTACH_GARBAGE),
    FIELD(page_count, ATTACH_GARBAGE),  FIELD(hash_key, ATTACH_HASH_KEY),       FIELD(time_namespace, ATTACH_TIME_NAMESPACE),
};

static int made_segment(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int file = memory_file();
    attach_to(&a, file, &config);
    segment_detach(&a);
    return file;
}

static void refuse(int file, const struct wrong *w, uint64_t flip)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct stat before, after;
    uint64_t bytes = 0;
    size_t n = w->bytes < 8 ? w->bytes : 8;
    REQUIRE(pread(file, &bytes, n, (off_t)w->at) == (ssize_t)n, "pread");
    uint64_t wrong = bytes ^ (n == 4 ? (uint32_t)flip | 1 : flip);
    REQUIRE(pwrite(file, &wrong, n, (off_t)w->at) == (ssize_t)n && fstat(file, &before) == 0, "pwrite");
    enum attach_result r = segment_attach(&a, reopened(file), &config);
    REQUIRE(r == w->result, "field at %zu flipped by %llx: result %d, not %d", w->at, (unsigned long long)flip, (int)r, (int)w->result);
    REQUIRE(fstat(file, &after) == 0 && before.st_size == after.st_size && before.st_blocks == after.st_blocks, "the file was touched");
    REQUIRE(pwrite(file, &bytes, n, (off_t)w->at) == (ssize_t)n, "pwrite");
    tally(HEADERS);
}

static void check_headers(struct chance *c)
{
    int file = made_segment();
    for (size_t i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++)
        for (int n = 0; n < 64; n++)
            refuse(file, &wrongs[i], n ? chance_next(c) | 1 : 1);
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config); /* all is put back: it is good again */
    segment_detach(&a);
    REQUIRE(ftruncate(file, SEGMENT_BYTES - 4096) == 0, "ftruncate");
    REQUIRE(segment_attach(&a, reopened(file), &config) == ATTACH_GARBAGE, "a file shorter than its segment");
    REQUIRE(ftruncate(file, 100) == 0 && segment_attach(&a, reopened(file), &config) != ATTACHED, "a file shorter than a header");
    close(file);
}

/* ---- garbage ---- */

static void put_garbage(struct attachment *a, struct chance *c)
{
    const uint64_t regions[] = {0, a->geo.roster_at, a->geo.leases_at, a->geo.ring_at, a->geo.fences_at, a->geo.tag_fences_at,
                                a->geo.index_at, a->geo.page_words_at, a->geo.pages_at, a->geo.total_bytes};
    uint32_t region = chance_below(c, 9), n = chance_below(c, 4) ? 200 : 20000;
    bool everywhere = chance_below(c, 8) == 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t low = everywhere ? 0 : regions[region], high = everywhere ? a->geo.total_bytes : regions[region + 1];
        a64 *at = (a64 *)(void *)(a->base + low + (chance_next(c) % (high - low) & ~7ull));
        uint64_t word = chance_next(c);
        switch (chance_below(c, 4)) {
        case 0:
            word = 0;
            break;
        case 1:
            word &= 0xffff0000000fffffull; /* page and generation of a likely place, an offset of any kind */
            break;
        case 2:
            word = load_relaxed(at) ^ 1ull << (word & 63);
            break;
        default:
            break;
        }
        store_relaxed(at, word);
    }
}

static void take_and_release(struct attachment *a, uint64_t hash)
{
    struct lease_hold hold;
    lease_wanted(a, hash, &hold);
    lease_release(a, &hold);
}

static void verbs_on(struct attachment *a, struct chance *c)
{
    static unsigned char value[VALUE_BYTES_LIMIT], out[32 << 20];
    unsigned char payload[WIRE_RECORD_BYTES_MAX] = {WIRE_KEY}, packed[4096];
    for (int i = 0; i < VERBS_ON_GARBAGE; i++) {
        uint32_t key = chance_below(c, 100), used, applied, bytes;
        struct named_key k = key_named(a, key);
        struct write w = write_of(&k, value, value_make(value, key, 1, chance_below(c, 8) ? 100 : 20000));
        uint64_t cursor = chance_next(c) >> chance_below(c, 64);
        memcpy(payload + 1, &k.hash, 8);
        switch (chance_below(c, 16)) {
        case 0:
            cache_add(a, &w);
            break;
        case 1:
            cache_fill(a, &w, ring_tail(a), 0);
            break;
        case 2:
            cache_delete(a, k.hash);
            break;
        case 3:
            cache_touch(a, k.hash, k.text, k.bytes, 1000);
            break;
        case 4:
            relay_apply(a, 3, payload, 9, &applied);
            break;
        case 5:
            relay_pack(a, &cursor, 100, packed, sizeof packed, &used);
            break;
        case 6:
            relay_heal(a, &cursor, 100);
            break;
        case 7:
            recovery_sweep(a);
            break;
        case 8:
            take_and_release(a, k.hash);
            break;
        case 9:
            cache_set_fenced(a, &w, ring_tail(a), clock_ms(a));
            break;
        case 10:
        case 11:
            cache_set(a, &w);
            break;
        default:
            read_value(a, &k, out, &bytes);
        }
    }
    census_count(a);
}

static void live_with_garbage(void *with)
{
    struct chance c = {*(uint64_t *)with};
    struct attachment a, b;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    config.has_bridge = chance_below(&c, 2);
    int file = memory_file();
    attach_to(&a, file, &config);
    verbs_on(&a, &c);
    put_garbage(&a, &c);
    alarm(20);
    verbs_on(&a, &c);
    if (segment_attach(&b, reopened(file), &config) <= ATTACH_CREATED) {
        verbs_on(&b, &c);
        segment_detach(&b);
    }
    segment_detach(&a);
}

static void check_garbage(uint64_t seed)
{
    REQUIRE(in_child(live_with_garbage, &seed), "garbage of seed %llx", (unsigned long long)seed);
    tally(GARBAGE);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_segment");
    if (argc > 3 && strcmp(argv[2], "garbage") == 0) { /* again, in this process: for a debugger */
        uint64_t seed = strtoull(argv[3], NULL, 16);
        live_with_garbage(&seed);
        return 0;
    }
    model = shared_zeroes(sizeof *model);
    struct chance c = {(uint64_t)(seconds_now() * 1e9)};
    check_late_creators();
    check_headers(&c);
    for (double until = seconds_now() + torture.seconds / 2; seconds_now() < until;)
        creation_round(&c, chance_below(&c, 16) ? FEW_CREATORS : CREATORS, chance_below(&c, 2));
    for (double until = seconds_now() + torture.seconds / 2; seconds_now() < until;)
        check_garbage(chance_next(&c));
    printf("segment: %llu rounds of up to %d creators, %llu of them killed, %llu late; %llu corrupt headers refused; %llu segments of garbage\n",
           (unsigned long long)tallied(ROUNDS), CREATORS, (unsigned long long)tallied(CREATE_KILLS), (unsigned long long)tallied(LATE), (unsigned long long)tallied(HEADERS),
           (unsigned long long)tallied(GARBAGE));
    return 0;
}
