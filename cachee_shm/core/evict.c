/* evict.c - making room, a little with every write. policy.h decides what is worth keeping, queue.c which
 * page is next; this file carries it out.
 *
 * What one write does (evict_make_room):
 *
 *   its open page has room    the usual case. If few spare pages are left, the write also drains a little of
 *                             an old page: DRAIN_PER_BYTE bytes for each byte that it stores. So the next
 *                             turn finds a spare page, and no single write empties a whole one.
 *   its open page is full     evict_turn: the page is sealed, a spare one is opened.
 *   there is no spare page    evict_need_spares empties whole pages until there is one. Each attempt keeps
 *                             less than the one before; from HARD_AFTER on nothing is kept, so the loop ends.
 *   there is no page to empty the pages of the dead are looked for, then spare pages of the living, and at
 *                             last this process's own open pages are sealed and emptied. If that fails as
 *                             well, there are more writers than pages, and the value is not stored.
 *
 * Draining a page. This process takes a sealed page and passes over its entries by their offsets:
 *
 *   no word names it, or it expired, or its tag was deleted     dropped; costs a quarter of its bytes
 *   small queue, was hit, or wins the contest                   copied to the open page of the main queue
 *   small queue, else                                           dropped; the ghost remembers the key
 *   main queue, was hit since it was last copied                copied within the main queue, one hit fewer
 *   main queue, else                                            dropped; its bytes are credited (main_credit)
 *   any queue, the page was taken because little in it lives    copied within its queue, nothing is lost
 *
 * When the last entry has been passed over, the page is spare.
 *
 * What holds at every instruction:
 *
 *   1. A reader need not know that a page is being drained. The bytes do not change until the page is
 *      opened for another life, and then the reader's second look at the page word fails (pages.c).
 *   2. An entry moves by a copy and one CAS of its index word. If the CAS fails, another process wrote,
 *      removed or moved the key meanwhile, and the copy is dead bytes. So a move never brings back an entry
 *      that was removed.
 *   3. The index word of every dropped entry is removed, even if the entry could not be served any more.
 *      Otherwise the word would name another entry once the page's generation bits have wrapped (pages.c,
 *      rule 5).
 *   4. A process that dies here leaves a page in the state DRAIN. Entries that were not yet passed over are
 *      still named by their words and can be read. The sweep seals the page again.
 *   5. Only damaged bytes end a drain early. Words that name entries after them then dangle from the page's
 *      next life on: readers find them by the generation, and miss.
 *
 * A large value lies in spans, entries of their own that the value's entry names by words (span.c). A span
 * has no index word: evict_find_head finds the value by the span's hash, and the span moves by a CAS of its
 * word in that entry. The value lives as long as all its spans do. While a value is being written, its
 * spans belong to no entry yet: the writer holds their words in its own memory, and never drops these
 * spans.
 */
#include "evict.h"

#include "journal.h"
#include "survey.h"

enum {
    DRAIN_PER_BYTE = 4, /* so a page is drained within a quarter of a page of writes */
    DRAIN_PER_WRITE = 512,
    /* one for the small queue, and two for what draining a page of each queue may carry into the main
     * queue */
    SPARES_WANTED = 3,
    SPARES_WHERE_SCARCE = 2,
    PAGES_PER_WRITER = 64, /* with fewer, they are scarce */
    DEAD_COSTS = 4,        /* a dead entry is passed over at a quarter of what moving it would cost */
    ATTEMPTS_MAX = 12,     /* pages drained for one write; each later one keeps less */
    ATTEMPTS_PER_PASS = 2,
    HARD_AFTER = 8, /* attempts; then nothing at all is kept */
};

void entry_copy(struct attachment *a, const struct entry_ref *e, const struct place *place)
{
    a64 *to = page_at(a, place->page, place->off);
    uint32_t words = entry_size(a, e) / 8;
    for (uint32_t i = 0; i < words; i++)
        store_relaxed(&to[i], load_relaxed(&e->at[i]));
}

/* ---- candidates: the entries of a page that is being drained ---- */

struct candidate {
    struct entry_ref e;    /* what is in the page: an entry, or a span of one */
    struct entry_ref head; /* the entry that an index word names */
    /* a span of the value that this process is just writing: its word is in a->span_words */
    bool unpublished;
    uint32_t bytes;
    uint32_t frequency;
};

