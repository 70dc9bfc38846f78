/* index.h - the hash table: buckets of eight words, two candidate buckets for each key, no relocation.
 *
 * Only its word makes an entry reachable, and every change of a word is a single CAS. The word of a new key
 * is inserted pending (readers ignore it), compared with the fence and with the other words of its key, and
 * only then made visible. Any process that meets a pending word may finish it, so a dead writer blocks
 * nothing. An overwrite in place is visible at once if every later event would have removed the old word;
 * if a peer's event may have spared the old word, the new one goes in pending too.
 */
#ifndef CACHEE_INDEX_H
#define CACHEE_INDEX_H

#include "prewarm.h"
#include "ring.h"

enum { CANDIDATE_WORDS = 2 * BUCKET_WORDS };

struct candidates { /* where a key's words can be */
    a64 *bucket[2];
    uint64_t tag_bits; /* never 0, so that an empty word matches no key */
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

/* A hint, after index_prefetch: fetch the entry too, if it is in its first bucket. */
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

/* The next word from number `i` on that may be the key's: one with the same tag bits. CANDIDATE_WORDS:
 * none.
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

/* Is an entry that was found before still its key's visible entry? Refreshes the parts of its words that a
 * hit needs. */
bool index_still(struct entry_ref *e);

/* Is no newer clear, range event or tag event against this entry? (An event of its own key removes its
 * word.) */
bool entry_valid(const struct attachment *a, const struct entry_ref *e);

static inline bool entry_expired(const struct entry_ref *e, uint64_t now_ms)
{
    return entry_expires_ms(e) && entry_expires_ms(e) <= now_ms;
}

/* Make the committed entry at `place` the key's value, unless the table in index.c forbids it. `ahead`:
 * loaded before anybody asked, so a new key begins with counter 0. PUBLISH_OK: the entry became visible,
 * and may be gone again. Any other result: it never was visible and never will be. */
enum publish index_publish(struct attachment *a, const struct place *place, uint64_t hash, uint64_t now_ms,
                           bool ahead);

/* Remove every word of the hash whose version is lower than `version`. Returns how many. */
uint32_t index_kill_lower(struct attachment *a, uint64_t hash, uint64_t version);

/* A predicate: does an event spare this entry although its version is lower? `what` is the caller's
 * argument. */
typedef bool index_spares(struct attachment *a, const struct entry_ref *e, const void *what);
/* a peer's event */
bool index_spares_local(struct attachment *a, const struct entry_ref *e, const void *what);

/* As index_kill_lower, except for the entries that are spared. index_kill_word_unless: only at one word of
 * the table. */
uint32_t index_kill_unless(struct attachment *a, uint64_t hash, uint64_t version, index_spares *spares,
                           const void *what);
bool index_kill_word_unless(struct attachment *a, a64 *at, uint64_t hash, uint64_t version,
                            index_spares *spares, const void *what);

/* Remove a word that was read, visible or a dead writer's. False: it has changed meanwhile (apart from
 * INDEX_MARKS). */
bool index_kill(a64 *at, uint64_t word);

/* Remove the word of an entry that was read, visible or pending. False: the word has changed, perhaps to
 * visible; look again. */
bool index_remove(const struct entry_ref *e);

/* Arm the visible entry of a hash: its next reader removes the mark and writes a row. False: there is no
 * entry. index_disarm: has this caller removed the mark? False: another reader has, or the key has another
 * entry now.
 */
bool index_arm(const struct attachment *a, uint64_t hash, struct entry_ref *e);
bool index_disarm(struct entry_ref *e);

/* Find the word that names exactly this place. False: the entry is dead. */
bool index_names(const struct attachment *a, const struct entry_ref *e, a64 **at, uint64_t *word);

/* Swap one visible word for a copy of its entry at `place`, with this frequency. False: it was changed
 * meanwhile. */
bool index_move(a64 *at, uint64_t word, const struct place *place, uint32_t frequency);

#endif
