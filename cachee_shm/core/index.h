/* index.h - the hash table: buckets of eight words, two candidate buckets for each key, no relocation.
 *
 * A word is the only thing that makes an entry reachable, and every change of one is a single CAS. A new key
 * is inserted pending (unseen by readers), judged against the fence and against other words of its key, and
 * only then made visible; whoever meets a pending word may finish it, so a dead writer leaves nothing that
 * blocks. An overwrite in place needs neither where every later event would have removed the old word; where
 * a peer's event may have spared it, it is pending too.
 */
#ifndef CACHEE_INDEX_H
#define CACHEE_INDEX_H

#include "policy.h"
#include "ring.h"

enum { CANDIDATE_WORDS = 2 * BUCKET_WORDS };

struct candidates { /* where a key's words can be */
    a64 *bucket[2];
    uint64_t tag_bits; /* never 0, so that an empty word is nobody's */
};

enum publish { PUBLISH_OK, PUBLISH_LOST, PUBLISH_NO_ROOM };

struct candidates index_candidates(const struct attachment *a, uint64_t hash);

static inline a64 *index_word(const struct candidates *c, int i)
{
    return &c->bucket[i / BUCKET_WORDS][i % BUCKET_WORDS];
}

/* A hint: this hash is looked up soon. */
static inline void index_prefetch(const struct attachment *a, uint64_t hash)
{
    struct candidates c = index_candidates(a, hash);
    prefetch_to_write(c.bucket[0]);
    prefetch_to_write(c.bucket[1]);
}

/* The same, after index_prefetch: its entry, if it is where most are. */
void index_prefetch_entry(const struct attachment *a, uint64_t hash);

/* Find the visible entry of a key. The copy that follows must be confirmed (entry_confirm). */
bool index_find(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes,
                struct entry_ref *e);

static inline int index_seek(const a64 *bucket, int i, uint64_t tag_bits)
{
    while (i < BUCKET_WORDS && ((load_acquire(&bucket[i]) ^ tag_bits) & INDEX_TAG_MASK)) /* PUBLISH */
        i++;
    return i;
}

/* The next word from number `i` on that may be the key's; most tell at a glance that they are not.
 * CANDIDATE_WORDS: none.
 *
 *   for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1)) */
static inline int index_next(const struct candidates *c, int i)
{
    int first = i < BUCKET_WORDS ? index_seek(c->bucket[0], i, c->tag_bits) : i;
    return first < BUCKET_WORDS ? first
                                : BUCKET_WORDS + index_seek(c->bucket[1], first - BUCKET_WORDS, c->tag_bits);
}

/* Is there an entry of this hash at this word, visible or pending? */
bool index_look(const struct attachment *a, a64 *at, uint64_t tag_bits, uint64_t hash, struct entry_ref *e);

/* Is an entry that was found before still its key's visible one? Refreshes what a hit needs of its words. */
bool index_still(struct entry_ref *e);

/* Does nothing newer stand against this entry: clear, its range, its tags? (Its key's own events remove its
 * word.) */
bool entry_valid(const struct attachment *a, const struct entry_ref *e);

static inline bool entry_expired(const struct entry_ref *e, uint64_t now_ms)
{
    return entry_expires_ms(e) && entry_expires_ms(e) <= now_ms;
}

/* Make the committed entry at `place` the key's value, unless something stands against it: see the table in
 * index.c. PUBLISH_OK: it became visible, and may be gone again. Else it never was and never will be. */
enum publish index_publish(struct attachment *a, const struct place *place, uint64_t hash, uint64_t now_ms);

/* Remove every word of the hash whose version is lower than `version`. Returns how many. */
uint32_t index_kill_lower(struct attachment *a, uint64_t hash, uint64_t version);

/* Which entries an event leaves alone although their version is lower. `what` is what the caller gave with
 * it. */
typedef bool index_spares(struct attachment *a, const struct entry_ref *e, const void *what);
/* a peer's event */
bool index_spares_local(struct attachment *a, const struct entry_ref *e, const void *what);

/* The same as index_kill_lower, but for the entries that are spared; and the same at one word of the
 * table. */
uint32_t index_kill_unless(struct attachment *a, uint64_t hash, uint64_t version, index_spares *spares,
                           const void *what);
bool index_kill_word_unless(struct attachment *a, a64 *at, uint64_t hash, uint64_t version,
                            index_spares *spares, const void *what);

/* Remove one word that was seen, visible or a dead writer's. False: it was changed meanwhile (beyond its
 * frequency bits). */
bool index_kill(a64 *at, uint64_t word);

/* Remove the word of an entry that was looked at, visible or pending. False: it changed, perhaps to visible;
 * look again. */
bool index_remove(const struct entry_ref *e);

/* Find the word that names exactly this place. False: the entry is dead. */
bool index_names(const struct attachment *a, const struct entry_ref *e, a64 **at, uint64_t *word);

/* Swap one visible word for a copy of its entry at `place`, with this frequency. False: it was changed
 * meanwhile. */
bool index_move(a64 *at, uint64_t word, const struct place *place, uint32_t frequency);

#endif