struct work { /* what is being done, and how much of it is allowed */
    uint64_t now_ms;
    int64_t budget;   /* bytes */
    uint32_t attempt; /* pages that were drained for this write and did not suffice */
};

static bool evict_is_hard(const struct work *w) { return w->attempt >= HARD_AFTER; }

/* The value to which a span belongs, if it still does. */
static bool evict_find_head(const struct attachment *a, const struct entry_ref *piece, struct entry_ref *head)
{
    uint32_t i = entry_piece_number(piece);
    uint64_t word = span_word(&piece->place);
    struct candidates c = index_candidates(a, piece->hash);
    for (int j = index_next(&c, 0); j < CANDIDATE_WORDS; j = index_next(&c, j + 1)) {
        head->word_at = index_word(&c, j);
        head->word = load_acquire(head->word_at); /* PUBLISH */
        if (!entry_open(a, head->word, head) || head->hash != piece->hash || !entry_spans(head) ||
            i >= span_count(a, head->value_bytes))
            continue;
        if (load_relaxed(&entry_value(head)[i]) == word && entry_confirm(head))
            return true;
    }
    return false;
}

/* A value larger than the small queue would lose its first spans while its last are written. */
static bool evict_being_written(const struct attachment *a, const struct entry_ref *e)
{
    uint32_t i = entry_piece_number(e);
    return entry_piece(e) && a->span_hash && e->hash == a->span_hash && i < SPANS_MAX &&
           a->span_words[i] == span_word(&e->place);
}

/* Find the word that names this entry, or the value that this span belongs to. */
static bool evict_is_named(const struct attachment *a, struct candidate *c)
{
    a64 *at;
    uint64_t word;
    if (entry_piece(&c->e))
        return evict_find_head(a, &c->e, &c->head);
    if (!index_names(a, &c->e, &at, &word))
        return false;
    c->head = c->e;
    c->head.word_at = at;
    c->head.word = word;
    return true;
}

static bool evict_is_wanted(const struct attachment *a, const struct candidate *c, uint64_t now_ms)
{
    bool whole = entry_piece(&c->e) || !entry_spans(&c->head) || pages_hold_spans(a, &c->head);
    /* A pending word of an old page belongs to a dead process: its event is in the ring, its value may be
     * dropped. */
    return whole && entry_valid(a, &c->head) && !entry_expired(&c->head, now_ms) &&
           !(c->head.word & INDEX_PENDING);
}

/* Why an entry that is still named does not count any more. */
static enum journal_why evict_reason(const struct attachment *a, const struct entry_ref *head,
                                     uint64_t now_ms)
{
    if (!entry_valid(a, head))
        return WHY_INVALID;
    return entry_expired(head, now_ms) ? WHY_EXPIRED : WHY_CAPACITY;
}

/* Count the removal of an entry that could not be read any more, by its reason. A value without one of its
 * spans was counted when that span was dropped, and a pending word was never a readable entry. */
static void evict_count_dropped(struct attachment *a, const struct entry_ref *e, uint64_t now_ms)
{
    uint64_t position = e->version >> 1;
    if ((e->word & INDEX_PENDING) || hash_reserved(e->hash))
        return;
    if (!entry_valid(a, e)) {
        uint64_t flushed = entry_local(e) ? 0 : load_relaxed(&a->header->flushed);
        bool cleared = clear_of(a, entry_local(e)) > position || range_fence_of(a, e->hash) > position;
        count(a,
              flushed > position ? STAT_DROPPED_FLUSHED
              : cleared          ? STAT_DROPPED_CLEARED
                                 : STAT_DROPPED_TAG,
              1);
    } else if (entry_expired(e, now_ms)) {
        count(a, STAT_DROPPED_EXPIRED, 1);
    }
}

enum {
    COUNT_TRIES_MAX =
        64 /* each failed try means that somebody changed the word: made it visible, or removed it */
};

/* Does this entry still count? If it does not, but a word names it, the word is removed, because the page
 * will be reused. */
