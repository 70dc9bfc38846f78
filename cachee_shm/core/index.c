/* index.c - finding, publishing and removing words.
 *
 * Words. A key has 16 candidate words, in two buckets. A word that names an entry of the key is "a word of
 * the key"; it is pending (readers pass it over) or visible. "Mine" is the entry that a set, fill or add
 * wants to store. An event is the record of a delete, of a set, or of what a peer announced; it removes what
 * is older. Versions order sets, fills and events as their records stand in the ring. An add has a version
 * too, but the ring does not order it: an add is older than every set or fill with which it is raced, and of
 * two adds the one with the lower version is the older one.
 *
 * What a verb does when it meets a word of its key:
 *
 *   the word holds            set                 fill                add                 event
 *   ------------------------  ------------------  ------------------  ------------------  -----------
 *   nothing                   put mine pending, then finish it                            -
 *   pending, undecided:
 *     set or fill, higher     bring to its end    bring to its end    bring to its end    leave it
 *     set or fill, lower      withdraw it         withdraw it         bring to its end    withdraw it
 *     add, higher             withdraw it         bring to its end    withdraw it         leave it
 *     add, lower              withdraw it         withdraw it         bring to its end    withdraw it
 *   pending, shown            make it visible, then as visible
 *   pending, withdrawn        remove it
 *   visible:
 *     set or fill, higher     lose                lose                lose (*)            leave it
 *     set or fill, lower      replace it          replace it          lose (*)            remove it
 *     add, higher             replace it          lose                lose (*)            leave it
 *     add, lower              replace it          replace it          lose (*)            remove it
 *     its page has moved on   take the place      take the place      take the place      leave it
 *
 *   (*) unless the visible entry expired, or a tag or clear is newer: then the add replaces it.
 *
 * A peer's event spares local entries, and a visible entry that holds the announced bytes:
 * index_kill_unless takes a predicate for that. touch and incr replace a visible word by a copy under the
 * same version, and meet no other words.
 *
 * The order of the steps. A write makes room and copies its bytes first. Then comes its record in the ring,
 * whose fence is raised before the tail passes it (ring.c); the record's sequence is the entry's version.
 * Then the entry is published here. A new key's word goes in pending. index_finish then asks two questions:
 * does an event stand against mine (index_superseded), and does another word of the key (index_stands)? The
 * word becomes visible only if neither does. If new words were visible at once, a reader could see a value
 * that was deleted before.
 *
 * Dekker's pattern. A publisher and an event may run at the same time on two processors. Each writes first
 * and then reads what the other writes, with a full fence between the two:
 *
 *   publisher   puts its pending word in       DEKKER    reads fence, ring and the key's other words
 *   event       raises its fence               DEKKER    reads the key's words and removes the lower ones
 *
 * So at least one of the two sees the other. Either the publisher sees the raised fence and withdraws, or the
 * event sees the pending word and withdraws it. Two publishers of one key see each other's words in the same
 * way.
 *
 * Overwriting in place needs no pending word if every event that follows mine would also have removed the
 * old word, because then the CAS fails. If an event may have spared the old word (index_replace), mine goes
 * in pending.
 *
 * Helpers. A writer may die after its word is in. A process that meets a pending word, and may not withdraw
 * it, brings it to its end: it asks the same questions as the writer, decides, and makes the word visible
 * or removes it. No process waits for a writer. A helper does not help a third word: if that would be
 * needed, the word that it is helping is withdrawn. So the depth of helping is two.
 *
 * The verdict. Whether a pending entry becomes visible is decided by one CAS in the entry itself (layout.h,
 * undecided bit), never by the word. The first decision counts. Only a shown entry's word becomes visible, so
 * the writer learns from the entry what happened, also where a helper did it and the word has been removed or
 * moved since.
 *
 * Besides other words, these withdraw mine: for a set or add, a key event that follows its record in the
 * ring, a clear or one of its tags; for a fill, any record of its bucket after its token. The record of an
 * add is no event. It evicts nothing, and refuses only fills that were loaded before it.
 *
 * Results. index_publish returns PUBLISH_OK exactly if the entry became visible (it may be gone again by
 * now). Otherwise the entry never was visible and never will be. Then the caller removes all lower words of
 * the key (cache.c), because a set that loses must not return while an older value can be read. An add that
 * was withdrawn begins again with another record. It returns "lost" only after it has seen a value itself
 * (cache_add). So it linearizes at the moment when it was shown, or when it saw that value. A set that
 * replaces an add of a higher version linearizes after that add: both were under way at the same time.
 *
 * ABA. A word names page, offset and 11 bits of the page's generation, so a word that was read long ago may
 * equal a word of a later life of the page. All code that compares a word loads the word, then the page
 * word, then the word again (index_look). Before a page begins another life, all index words of its entries
 * have been changed.
 *
 * Bounds. Every loop has a bound. A retry means that another verb of this key or bucket made progress, so
 * only damaged bytes make a loop reach its bound.
 *
 * The model. tests/core/model/cachee.pml has these steps under these names, and Spin tries all their
 * interleavings for two and three processes. tests/core/test_model.py takes one rule away at a time and must
 * see it missed: NO_FENCE_CHECK (an event against mine is not looked for), NO_STANDS (nor another word),
 * VISIBLE_AT_ONCE (no pending word), REPLACE_AT_ONCE and JUDGE_AFTERWARDS (overwriting what was spared),
 * LOSER_KILLS_NOTHING, KILL_ONCE and KILL_PENDING (the kill loop), ANSWER_BY_WORD (no verdict in the entry),
 * NO_HELP and TIE (a dead writer's word), ADD_GIVES_UP, ADD_IS_EVENT, SET_YIELDS and OWN_VICTIM (adds).
 * TOKEN_LATE, LOOK_ONCE, FENCE_AFTER_TAIL, RESERVE_FIRST and HEAL_ADDS belong to the files above and below.
 */
