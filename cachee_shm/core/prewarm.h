/* prewarm.h - which invalidated keys are worth loading before somebody reads them.
 *
 * After an invalidation, the next read must wait for a load. For each key, an online logistic regression over
 * what the segment knows anyway estimates p: the probability that the key is read before it is written again
 * and before its entry would have been evicted. Then the delay is chosen after which a load is worth most. A
 * read before the delay is over waits as without pre-warming. A write before the delay is over saves the
 * load. An avoided cold read is worth `prewarm_weight` wasted loads.
 *
 * The budget. Each load on demand adds a share of a token (prewarm_budget). A load ahead costs a token, which
 * comes back when its value is read. As the tokens run out, the price rises, until only keys that will almost
 * certainly be read are loaded. So the load of the origin stays within the budget, however wrong p is.
 *
 *   record     | tag 16 | last write 25 | class 4 | estimate 4 | age 5 | frequency and queue 4 | history 4 |
 *              | state 2 |      a word, made when a cached key is first invalidated by another host
 *
 *   state      IDLE    no outcome is expected: the last write's is known, or the key was not cached
 *              WAIT    evicted, and not loaded: the next read misses
 *              QUEUED  to be loaded later: its order is in the mailbox, or with the process that loads
 *              WARM    loaded ahead, and not read yet
 *
 *   last write in ticks of 16 ms, modulo 2^25: six days
 *
 * All of this is advice: no promise depends on it. A record changes by one CAS, and the process that wins it
 * learns from the outcome. Weights, shapes and the horizon are stored without locks. Updates may be lost, and
 * a process that dies leaves nothing to repair. Each number is bounded when it is read, so garbage costs a
 * needless load, or one that is not made.
 *
 * A hit writes nothing here, except the first hit of an entry that was loaded ahead (its counter is 0). No
 * clock is read here: `now_ms` is an argument.
 */
#ifndef CACHEE_PREWARM_H
#define CACHEE_PREWARM_H

#include "policy.h"

enum prewarm_state { PREWARM_IDLE, PREWARM_WAIT, PREWARM_QUEUED, PREWARM_WARM };

struct prewarm_copy { /* of the entry that a write has evicted */
    uint64_t age_ms;  /* since it was loaded */
    uint32_t frequency, key_bytes;
    bool in_main;
    bool has_tags; /* then it is not loaded ahead: the origin may not know tags that a reader has chosen */
    unsigned char key[KEY_BYTES_MAX];
};

/* Another host has written the key. `copy`: of the entry that was evicted by that; NULL: there was none. */
void prewarm_written(struct attachment *a, uint64_t hash, const struct prewarm_copy *copy, uint64_t now_ms);

/* A process of this host has written the key: that is the outcome of the write before. */
void prewarm_overwritten(struct attachment *a, uint64_t hash, uint64_t now_ms);

/* A read found nothing. */
void prewarm_missed(struct attachment *a, uint64_t hash, uint64_t now_ms);

/* A read found an entry whose counter was 0. */
void prewarm_hit(struct attachment *a, uint64_t hash, uint64_t now_ms);

/* An entry was evicted for room, `age_ms` after it was loaded. */
void prewarm_evicted(struct attachment *a, uint64_t hash, uint32_t frequency, uint64_t age_ms,
                     uint64_t now_ms);

/* A load on demand: a process asks the origin because the value was missing. */
void prewarm_demanded(struct attachment *a);

/* ---- for the process that loads ---- */

struct prewarm_order { /* a key to be loaded */
    uint64_t hash, due_ms;
    float p;            /* of a read after due_ms, if the key is neither read nor written until then */
    uint32_t key_bytes; /* 0: an earlier order has the key */
    unsigned char key[KEY_BYTES_MAX];
};

/* Take the oldest order out of the mailbox. False: there is none. */
bool prewarm_take(struct attachment *a, struct prewarm_order *order);

/* Called at due_ms. True: the key was neither read nor written since, and is still worth a load; the load is
 * paid for. */
bool prewarm_claim(struct attachment *a, uint64_t hash, float p);

/* Was the evicted entry in the main queue? Then its successor goes there. */
bool prewarm_was_in_main(const struct attachment *a, uint64_t hash);

/* The value was loaded, and its entry is about to be published. fail: the entry was refused after all. */
void prewarm_begin_fill(struct attachment *a, uint64_t hash);
void prewarm_fail_fill(struct attachment *a, uint64_t hash);

/* How many orders the process that loads keeps at most. It drops further ones. */
uint32_t prewarm_orders_max(const struct attachment *a);

/* ---- for people ---- */

enum { PREWARM_FEATURES = 4 };

struct prewarm_view {
    enum prewarm_state state;
    uint32_t bucket[PREWARM_FEATURES]; /* frequency and queue, age, history, estimate */
    float weight[PREWARM_FEATURES], bias, p;
    double price;      /* the p above which a load without a delay is worth it */
    int64_t delay_ms;  /* of a load, if the key were written now; -1: it would not be loaded */
    uint64_t since_ms; /* the last write */
};

/* What pre-warming knows of a key. False: nothing. */
bool prewarm_look(const struct attachment *a, uint64_t hash, uint64_t now_ms, struct prewarm_view *view);

#endif