static bool evict_counts(struct attachment *a, struct candidate *c, uint64_t now_ms)
{
    c->unpublished = evict_being_written(a, &c->e);
    if (c->unpublished) {
        c->head = c->e;
        c->frequency = POLICY_FREQUENCY_MAX;
        return true;
    }
    for (int tries = 0; tries < COUNT_TRIES_MAX && evict_is_named(a, c); tries++) {
        c->frequency = policy_frequency(c->head.word);
        if (evict_is_wanted(a, c, now_ms))
            return true;
        if (index_kill(c->head.word_at, c->head.word)) {
            pages_note_dead(a, &c->head);
            if (journal_may_want(a, c->head.hash))
                journal_key(a, c->head.hash, JOURNAL_EVICTED, evict_reason(a, &c->head, now_ms), 0);
            evict_count_dropped(a, &c->head, now_ms);
            return false;
        }
    }
    return false;
}

/* Is the page that we drain still ours? Only garbage in the segment could have changed it. */
static bool evict_still_draining(struct attachment *a, enum page_queue q)
{
    uint64_t word = load_acquire(&a->page_words[a->drain[q].page]);
    if (page_state(word) == PAGE_DRAIN && page_owner(word) == a->slot)
        return true;
    a->drain[q].page = NO_PAGE;
    return false;
}

/* The index words of a page's entries are scattered at random: prefetch the next one's early. */
static void evict_prefetch_next(const struct attachment *a, const struct drain *d, const struct candidate *c)
{
    uint32_t next = d->off + c->bytes;
    if (next < d->end)
        index_prefetch(a, load_relaxed(&page_at(a, d->page, next)[ENTRY_HASH]));
}

/* The entry at the drain's position, or the next one that counts. False: the page is empty now, or the
 * budget is used up. */
static bool evict_next_candidate(struct attachment *a, enum page_queue q, struct candidate *c, struct work *w)
{
    struct drain *d = &a->drain[q];
    if (!evict_still_draining(a, q))
        return false;
    c->e.place.generation = page_generation(load_relaxed(&a->page_words[d->page]));
    c->e.page_word_at = &a->page_words[d->page];
    c->e.page_word = load_relaxed(c->e.page_word_at);
    while (d->off < d->end && w->budget > 0) {
        if (!entry_read(a, d->page, d->off, &c->e)) {
            d->off = d->end; /* garbage: words that point behind it dangle from the next generation on */
            return false;
        }
        c->bytes = entry_size(a, &c->e);
        evict_prefetch_next(a, d, c);
        if (evict_counts(a, c, w->now_ms))
            return true;
        d->off += c->bytes;
        w->budget -= c->bytes / DEAD_COSTS;
        if (q == QUEUE_MAIN && !d->compact) /* a compacted page gives whole pages instead: queue_balance */
            a->main_credit += c->bytes;
    }
    return false;
}

/* A page was taken: charge what it costs to pass over its entries that are known to be dead. */
static void evict_charge_for_dead(const struct attachment *a, enum page_queue q, struct work *w)
{
    w->budget -= a->drain[q].off / DEAD_COSTS;
}

static bool evict_take_page(struct attachment *a, enum page_queue q, struct work *w)
{
    if (!queue_take(a, q))
        return false;
    evict_charge_for_dead(a, q, w);
    return true;
}

static void evict_step_over(struct attachment *a, enum page_queue q, const struct candidate *c,
                            struct work *w)
{
    a->drain[q].off += c->bytes;
    w->budget -= c->bytes;
}

/* ---- keeping and dropping ---- */

/* Room for an entry that is kept. Without a spare page for the main queue, it goes round in the small queue
 * once more. */
static bool evict_room_to_keep(struct attachment *a, uint32_t bytes, struct place *place)
{
    if (pages_fit(a, QUEUE_MAIN, bytes, place))
        return true;
    if (a->spares == 0)
        return pages_fit(a, QUEUE_SMALL, bytes, place);
    pages_turn(a, QUEUE_MAIN);
    return pages_open_spare(a, QUEUE_MAIN) && pages_fit(a, QUEUE_MAIN, bytes, place);
}

/* The page of the head may have been reused since we looked at it. The CAS is still safe. It succeeds only if
 * the eight bytes there are the word of the old place of this span, which this process holds. Only the head
 * of this value, or a copy of that head, has this word. */
static void evict_move_span(const struct candidate *c, const struct place *to)
{
    uint64_t seen = span_word(&c->e.place);
    cas((a64 *)&entry_value(&c->head)[entry_piece_number(&c->e)], &seen, span_word(to)); /* PUBLISH */
}

/* Copy the candidate to its new place, and swap the word that names it to the copy. If the swap fails, the
 * key has changed meanwhile, and the copy is dead bytes. */