#include "index.h"

#include "journal.h"

enum {
    FIND_TRIES_MAX = 16,
    FIRST_BUCKET_EMPTY = 3,
    PUBLISH_TRIES_MAX = 64, /* each retry means that another verb of this key or bucket made progress */
    /* the same; a high bound, because giving up would leave an entry that must be evicted */
    KILL_TRIES_MAX = 1 << 16,
};

static a64 *index_bucket_at(const struct attachment *a, uint32_t number)
{
    return a->index + (uint64_t)number * BUCKET_WORDS;
}

static uint32_t index_first_bucket(const struct attachment *a, uint64_t hash)
{
    return reduce32((uint32_t)hash, a->geo.bucket_count);
}

static uint32_t index_second_bucket(const struct attachment *a, uint64_t hash, uint32_t first)
{
    uint32_t second = reduce32((uint32_t)fold_multiply(hash, 0x9e3779b97f4a7c15ull), a->geo.bucket_count);
    if (second == first)
        second = first + 1 < a->geo.bucket_count ? first + 1 : 0;
    return second;
}

static uint64_t index_tag_bits_of(uint64_t hash)
{
    uint64_t tag_bits = (hash >> 34 << INDEX_TAG_SHIFT) & INDEX_TAG_MASK;
    return tag_bits ? tag_bits : 1ull << INDEX_TAG_SHIFT;
}

struct candidates index_candidates(const struct attachment *a, uint64_t hash)
{
    uint32_t first = index_first_bucket(a, hash), second = index_second_bucket(a, hash, first);
    return (struct candidates){.bucket = {index_bucket_at(a, first), index_bucket_at(a, second)},
                               .tag_bits = index_tag_bits_of(hash)};
}

/* Does this word name an entry of this hash? Fills *e. The word is read again, so that page and word belong
 * together (ABA). */
