/* torture.c - see torture.h. */
#include "torture.h"

#include "relay_buckets.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct torture torture;
static const char *program = "?";

/* ---- failing ---- */

_Noreturn void fail_at(const char *file, int line, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s: FAILED at %s:%d: %s\n", program, file, line, text);
    fflush(stderr);
    if (!torture.stop)
        abort(); /* a fuzzer keeps the input by which it died */
    store_release(torture.stop, 1);
    _exit(1);
}

static void on_alarm(int unused)
{
    (void)unused;
    static const char text[] = ": FAILED: hangs\n";
    ssize_t n = write(2, program, strlen(program));
    n = write(2, text, sizeof text - 1);
    (void)n;
    kill(0, SIGKILL); /* our own process group: torture_begin made one */
}

/* ---- chance ---- */

uint64_t chance_next(struct chance *c)
{
    c->state += 0x9e3779b97f4a7c15ull;
    uint64_t z = c->state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void nap_us(long us)
{
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}

/* ---- segments ---- */

int memory_file(void)
{
    int fd = memfd_create("cachee-torture", MFD_CLOEXEC);
    REQUIRE(fd >= 0, "memfd_create: %s", strerror(errno));
    return fd;
}

int reopened(int fd)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    REQUIRE(again >= 0, "%s: %s", path, strerror(errno));
    return again;
}

void *shared_zeroes(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED, "mmap: %s", strerror(errno));
    return p;
}

struct segment_config plain_config(uint64_t bytes)
{
    return (struct segment_config){
        .total_bytes = bytes, .hash_key = {0x0123456789abcdefull, 0xfedcba9876543210ull}, .has_hash_key = true,
        .isolation_ttl_ms = 10000, .host = "here", .name = "torture",
    };
}

enum attach_result attach_patiently(struct attachment *a, int file, const struct segment_config *config)
{
    enum attach_result r;
    while ((r = segment_attach(a, reopened(file), config)) == ATTACH_BUSY)
        nap_us(200);
    return r;
}

void attach_to(struct attachment *a, int fd, const struct segment_config *config)
{
    enum attach_result r = attach_patiently(a, fd, config);
    REQUIRE(r == ATTACHED || r == ATTACH_CREATED, "attach: result %d, %s", (int)r, strerror(errno));
    if (r == ATTACH_CREATED)
        store_release(&a->header->serve_until_ms, (uint64_t)1 << 62);
}

uint64_t fence_whole_map(struct attachment *a, uint16_t source, const struct bucket_map *map, uint32_t steps_max)
{
    struct map_fencing f = {0};
    do
        if (!relay_map_fence(a, source, map, steps_max, &f))
            return RING_CORRUPT;
    while (f.at);
    return f.sequence;
}

/* ---- values ---- */

static uint64_t filler(uint32_t key, uint64_t number, uint32_t i)
{
    struct chance c = {number * 0x100000001b3ull ^ (uint64_t)key << 40 ^ i};
    return chance_next(&c);
}