static bool evict_carry(struct attachment *a, const struct candidate *c, const struct place *place,
                        uint32_t frequency)
{
    uint64_t expires = entry_expires_ms(&c->head);
    entry_copy(a, &c->e, place);
    if (!entry_confirm(&c->e))
        return false; /* garbage gave the page that we drain to somebody else */
    pages_commit(a, place, c->bytes, !entry_piece(&c->e), expires ? expires + entry_grace_ms(&c->head) : 0);
    count(a, STAT_REINSERTED, 1);
    if (c->unpublished)
        a->span_words[entry_piece_number(&c->e)] = span_word(place);
    else if (entry_piece(&c->e))
        evict_move_span(c, place);
    else
        index_move(c->head.word_at, c->head.word, place, frequency);
    return true;
}

static bool evict_carry_to_main(struct attachment *a, const struct candidate *c, uint32_t frequency)
{
    struct place place;
    return evict_room_to_keep(a, c->bytes, &place) && evict_carry(a, c, &place, frequency);
}

static void evict_tell_prewarm(struct attachment *a, const struct entry_ref *e)
{
    uint64_t now_ms = clock_ms(a);
    prewarm_evicted(a, e->hash, policy_frequency(e->word), entry_age_ms(e, now_ms), now_ms);
}

/* When one span of a value is dropped, the whole value is gone: its parts in other pages are dead there. */
static void evict_drop(struct attachment *a, const struct candidate *c)
{
    if (c->unpublished || !index_kill(c->head.word_at, c->head.word))
        return;
    count(a, STAT_EVICTED, 1);
    pages_note_dead(a, &c->head);
    if (UNLIKELY(a->prewarm != NULL))
        evict_tell_prewarm(a, &c->head);
    journal_key(a, c->head.hash, JOURNAL_EVICTED, WHY_CAPACITY, 0);
}

/* ---- the main queue ---- */

static void evict_drop_from_main(struct attachment *a, const struct candidate *v, struct work *w)
{
    evict_drop(a, v);
    a->main_credit += v->bytes;
    evict_step_over(a, QUEUE_MAIN, v, w);
}

/* All parts of a value share one frequency: its spans are kept as long as it is above zero, and only the
 * head's move lowers it. */
static void evict_keep_in_main(struct attachment *a, const struct candidate *v, bool wear, struct work *w)
{
    bool pays = wear && !entry_piece(&v->e);
    if (evict_is_hard(w) || !evict_carry_to_main(a, v, v->frequency - pays)) {
        evict_drop_from_main(a, v, w);
        return;
    }
    if (pays)
        policy_remember(a, v->head.hash, 1);
    evict_step_over(a, QUEUE_MAIN, v, w);
}

enum step { FALLS, PAGE_EMPTY, NO_MORE };

/* Find the next entry that falls out of the main queue. Other results: a page of it is empty now; no page
 * can be taken; the budget is used up. */
static enum step evict_main_step(struct attachment *a, struct candidate *v, struct work *w)
{
    struct drain *d = &a->drain[QUEUE_MAIN];
    if (d->page == NO_PAGE && !evict_take_page(a, QUEUE_MAIN, w))
        return NO_MORE;
    while (evict_next_candidate(a, QUEUE_MAIN, v, w)) {
        if (!d->compact)
            return FALLS;
        evict_keep_in_main(a, v, false, w);
    }
    if (d->page == NO_PAGE || d->off < d->end)
        return NO_MORE;
    pages_drained(a, QUEUE_MAIN);
    return PAGE_EMPTY;
}

static bool evict_main_tail(struct attachment *a, struct candidate *v, struct work *w)
{
    enum step step = PAGE_EMPTY;
    while (step == PAGE_EMPTY && w->budget > 0)
        step = evict_main_step(a, v, w);
    return step == FALLS;
}

/* One entry falls out of the main queue, or goes round again, or a page is empty: then it may be another
 * queue's turn. Bytes that fall out of a main queue that is too large pay its debts, but are not credited
 * as room for entries of the small queue: these would make it too large again, without a contest. */
static bool evict_from_main(struct attachment *a, struct work *w)
{
    struct candidate v;
    int64_t before = a->main_credit;
    enum step step = evict_main_step(a, &v, w);
    if (step == FALLS && v.frequency > w->attempt / ATTEMPTS_PER_PASS)
        evict_keep_in_main(a, &v, true, w);
    else if (step == FALLS)
        evict_drop_from_main(a, &v, w);
    if (queue_main_excess(a) > 0 && a->main_credit > 0)
        a->main_credit = before > 0 ? before : 0;
    return step != NO_MORE || w->budget <= 0;
}