static bool index_word_matches(const struct attachment *a, a64 *at, uint64_t word, uint64_t tag_bits,
                               uint64_t hash, struct entry_ref *e)
{
    if ((word & INDEX_TAG_MASK) != tag_bits || !entry_open(a, word, e) || e->hash != hash)
        return false;
    e->word_at = at;
    e->word = word;
    return true;
}

/* For callers that must not overlook an entry. An entry may be moved while we look at its old page, and
 * that page may begin another life. Then its word here has changed, because the word is swapped first. So a
 * word that has changed is read again. A lookup repeats this a limited number of times. */
bool index_look(const struct attachment *a, a64 *at, uint64_t tag_bits, uint64_t hash, struct entry_ref *e)
{
    bool matches = false;
    for (int tries = 0; tries < KILL_TRIES_MAX; tries++) {
        uint64_t word = load_acquire(at); /* PUBLISH */
        matches = index_word_matches(a, at, word, tag_bits, hash, e);
        fence_acquire(); /* PAGE */
        if (((load_relaxed(at) ^ word) & ~INDEX_MARKS) == 0)
            break;
    }
    return matches;
}

/* One bucket of a lookup. */
static ALWAYS_INLINE bool index_find_in(const struct attachment *a, a64 *bucket, uint64_t tag_bits,
                                        uint64_t hash, const void *key, uint32_t key_bytes,
                                        struct entry_ref *e)
{
    for (int tries = 0, i = 0; i < BUCKET_WORDS && tries < FIND_TRIES_MAX; i++) {
        uint64_t word = load_acquire(&bucket[i]); /* PUBLISH */
        if ((word ^ tag_bits) & (INDEX_TAG_MASK | INDEX_PENDING))
            continue;
        bool matches = entry_open(a, word, e) && e->hash == hash && e->key_bytes == key_bytes &&
                       racing_equal(entry_key(e), key, key_bytes);
        if (UNLIKELY(!matches))
            fence_acquire(); /* PAGE */
        /* The entry was moved meanwhile, or the word names another entry now. Checked last: before that,
         * the entry's page may have begun another life, and the bytes that did not match may have been
         * another entry's. */
        if (UNLIKELY(((load_relaxed(&bucket[i]) ^ word) & ~INDEX_FREQ_MASK) != 0))
            tries++, i--;
        else if (matches) {
            e->word_at = &bucket[i];
            e->word = word;
            return true;
        }
    }
    return false;
}

/* Few keys are in their second bucket. */
static NEVER_INLINE bool index_find_in_second(const struct attachment *a, uint32_t first, uint64_t hash,
                                              const void *key, uint32_t key_bytes, struct entry_ref *e)
{
    return index_find_in(a, index_bucket_at(a, index_second_bucket(a, hash, first)), index_tag_bits_of(hash),
                         hash, key, key_bytes, e);
}

bool index_find(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, struct entry_ref *e)
{
    uint32_t first = index_first_bucket(a, hash);
    return index_find_in(a, index_bucket_at(a, first), index_tag_bits_of(hash), hash, key, key_bytes, e) ||
           index_find_in_second(a, first, hash, key, key_bytes, e);
}

void index_prefetch_entry(const struct attachment *a, uint64_t hash)
{
    a64 *bucket = index_bucket_at(a, index_first_bucket(a, hash));
    int i = index_seek(bucket, 0, index_tag_bits_of(hash));
    if (i == BUCKET_WORDS)
        return;
    uint64_t word = load_relaxed(&bucket[i]);
    uint32_t page = (word >> INDEX_PAGE_SHIFT) & INDEX_PAGE_BITS, off = index_word_off(word);
    if (page >= a->geo.page_count || !entry_fits_at(a, off))
        return;
    __builtin_prefetch(&a->page_words[page]);
    __builtin_prefetch(page_at(a, page, off));
    __builtin_prefetch(page_at(a, page, off) + 8); /* the next line: most entries have two or three */
}

