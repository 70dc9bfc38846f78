/* torture.h - what the torture programs share: segments, workers that are killed, values that check themselves.
 *
 * A program takes its length and mode from the command line:  torture_x [seconds] [threads]
 * Workers are processes by default. With `threads` they are threads of one process, each with an attachment
 * of its own to the one file: that is for ThreadSanitizer, and nobody is killed.
 *
 * Nothing here asserts a time. A program that hangs is ended by its alarm, which is a failure.
 */
#ifndef CACHEE_TORTURE_H
#define CACHEE_TORTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "relay.h"
#include "segment.h"

enum { WORKERS_MAX = 64, VALUE_BYTES_LIMIT = 8 * PAGE_BYTES_MAX };

/* ---- failing ---- */

_Noreturn void fail_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define REQUIRE(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            FAIL(__VA_ARGS__);                                                                                         \
    } while (0)

/* ---- chance ---- */

struct chance {
    uint64_t state;
};
uint64_t chance_next(struct chance *c);
static inline uint32_t chance_below(struct chance *c, uint32_t n) { return (uint32_t)((chance_next(c) >> 32) % n); }

/* ---- segments ---- */

int memory_file(void);          /* an empty file for a segment */
int reopened(int fd);           /* a second description of it */
void *shared_zeroes(size_t bytes); /* memory that workers share beside the segment: the model to check against */

struct segment_config plain_config(uint64_t bytes);
/* segment_attach, again and again while another process makes the segment. */
enum attach_result attach_patiently(struct attachment *a, int file, const struct segment_config *config);
void attach_to(struct attachment *a, int fd, const struct segment_config *config);

/* A map of buckets: both passes over the fences. Returns the version for relay_map_evict, or RING_CORRUPT. */
struct bucket_map;
uint64_t fence_whole_map(struct attachment *a, uint16_t source, const struct bucket_map *map, uint32_t steps_max);

/* ---- values ---- */

/* A value names its key and its number, and every further byte follows from both. */
uint32_t value_make(unsigned char *out, uint32_t key, uint64_t number, uint32_t bytes);
/* The number of a value, after checking all of it. Fails the program if it is torn or another key's. */
uint64_t value_number(const unsigned char *value, uint32_t bytes, uint32_t key);

struct named_key {
    char text[24];
    uint32_t bytes;
    uint64_t hash;
};
struct named_key key_named(const struct attachment *a, uint32_t key);

/* Ask for a lease as a caller does who began this instant, and whom any load of the key serves. */
enum lease lease_wanted(struct attachment *a, uint64_t hash, struct lease_hold *hold);
struct write write_of(const struct named_key *key, const void *value, uint32_t bytes);

/* A get as the binding does it: 0 = a miss, 1 = a value. */
bool read_value(struct attachment *a, const struct named_key *key, unsigned char *out, uint32_t *bytes);

/* A get as the near cache does it: what was read before, if the segment says that it still stands, else read anew. */
struct near {
    struct entry_ref e;
    uint64_t number; /* of the value; 0: nothing was read yet */
};
bool read_near(struct attachment *a, const struct named_key *key, uint32_t named, struct near *near, uint64_t *number);

/* ---- workers ---- */

struct torture {
    double seconds;
    bool threads;
    a64 *stop;     /* shared */
    a64 *counters; /* shared, COUNTERS of them, for the report */
};
enum { COUNTERS = 32 };
extern struct torture torture;

void torture_begin(int argc, char **argv, const char *name);
static inline bool torture_over(void) { return load_relaxed(torture.stop) != 0; }
static inline void tally(int which) { add_relaxed(&torture.counters[which], 1); }
uint64_t tallied(int which);

typedef void (*worker_fn)(int number, uint64_t seed);

/* Run `count` workers for `seconds`; when kills_per_second is not 0, some are killed at any instruction and
 * replaced (never those below `spared`). Returns the kills. */
uint64_t torture_run(worker_fn work, int count, int spared, double kills_per_second, double seconds);

/* Run one function in a child: true if it returned and exited well. */
bool in_child(void (*fn)(void *), void *with);

double seconds_now(void);
void nap_us(long us);

#endif