/* ---- the small queue ---- */

/* Does the candidate win against the entry that falls out of the main queue next? Incumbents win ties. */
static bool evict_wins_contest(struct attachment *a, const struct candidate *c, struct work *w)
{
    uint32_t worth = policy_estimate(a, c->head.hash, c->frequency);
    struct candidate v;
    for (int i = 0; i < POLICY_CONTESTS_MAX && evict_main_tail(a, &v, w); i++) {
        if (worth <= policy_estimate(a, v.head.hash, v.frequency))
            return false;
        if (v.frequency > 0)
            evict_keep_in_main(a, &v, true, w);
        else
            evict_drop_from_main(a, &v, w);
        if (a->main_credit >= (int64_t)c->bytes)
            return true;
    }
    return false;
}

static bool evict_moves_up(struct attachment *a, const struct candidate *c, struct work *w)
{
    if (evict_is_hard(w))
        return false;
    return policy_promotes(a, c->frequency) || queue_main_excess(a) < 0 ||
           a->main_credit >= (int64_t)c->bytes || evict_wins_contest(a, c, w);
}

/* What was decided for a value's first span holds for the others and for its own entry, which come after
 * it. */
static void evict_moved_up(struct attachment *a, const struct candidate *c)
{
    a->main_credit -= c->bytes;
    if (!entry_piece(&c->e))
        policy_remember(a, c->head.hash, c->frequency);
    else if (!policy_promotes(a, c->frequency))
        policy_prove(c->head.word_at, c->head.word);
}

/* A page with few living entries is drained before its turn. These entries may be too new for a decision,
 * so they go round once more. */
static bool evict_goes_round(struct attachment *a, const struct candidate *c, struct work *w)
{
    struct place place;
    return a->drain[QUEUE_SMALL].compact && !evict_is_hard(w) &&
           pages_fit(a, QUEUE_SMALL, c->bytes, &place) && evict_carry(a, c, &place, c->frequency);
}

static void evict_settle(struct attachment *a, const struct candidate *c, struct work *w)
{
    if (evict_goes_round(a, c, w))
        return;
    if (evict_moves_up(a, c, w) && evict_carry_to_main(a, c, 0)) {
        evict_moved_up(a, c);
        return;
    }
    evict_drop(a, c);
    policy_forget(a, c->head.hash, c->frequency);
}

/* One entry leaves the small queue. */
static bool evict_from_small(struct attachment *a, struct work *w)
{
    struct candidate c;
    struct drain *d = &a->drain[QUEUE_SMALL];
    if (d->page == NO_PAGE && !evict_take_page(a, QUEUE_SMALL, w))
        return false;
    if (evict_next_candidate(a, QUEUE_SMALL, &c, w)) {
        evict_settle(a, &c, w);
        evict_step_over(a, QUEUE_SMALL, &c, w);
    }
    if (d->page != NO_PAGE && d->off >= d->end)
        pages_drained(a, QUEUE_SMALL);
    return true;
}

/* ---- spare pages ---- */

/* Each process keeps spare pages for itself. Where there are few pages for each process, it keeps fewer. */
static uint32_t evict_spares_wanted(const struct attachment *a)
{
    uint64_t writers = (uint64_t)a->view.writers + 1;
    return a->geo.page_count >= writers * PAGES_PER_WRITER ? SPARES_WANTED : SPARES_WHERE_SCARCE;
}

/* Is this process draining a main page that is mostly dead (so that its living entries are moved together),
 * or can it take one? */
static bool evict_compacts(struct attachment *a, struct work *w)
{
    struct drain *d = &a->drain[QUEUE_MAIN];
    if (d->page == NO_PAGE && queue_take_poor(a, QUEUE_MAIN)) {
        evict_charge_for_dead(a, QUEUE_MAIN, w);
        d->compact = true;
    }
    return d->page != NO_PAGE && d->compact;
}

static bool evict_main_goes_first(struct attachment *a, struct work *w)
{
    return evict_compacts(a, w) || queue_main_is_large(a) || a->main_credit < -(int64_t)a->geo.page_bytes;
}