/* The word names page, offset and only 11 bits of the generation. But generations only rise: if the page
 * has the remembered whole generation now, it had the same one when the word was read. So the word named
 * this entry and no other, and an entry never changes. */
bool index_still(struct entry_ref *e)
{
    uint64_t word = load_acquire(e->word_at); /* PUBLISH */
    if ((word ^ e->word) & ~INDEX_FREQ_MASK)
        return false;
    e->word = word;
    e->page_word = load_acquire(e->page_word_at); /* PAGE */
    return page_generation(e->page_word) == e->place.generation;
}

/* An event about many keys is newer than this entry: does it apply to this key? */
static bool index_passed_over(const struct attachment *a, const struct entry_ref *e, uint64_t position)
{
    bool cleared = clear_of(a, entry_local(e)) > position;
    return !cleared && (entry_local(e) || range_fence_of(a, e->hash) <= position);
}

static bool index_tags_stand(const struct attachment *a, const struct entry_ref *e, uint64_t position)
{
    for (uint32_t i = 0; i < e->tags; i++)
        if (tag_fence_of(a, load_relaxed(&entry_tags(e)[i])) > position)
            return false;
    return true;
}

bool entry_valid(const struct attachment *a, const struct entry_ref *e)
{
    const struct header *h = a->header;
    uint64_t position = e->version >> 1;
    bool quiet = load_acquire(&h->clear_own) <= position && load_acquire(&h->clear_remote) <= position &&
                 load_acquire(&h->ranges_moved) <= position; /* FENCE */
    return (LIKELY(quiet) || index_passed_over(a, e, position)) &&
           (e->tags == 0 || index_tags_stand(a, e, position));
}

/* ---- the verdict ---- */

/* Decide whether this pending entry becomes visible. The first decision counts; returns that one. While the
 * writer lives, the entry's page cannot begin another life. If the writer has died and the page has begun
 * one, the CAS fails, unless the eight bytes there happen to equal the undecided word. */
static bool index_decide(const struct entry_ref *e, bool shown)
{
    uint64_t decided = version_word(e->version, e->key_bytes), seen = decided | ENTRY_UNDECIDED;
    if (e->version == 0)
        return false;
    if (cas((a64 *)&e->at[ENTRY_VERSION], &seen,
            shown ? decided : version_word(0, e->key_bytes))) /* VERDICT */
        return shown;
    return seen == decided;
}

static bool index_is_undecided(const struct entry_ref *e)
{
    return load_acquire(&e->at[ENTRY_VERSION]) ==
           (version_word(e->version, e->key_bytes) | ENTRY_UNDECIDED); /* VERDICT */
}

/* Make the word of a shown entry visible. If the CAS fails, another process has done it. */
static void index_make_visible(const struct entry_ref *e)
{
    uint64_t seen = e->word;
    cas(e->word_at, &seen, e->word & ~INDEX_PENDING); /* PUBLISH */
}

bool index_kill(a64 *at, uint64_t word)
{
    uint64_t seen = word;
    for (int tries = 0; tries < KILL_TRIES_MAX; tries++) {
        if (cas(at, &seen, 0))
            return true;
        if ((seen ^ word) & ~INDEX_MARKS)
            return false;
    }
    return false;
}

bool index_remove(const struct entry_ref *e)
{
    if ((e->word & INDEX_PENDING) && index_decide(e, false)) {
        index_make_visible(e);
        return false;
    }
    return index_kill(e->word_at, e->word);
}

/* The one loop that removes what an event invalidates: the entry at this word, if its version is lower than
 * `version` and it is not spared. If the word changes meanwhile, it is looked at again, because the new
 * entry may be lower too. */
