/* evict.c - see evict.h. The rules are those of policy.h. */
#include "evict.h"

#include "survey.h"

enum {
    DRAIN_PER_BYTE = 4, /* so a page is drained within a quarter of a page of writes */
    DRAIN_PER_WRITE = 512,
    /* one for the small queue; for the main one, what a page of each queue may bring before it is empty */
    SPARES_WANTED = 3,
    SPARES_WHERE_SCARCE = 2,
    PAGES_PER_WRITER = 64, /* with fewer, they are scarce */
    DEAD_COSTS = 4,        /* a dead entry is passed over at a quarter of what moving it would cost */
    ATTEMPTS_MAX = 12,     /* pages drained for one write; the later ones keep less and less */
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

enum {
    COUNT_TRIES_MAX =
        64 /* each failed try means that somebody changed the word: made it visible, or removed it */
};

/* Does this entry still count? What does not, but is named, is removed: its page will be another's. */
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

/* Where each of the entries in a page stands in the index, only chance knows: ask for the next one's place
 * early. */
static void evict_prefetch_next(const struct attachment *a, const struct drain *d, const struct candidate *c)
{
    uint32_t next = d->off + c->bytes;
    if (next < d->end)
        index_prefetch(a, load_relaxed(&page_at(a, d->page, next)[ENTRY_HASH]));
}

/* The entry at the drain's position, or the next that counts. False: the page is empty now, or the budget is
 * used up. */
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

/* A page was taken: what of it is known to be dead costs what passing it over would. */
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

/* Without a spare page, what is kept goes round in the small queue once more. */
static bool evict_room_to_keep(struct attachment *a, uint32_t bytes, struct place *place)
{
    if (pages_fit(a, QUEUE_MAIN, bytes, place))
        return true;
    if (a->spares == 0)
        return pages_fit(a, QUEUE_SMALL, bytes, place);
    pages_turn(a, QUEUE_MAIN);
    return pages_open_spare(a, QUEUE_MAIN) && pages_fit(a, QUEUE_MAIN, bytes, place);
}

/* The page of the value's own entry may have begun another life since we looked. Then eight bytes there would
 * have to equal the word of a place that we hold: only a copy of that same entry has them. */
static void evict_move_span(const struct candidate *c, const struct place *to)
{
    uint64_t seen = span_word(&c->e.place);
    cas((a64 *)&entry_value(&c->head)[entry_piece_number(&c->e)], &seen, span_word(to)); /* PUBLISH */
}

/* Copy it to its new place, and let what names it name the copy. If that fails, it is another entry's now:
 * the copy is dead bytes. */
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

/* A value one span of which is dropped is gone: what it has in other pages is dead there. */
static void evict_drop(struct attachment *a, const struct candidate *c)
{
    if (c->unpublished || !index_kill(c->head.word_at, c->head.word))
        return;
    count(a, STAT_EVICTED, 1);
    pages_note_dead(a, &c->head);
}

/* ---- the main queue ---- */

static void evict_drop_from_main(struct attachment *a, const struct candidate *v, struct work *w)
{
    evict_drop(a, v);
    a->main_credit += v->bytes;
    evict_step_over(a, QUEUE_MAIN, v, w);
}

/* The frequency is a value's: its spans are carried as long as it has any, its own entry pays. */
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

/* What falls out of the main queue next; or a page of it is empty now; or no page can be taken, or the budget
 * is used up. */
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
 * queue's turn. What a queue that is too large lets fall pays debts, but is no room for others: they would
 * make it too large again, and so on, without a contest. */
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

/* Does the candidate push out what falls out of the main queue? Incumbents win ties. */
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

/* A page of which nearly nothing lives goes before its turn: what lives in it may be too new to be judged. */
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

/* Empty pages that every process keeps for itself are missed where there are few for each. */
static uint32_t evict_spares_wanted(const struct attachment *a)
{
    uint64_t writers = (uint64_t)a->view.writers + 1;
    return a->geo.page_count >= writers * PAGES_PER_WRITER ? SPARES_WANTED : SPARES_WHERE_SCARCE;
}

/* Is a main page in hand of which so much is dead that what lives is moved together, or can one be taken? */
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

/* Some work towards a spare page. False: nothing is left that could be taken. What is proven pays for what is
 * new only where nothing new is left to be judged and there is no spare page at all. */
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

/* Nothing could be carried out of the first page that a newcomer drains, had it no other to carry it to. */
static void evict_borrow_first_page(struct attachment *a)
{
    if (a->spares == 0 && a->open[OPEN_MAIN].page == NO_PAGE && !queue_take_free(a))
        queue_take_from_others(a);
}

/* Until there is a spare page, and one more for the main queue: without it, what is proven could not be kept.
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

/* All other pages are held by the living: go round in those that we have. */
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