static void evict_bound_credit(struct attachment *a)
{
    int64_t limit = 2 * (int64_t)a->geo.page_bytes;
    a->main_credit = a->main_credit > limit ? limit : a->main_credit < -limit ? -limit : a->main_credit;
}

/* Some work towards a spare page. False: no page is left that could be taken. The main queue is drained for
 * new entries only if the small queue has nothing left to drain and there is no spare page at all. */
static bool evict_reclaim(struct attachment *a, struct work *w)
{
    if (queue_take_free(a))
        return true;
    queue_balance(a);
    bool done = (evict_main_goes_first(a, w) && evict_from_main(a, w)) || evict_from_small(a, w) ||
                (a->spares == 0 && evict_from_main(a, w));
    evict_bound_credit(a);
    return done;
}

/* A newcomer has no page of its own yet. Without this one, it could not keep any entry of the first page
 * that it drains. */
static void evict_borrow_first_page(struct attachment *a)
{
    if (a->spares == 0 && a->open[OPEN_MAIN].page == NO_PAGE && !queue_take_free(a))
        queue_take_from_others(a);
}

/* Drain until there is a spare page, and one more for the main queue, without which no entry could move up.
 * Each attempt has the budget to empty a page, and keeps less than the one before. */
static bool evict_need_spares(struct attachment *a)
{
    struct work w = {.now_ms = clock_ms(a)};
    bool looked = false;
    evict_borrow_first_page(a);
    for (; a->spares < evict_spares_wanted(a) && w.attempt < ATTEMPTS_MAX; w.attempt++) {
        w.budget = a->geo.page_bytes;
        while (a->spares < evict_spares_wanted(a) && w.budget > 0) {
            if (evict_reclaim(a, &w))
                continue;
            if (looked || a->spares > 0)
                return a->spares > 0;
            looked = true;
            recovery_sweep(a); /* pages of the dead, if any */
            queue_look(a);
            queue_take_from_others(a);
        }
    }
    return a->spares > 0;
}

/* All other pages are held by living processes: reuse our own. */
static bool evict_need_spares_of_ours(struct attachment *a)
{
    pages_seal_open(a, QUEUE_MAIN);
    pages_seal_open(a, QUEUE_SMALL);
    queue_look(a);
    return evict_need_spares(a);
}

/* The open page is full, or there is none yet. */
static bool evict_turn(struct attachment *a)
{
    pages_turn(a, QUEUE_SMALL);
    survey_some(a);
    queue_refresh(a);
    if (a->drain[QUEUE_SMALL].page == NO_PAGE && queue_reopen(a))
        return true;
    return (evict_need_spares(a) && pages_open_spare(a, QUEUE_SMALL)) ||
           (evict_need_spares_of_ours(a) && pages_open_spare(a, QUEUE_SMALL));
}

/* Work ahead, so that the next turn finds a spare page. */
static void evict_reclaim_a_little(struct attachment *a, uint32_t bytes)
{
    if (a->spares >= evict_spares_wanted(a) || a->open[OPEN_SMALL].page == NO_PAGE ||
        a->open[OPEN_SMALL].off < a->geo.page_bytes / 4)
        return;
    struct work w = {.now_ms = clock_ms(a), .budget = (int64_t)bytes * DRAIN_PER_BYTE + DRAIN_PER_WRITE};
    while (a->spares < evict_spares_wanted(a) && w.budget > 0 && evict_reclaim(a, &w)) {
    }
}

enum { TURNS_MAX = 4 };

bool evict_make_room(struct attachment *a, uint32_t bytes, struct place *place)
{
    evict_reclaim_a_little(a, bytes);
    for (int turns = 0; turns < TURNS_MAX; turns++) {
        if (pages_fit(a, QUEUE_SMALL, bytes, place))
            return true;
        if (!evict_turn(a))
            return false;
    }
    return pages_fit(a, QUEUE_SMALL, bytes, place);
}

bool evict_make_room_in_main(struct attachment *a, uint32_t bytes, struct place *place)
{
    if (!pages_fit(a, QUEUE_MAIN, bytes, place) && a->spares == 0) {
        queue_refresh(a);
        evict_need_spares(a);
    }
    if (!evict_room_to_keep(a, bytes, place))
        return evict_make_room(a, bytes, place);
    if (page_queue(load_relaxed(&a->page_words[place->page])) == QUEUE_MAIN)
        a->main_credit -= bytes;
    return true;
}