static ALWAYS_INLINE bool index_kill_at(struct attachment *a, a64 *at, uint64_t tag_bits, uint64_t hash,
                                        uint64_t version, index_spares *spares, const void *what)
{
    struct entry_ref e;
    for (int tries = 0; tries < KILL_TRIES_MAX; tries++) {
        if (!index_look(a, at, tag_bits, hash, &e) || e.version >= version || (spares && spares(a, &e, what)))
            return false;
        if (index_remove(&e)) {
            pages_note_dead(a, &e);
            return true;
        }
    }
    return false;
}

static ALWAYS_INLINE uint32_t index_kill_all(struct attachment *a, uint64_t hash, uint64_t version,
                                             index_spares *spares, const void *what)
{
    struct candidates c = index_candidates(a, hash);
    uint32_t killed = 0;
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1))
        killed += index_kill_at(a, index_word(&c, i), c.tag_bits, hash, version, spares, what);
    return killed;
}

bool index_spares_local(struct attachment *a, const struct entry_ref *e, const void *what)
{
    (void)a, (void)what;
    return entry_local(e);
}

uint32_t index_kill_lower(struct attachment *a, uint64_t hash, uint64_t version)
{
    return index_kill_all(a, hash, version, NULL, NULL);
}

uint32_t index_kill_unless(struct attachment *a, uint64_t hash, uint64_t version, index_spares *spares,
                           const void *what)
{
    return index_kill_all(a, hash, version, spares, what);
}

bool index_kill_word_unless(struct attachment *a, a64 *at, uint64_t hash, uint64_t version,
                            index_spares *spares, const void *what)
{
    return index_kill_at(a, at, index_tag_bits_of(hash), hash, version, spares, what);
}

bool index_names(const struct attachment *a, const struct entry_ref *e, a64 **at, uint64_t *word)
{
    struct candidates c = index_candidates(a, e->hash);
    uint64_t identity = word_of_place(&e->place, c.tag_bits);
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1)) {
        *at = index_word(&c, i);
        *word = load_acquire(*at);
        if ((*word & INDEX_IDENTITY) == identity)
            return true;
    }
    return false;
}

bool index_move(a64 *at, uint64_t word, const struct place *place, uint32_t frequency)
{
    uint64_t seen = word;
    for (int tries = 0; tries < KILL_TRIES_MAX; tries++) {
        uint64_t copy = policy_with_frequency(word_of_place(place, seen & INDEX_TAG_MASK), frequency);
        if (cas(at, &seen, copy | (seen & INDEX_ARMED)))
            return true;
        if ((seen ^ word) & ~INDEX_MARKS)
            return false;
    }
    return false;
}

/* ---- arming ---- */

static bool index_arm_at(const struct attachment *a, a64 *at, uint64_t tag_bits, uint64_t hash,
                         struct entry_ref *e)
{
    for (int tries = 0; tries < KILL_TRIES_MAX; tries++) {
        if (!index_look(a, at, tag_bits, hash, e) || (e->word & INDEX_PENDING))
            return false;
        uint64_t seen = e->word;
        if (cas(at, &seen, seen | INDEX_ARMED))
            return true;
    }
    return false;
}

bool index_arm(const struct attachment *a, uint64_t hash, struct entry_ref *e)
{
    struct candidates c = index_candidates(a, hash);
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1))
        if (index_arm_at(a, index_word(&c, i), c.tag_bits, hash, e))
            return true;
    return false;
}

bool index_disarm(struct entry_ref *e)
{
    uint64_t seen = e->word;
    for (int tries = 0; tries < KILL_TRIES_MAX && (seen & INDEX_ARMED); tries++) {
        if ((seen ^ e->word) & ~INDEX_MARKS)
            return false;
        uint64_t disarmed = seen & ~INDEX_ARMED;
        if (cas(e->word_at, &seen, disarmed)) {
            e->word = disarmed;
            return true;
        }
    }
    return false;
}

/* ---- publishing ---- */