uint32_t value_make(unsigned char *out, uint32_t key, uint64_t number, uint32_t bytes)
{
    uint64_t head[2] = {key, number};
    bytes = bytes < sizeof head ? (uint32_t)sizeof head : bytes;
    memcpy(out, head, sizeof head);
    for (uint32_t at = sizeof head, i = 0; at < bytes; at += 8, i++) {
        uint64_t word = filler(key, number, i);
        memcpy(out + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
    return bytes;
}

uint64_t value_number(const unsigned char *value, uint32_t bytes, uint32_t key)
{
    uint64_t head[2];
    REQUIRE(bytes >= sizeof head, "a value of %u bytes was never written", bytes);
    memcpy(head, value, sizeof head);
    REQUIRE(head[0] == key, "torn or misplaced: key %u read a value of key %llu", key, (unsigned long long)head[0]);
    for (uint32_t at = sizeof head, i = 0; at < bytes; at += 8, i++) {
        uint64_t word = filler(key, head[1], i);
        REQUIRE(memcmp(value + at, &word, bytes - at < 8 ? bytes - at : 8) == 0, "torn: key %u value %llu differs at byte %u of %u",
                key, (unsigned long long)head[1], at, bytes);
    }
    return head[1];
}

struct named_key key_named(const struct attachment *a, uint32_t key)
{
    struct named_key k;
    k.bytes = (uint32_t)snprintf(k.text, sizeof k.text, "key:%u", key);
    k.hash = hash_key(a->hash_key, k.text, k.bytes);
    return k;
}

enum lease lease_wanted(struct attachment *a, uint64_t hash, struct lease_hold *hold)
{
    struct lease_wish wish = {.hash = hash, .token = ring_tail(a), .now_ms = clock_real_ms()};
    return lease_take(a, &wish, hold);
}

struct write write_of(const struct named_key *key, const void *value, uint32_t bytes)
{
    return (struct write){.hash = key->hash, .key = key->text, .key_bytes = key->bytes, .value = value, .value_bytes = bytes};
}

bool read_value(struct attachment *a, const struct named_key *key, unsigned char *out, uint32_t *bytes)
{
    for (int tries = 0; tries < 16; tries++) {
        struct entry_ref e;
        if (cache_find(a, key->hash, key->text, key->bytes, &e) != FOUND)
            return false;
        *bytes = e.value_bytes;
        bool whole = cache_read(a, &e, out);
        if (!cache_confirm(a, &e))
            continue;
        if (!whole)
            cache_drop_broken(a, &e);
        return whole;
    }
    return false;
}

static bool read_anew(struct attachment *a, const struct named_key *key, uint32_t named, struct near *near)
{
    static _Thread_local unsigned char value[VALUE_BYTES_LIMIT + 64];
    near->number = 0;
    for (int tries = 0; tries < 16; tries++) {
        if (cache_find(a, key->hash, key->text, key->bytes, &near->e) != FOUND)
            return false;
        bool whole = cache_read(a, &near->e, value);
        if (!cache_confirm(a, &near->e))
            continue;
        if (whole)
            near->number = value_number(value, near->e.value_bytes, named);
        return whole;
    }
    return false;
}

bool read_near(struct attachment *a, const struct named_key *key, uint32_t named, struct near *near, uint64_t *number)
{
    bool still = false;
    enum finding f = near->number ? cache_find_again(a, &near->e, &still) : FOUND_NOTHING;
    if (still && f != FOUND)
        return false;
    if ((!still || !cache_confirm(a, &near->e)) && !read_anew(a, key, named, near))
        return false;
    *number = near->number;
    return true;
}

/* ---- workers ---- */

static struct {
    worker_fn work;
    pid_t pid[WORKERS_MAX];
    pthread_t thread[WORKERS_MAX];
    uint64_t seed[WORKERS_MAX], seeds;
} crew;

void torture_begin(int argc, char **argv, const char *name)
{
    program = name;
    setpgid(0, 0);
    torture.seconds = argc > 1 ? atof(argv[1]) : 2;
    torture.threads = argc > 2 && strcmp(argv[2], "threads") == 0;
    torture.stop = shared_zeroes(4096);
    torture.counters = (a64 *)torture.stop + 64;
    crew.seeds = (uint64_t)(seconds_now() * 1e9) ^ (uint64_t)getpid() << 32;
    signal(SIGALRM, on_alarm);
    alarm((unsigned)(torture.seconds * 4) + 60);
}

uint64_t tallied(int which) { return load_relaxed(&torture.counters[which]); }

static void *run_thread(void *number)
{
    int n = (int)(intptr_t)number;
    crew.work(n, crew.seed[n]);
    return NULL;
}

static void start(int n)
{
    crew.seed[n] = crew.seeds += 0x51ed2701;
    if (torture.threads) {
        REQUIRE(pthread_create(&crew.thread[n], NULL, run_thread, (void *)(intptr_t)n) == 0, "no thread");
        return;
    }
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a program that fails leaves nobody at work */
        crew.work(n, crew.seed[n]);
        fflush(stdout);
        _exit(0);
    }
    crew.pid[n] = pid;
}

static void finish_worker(int n)
{
    int status = 0;
    if (torture.threads) {
        pthread_join(crew.thread[n], NULL);
        return;
    }
    REQUIRE(waitpid(crew.pid[n], &status, 0) == crew.pid[n], "waitpid: %s", strerror(errno));
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        fprintf(stderr, "%s: FAILED: a worker ended with status %x\n", program, (unsigned)status);
        _exit(1);
    }
}

static uint64_t kill_some(int count, int spared, double kills_per_second, double until)
{
    struct chance c = {crew.seeds};
    uint64_t kills = 0;
    while (seconds_now() < until && !torture_over()) {
        if (torture.threads || kills_per_second <= 0) {
            nap_us(10000);
            continue;
        }
        nap_us((long)(chance_below(&c, 2000) * 1000.0 / kills_per_second));
        int n = spared + (int)chance_below(&c, (uint32_t)(count - spared));
        kill(crew.pid[n], SIGKILL);
        finish_worker(n);
        start(n);
        kills++;
    }
    return kills;
}

uint64_t torture_run(worker_fn work, int count, int spared, double kills_per_second, double seconds)
{
    REQUIRE(count <= WORKERS_MAX, "%d workers", count);
    crew.work = work;
    store_release(torture.stop, 0);
    fflush(stdout);
    for (int n = 0; n < count; n++)
        start(n);
    uint64_t kills = kill_some(count, spared, kills_per_second, seconds_now() + seconds);
    store_release(torture.stop, 1);
    for (int n = 0; n < count; n++)
        finish_worker(n);
    return kills;
}

bool in_child(void (*fn)(void *), void *with)
{
    fflush(stdout);
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        alarm(20);
        fn(with);
        _exit(0);
    }
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