/* Does an event forbid this entry to become visible? For a fill: a fence that applies to it has passed its
 * token. For a set or an add: a conflicting event follows it in the ring (its bucket's fence alone is no
 * proof: another key, or an add, may have raised it). */
static bool index_superseded(const struct attachment *a, const struct entry_ref *e)
{
    uint64_t position = e->version >> 1, fence = fence_of(a, e->hash);
    if (!entry_valid(a, e))
        return true;
    if (entry_is_fill(e))
        return fence > position;
    return fence > position && ring_conflict(a, e->hash, position, fence, entry_local(e));
}

/* Which of two entries of one key is the newer? Equal versions (two fills under one token) are ordered by
 * their place. */
static bool index_newer(const struct entry_ref *x, const struct entry_ref *y)
{
    return x->version != y->version ? x->version > y->version : x->word_at < y->word_at;
}

/* Does mine still compete with the other word, which was seen after mine? A helper may be late: if mine was
 * decided long ago, or an event has followed it, the other may be newer than everything that mine raced
 * with. */
static bool index_is_current(const struct attachment *a, const struct entry_ref *mine,
                             const struct entry_ref *other)
{
    return index_is_undecided(mine) && (other->version < mine->version || !index_superseded(a, mine));
}

/* Does mine replace the other, by the table above? */
static bool index_outranks(const struct attachment *a, const struct entry_ref *mine,
                           const struct entry_ref *other, uint64_t now_ms)
{
    bool pending = other->word & INDEX_PENDING;
    if (pending && other->version == 0)
        return true; /* withdrawn */
    if (entry_add(mine))
        return pending ? entry_add(other) && mine->version < other->version
                       : !entry_valid(a, other) || entry_expired(other, now_ms);
    return (entry_add(other) && !entry_is_fill(mine)) || index_newer(mine, other);
}

static enum publish index_finish(struct attachment *a, const struct entry_ref *mine, uint64_t now_ms,
                                 bool may_help);

enum judgement { GO_ON, WITHDRAW, AGAIN };

static enum judgement index_resolve(struct attachment *a, const struct entry_ref *mine,
                                    const struct entry_ref *other, uint64_t now_ms, bool may_help)
{
    if (index_outranks(a, mine, other, now_ms))
        return !index_is_current(a, mine, other) ? WITHDRAW : index_remove(other) ? GO_ON : AGAIN;
    if (!(other->word & INDEX_PENDING) || !may_help)
        return WITHDRAW;
    index_finish(a, other, now_ms, false);
    return AGAIN;
}

static bool index_stands_against(struct attachment *a, const struct entry_ref *mine, a64 *at,
                                 uint64_t tag_bits, uint64_t now_ms, bool may_help)
{
    struct entry_ref other;
    for (int tries = 0; tries < PUBLISH_TRIES_MAX; tries++) {
        if (!index_look(a, at, tag_bits, mine->hash, &other))
            return true;
        enum judgement j = index_resolve(a, mine, &other, now_ms, may_help);
        if (j != AGAIN)
            return j == GO_ON;
    }
    return false;
}

/* Compare a pending word with every other word of its key. False: it must be withdrawn. */
static bool index_stands(struct attachment *a, const struct entry_ref *mine, uint64_t now_ms, bool may_help)
{
    struct candidates c = index_candidates(a, mine->hash);
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1)) {
        a64 *at = index_word(&c, i);
        if (at != mine->word_at && !index_stands_against(a, mine, at, c.tag_bits, now_ms, may_help))
            return false;
    }
    return true;
}

/* Bring a pending word to its end, its writer's or that of another process. */
static enum publish index_finish(struct attachment *a, const struct entry_ref *mine, uint64_t now_ms,
                                 bool may_help)
{
    /* Later events see the pending word, or we see their fence. An explicit fence, because a helper has
     * done no CAS. */
    fence_seq_cst(); /* DEKKER */
    if (!index_decide(mine, !index_superseded(a, mine) && index_stands(a, mine, now_ms, may_help))) {
        index_kill(mine->word_at, mine->word);
        return PUBLISH_LOST;
    }
    index_make_visible(mine);
    return PUBLISH_OK;
}

/* What publishing found in the words of its own key. */
enum sighting { NOTHING_THERE, REPLACED, BEATEN, LOOK_AGAIN };

/* Set the verdict of an entry that no word names yet: no other process can see it. */
static void index_set_verdict(const struct entry_ref *mine, bool shown)
{
    store_relaxed((a64 *)&mine->at[ENTRY_VERSION],
                  version_word(mine->version, mine->key_bytes) | (shown ? 0 : ENTRY_UNDECIDED));
}

/* Overwrite in place. If every event after ours would have removed the old word, one CAS is enough. But a
 * peer's event spares a local value, and a value that holds the announced bytes (relay.c). In those cases
 * ours goes in pending, and is checked against the fence before it is shown, like a new one. If it were
 * shown at once, it might be older than that event: readers would see it for a moment, or, if the writer
 * died then, for good. */
static enum sighting index_replace(struct attachment *a, const struct entry_ref *mine,
                                   const struct entry_ref *other, uint64_t now_ms)
{
    /* There may be a bridge for this segment although this process was configured without one. */
    bool bridged = a->has_bridge || load_relaxed(&a->header->bridge_generation) != 0;
    bool spared = !entry_local(mine) && (bridged || entry_local(other));
    uint64_t seen = other->word;
    index_set_verdict(mine, !spared);
    struct entry_ref ours = *mine;
    ours.word_at = other->word_at;
    ours.word = policy_with_frequency(mine->word, policy_overwrite(a, seen)) | (spared ? INDEX_PENDING : 0);
    if (!cas(ours.word_at, &seen, ours.word)) /* PUBLISH, DEKKER */
        return LOOK_AGAIN;
    pages_note_dead(a, other);
    return !spared || index_finish(a, &ours, now_ms, true) == PUBLISH_OK ? REPLACED : BEATEN;
}

/* A word of our key is there already: bring it to its end, give way, or replace it in place. If the other
 * has the higher version, mine gives way: an event between the two versions would have removed mine, but
 * not the other. */
static enum sighting index_meet(struct attachment *a, const struct entry_ref *mine,
                                const struct entry_ref *other, uint64_t now_ms)
{
    if (other->word & INDEX_PENDING) {
        if (!index_outranks(a, mine, other, now_ms))
            index_finish(a, other, now_ms, true);
        else
            index_remove(other);
        return LOOK_AGAIN;
    }
    if (!index_outranks(a, mine, other, now_ms))
        return BEATEN;
    if ((entry_is_fill(mine) || other->version > mine->version) && index_superseded(a, mine))
        return BEATEN;
    return index_replace(a, mine, other, now_ms);
}

static enum sighting index_meet_any(struct attachment *a, const struct candidates *c,
                                    const struct entry_ref *mine, uint64_t now_ms)
{
    for (int i = index_next(c, 0); i < CANDIDATE_WORDS; i = index_next(c, i + 1)) {
        struct entry_ref other;
        if (index_look(a, index_word(c, i), c->tag_bits, mine->hash, &other))
            return index_meet(a, mine, &other, now_ms);
    }
    return NOTHING_THERE;
}

static int index_most_empty_slot(const uint64_t *words)
{
    int empty[2] = {0, 0}, at[2] = {-1, -1};
    for (int i = CANDIDATE_WORDS - 1; i >= 0; i--) /* the first empty one: lookups begin at the front */
        if (!words[i])
            empty[i / BUCKET_WORDS]++, at[i / BUCKET_WORDS] = i;
    /* Lookups begin in the first bucket. The second bucket costs them a cache line, so it is used only when
     * the first fills up. */
    return empty[0] >= FIRST_BUCKET_EMPTY || empty[0] >= empty[1] ? at[0] : at[1];
}

/* Never choose a word that may be the key's own: it has come since the key was looked for, and the next try
 * will meet it. */
static int index_choose_victim(const struct candidates *c, const uint64_t *words)
{
    uint64_t others[CANDIDATE_WORDS];
    for (int i = 0; i < CANDIDATE_WORDS; i++)
        others[i] = (words[i] & INDEX_TAG_MASK) == c->tag_bits ? words[i] | INDEX_PENDING : words[i];
    return policy_victim(others, CANDIDATE_WORDS);
}

/* Where a new key's word goes: an empty word, else a word whose page has begun another life, else the
 * policy's victim. */
static int index_choose_slot(struct attachment *a, const struct candidates *c, uint64_t *seen)
{
    uint64_t words[CANDIDATE_WORDS];
    for (int i = 0; i < CANDIDATE_WORDS; i++)
        words[i] = load_acquire(index_word(c, i));
    int slot = index_most_empty_slot(words);
    for (int i = 0; slot < 0 && i < CANDIDATE_WORDS; i++) {
        struct entry_ref e;
        if (!entry_open(a, words[i], &e))
            slot = i;
    }
    if (slot < 0 && (slot = index_choose_victim(c, words)) >= 0)
        count(a, STAT_EVICTED, 1);
    if (slot >= 0)
        *seen = words[slot];
    return slot;
}

/* Journal the eviction of the entry whose word is given to another key, if the entry was still there. */
static void index_journal_victim(struct attachment *a, uint64_t word)
{
    struct entry_ref e;
    if (UNLIKELY(word != 0) && entry_open(a, word, &e) && journal_may_want(a, e.hash) && entry_confirm(&e))
        journal_key(a, e.hash, JOURNAL_EVICTED, WHY_CAPACITY, 0);
}

/* Every word is pending: bring one to its end, so that the next try finds a victim. */
static void index_finish_some(struct attachment *a, const struct candidates *c, uint64_t now_ms)
{
    struct entry_ref e;
    e.word_at = index_word(c, 0);
    e.word = load_acquire(e.word_at);
    if ((e.word & INDEX_PENDING) && entry_open(a, e.word, &e))
        index_finish(a, &e, now_ms, false);
}

enum publish index_publish(struct attachment *a, const struct place *place, uint64_t hash, uint64_t now_ms,
                           bool ahead)
{
    struct candidates c = index_candidates(a, hash);
    struct entry_ref mine;
    mine.word = word_of_place(place, c.tag_bits);
    mine.word_at = NULL; /* in no word yet, so mine wins a tie */
    bool admitted = false;
    if (!entry_open(a, mine.word, &mine))
        return PUBLISH_LOST; /* another process took our page, because it considered us dead */
    for (int tries = 0; tries < PUBLISH_TRIES_MAX; tries++) {
        switch (index_meet_any(a, &c, &mine, now_ms)) {
        case REPLACED:
            return PUBLISH_OK;
        case BEATEN:
            return PUBLISH_LOST;
        case LOOK_AGAIN:
            continue;
        case NOTHING_THERE:
            break;
        }
        if (!admitted && !ahead)
            mine.word = policy_with_frequency(mine.word, policy_admit(a, hash));
        admitted = true;
        uint64_t seen;
        int slot = index_choose_slot(a, &c, &seen);
        if (slot < 0) {
            index_finish_some(a, &c, now_ms);
            continue;
        }
        struct entry_ref pending = mine;
        pending.word_at = index_word(&c, slot);
        pending.word = mine.word | INDEX_PENDING;
        index_set_verdict(&mine, false);
        if (cas(pending.word_at, &seen, pending.word)) { /* PUBLISH, DEKKER */
            index_journal_victim(a, seen);
            return index_finish(a, &pending, now_ms, true);
        }
    }
    return PUBLISH_NO_ROOM;
}
