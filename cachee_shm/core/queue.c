/* queue.c - see queue.h. */
#include "queue.h"

#include "clock.h"
#include "policy.h"

enum { LOOKS_PER_TURN = 64, SHARE_IN_HAND = 16 };

/* ---- looking ---- */

struct look { /* one pass over the page words */
    uint64_t rank[QUEUES][VIEW_PAGES];
    uint64_t now_ms, cleared, youngest_half_full, entries;
};

/* Pages with few living bytes go first, those with the fewest before the others; then the oldest. */
static uint64_t queue_rank(const struct attachment *a, const struct look *l, uint32_t page, uint64_t word)
{
    const struct page_note *n = &a->page_notes[page];
    uint64_t bytes = watermark_bytes(a, load_relaxed(&n->watermark)), dead = pages_dead_bytes(a, page, word);
    uint64_t stamp = load_relaxed(&n->stamp);
    if (load_relaxed(&n->expires_ms) <= l->now_ms || stamp <= l->cleared || dead >= bytes)
        return 0;
    return pages_compacts(page_queue(word), bytes, dead) ? bytes - dead : PAGE_BYTES_MAX + stamp;
}

/* Keep the few of the lowest rank, in order. */
static void queue_note_oldest(struct view *v, struct look *l, enum page_queue q, struct sealed page,
                              uint64_t rank)
{
    uint32_t n = v->count[q];
    if (n == VIEW_PAGES && rank >= l->rank[q][n - 1])
        return;
    uint32_t i = n < VIEW_PAGES ? v->count[q]++ : n - 1;
    for (; i > 0 && l->rank[q][i - 1] > rank; i--)
        l->rank[q][i] = l->rank[q][i - 1], v->oldest[q][i] = v->oldest[q][i - 1];
    l->rank[q][i] = rank;
    v->oldest[q][i] = page;
}

static void queue_look_at_sealed(struct attachment *a, struct look *l, uint32_t page, uint64_t word)
{
    struct view *v = &a->view;
    enum page_queue q = page_queue(word);
    uint64_t stamp = load_relaxed(&a->page_notes[page].stamp),
             watermark = load_relaxed(&a->page_notes[page].watermark);
    uint64_t r = queue_rank(a, l, page, word);
    bool is_poor = r < PAGE_BYTES_MAX;
    l->entries += watermark_entries(watermark);
    v->pages[q]++;
    v->poor[q] += is_poor;
    queue_note_oldest(v, l, q, (struct sealed){.stamp = stamp, .page = page}, r);
    if (!is_poor && q == QUEUE_SMALL && watermark_bytes(a, watermark) <= a->geo.page_bytes / 2 &&
        stamp > l->youngest_half_full) {
        l->youngest_half_full = stamp;
        v->half_full = page;
    }
}

static void queue_look_at(struct attachment *a, struct look *l, uint32_t page)
{
    struct view *v = &a->view;
    uint64_t word = load_relaxed(&a->page_words[page]);
    switch (page_state(word)) {
    case PAGE_SEALED:
        queue_look_at_sealed(a, l, page, word);
        return;
    case PAGE_OPEN:
        v->writers += page_queue(word) == QUEUE_SMALL;
        l->entries += watermark_entries(load_relaxed(&a->page_notes[page].watermark));
        v->pages[page_queue(word)]++;
        return;
    case PAGE_DRAIN:
        v->pages[page_queue(word)]++;
        return;
    case PAGE_SPARE:
        if (page_owner(word) != a->slot && v->others < VIEW_OTHERS)
            v->other[v->others++] = page;
        return;
    default: /* free, or garbage in the state: no process owns it */
        if (v->frees < VIEW_PAGES)
            v->free[v->frees++] = page;
        else
            v->more_free = true;
    }
}

void queue_look(struct attachment *a)
{
    struct view *v = &a->view;
    struct look l = {.now_ms = clock_ms(a), .cleared = load_relaxed(&a->header->cleared_stamp)};
    uint32_t n = a->geo.page_count, from = (uint32_t)((uint64_t)a->slot * n / a->geo.roster_slots);
    *v = (struct view){.half_full = NO_PAGE, .stamp = load_relaxed(&a->header->page_stamp)};
    v->claims_left = n / LOOKS_PER_TURN < VIEW_PAGES ? n / LOOKS_PER_TURN + 1 : VIEW_PAGES;
    /* each process begins at another page, so that they do not compete for the first free one */
    for (uint32_t page = from; page < n; page++)
        queue_look_at(a, &l, page);
    for (uint32_t page = 0; page < from; page++)
        queue_look_at(a, &l, page);
    v->writers = (v->writers + 1) / 2; /* each writer has two pages open: its newest and its gap page */
    policy_adapt(a, l.entries);
}

void queue_refresh(struct attachment *a)
{
    if (a->view.claims_left == 0)
        queue_look(a);
    else
        a->view.claims_left--;
}

/* ---- taking ---- */

bool queue_take_free(struct attachment *a)
{
    if (a->view.frees == 0 && a->view.more_free)
        queue_look(a);
    while (a->view.frees > 0)
        if (pages_take_spare(a, a->view.free[--a->view.frees]))
            return true;
    return false;
}

bool queue_take_from_others(struct attachment *a)
{
    while (a->view.others > 0)
        if (pages_take_spare(a, a->view.other[--a->view.others]))
            return true;
    return false;
}

static bool queue_none_noted(const struct attachment *a, enum page_queue queue)
{
    return a->view.next[queue] >= a->view.count[queue];
}

bool queue_empty(struct attachment *a, enum page_queue queue)
{
    /* The last scan found more than could be noted, or pages were sealed since. */
    if (queue_none_noted(a, queue) &&
        (a->view.count[queue] == VIEW_PAGES || load_relaxed(&a->header->page_stamp) != a->view.stamp))
        queue_look(a);
    return queue_none_noted(a, queue);
}

static bool queue_take_noted(struct attachment *a, enum page_queue queue)
{
    return pages_take(a, &a->view.oldest[queue][a->view.next[queue]++], queue);
}

bool queue_take(struct attachment *a, enum page_queue queue)
{
    for (int tries = 0; tries < VIEW_PAGES && !queue_empty(a, queue); tries++)
        if (queue_take_noted(a, queue))
            return true;
    return false;
}

bool queue_take_poor(struct attachment *a, enum page_queue queue)
{
    while (a->view.next[queue] < a->view.poor[queue] && !queue_none_noted(a, queue))
        if (queue_take_noted(a, queue))
            return true;
    return false;
}

bool queue_reopen(struct attachment *a)
{
    uint32_t page = a->view.half_full;
    a->view.half_full = NO_PAGE;
    return page != NO_PAGE && pages_reopen(a, page);
}

/* ---- shares ---- */

int64_t queue_main_excess(const struct attachment *a)
{
    uint32_t pages = a->geo.page_count, writers = a->view.writers;
    uint32_t small = policy_small_pages(a, pages) + writers / 2;
    /* without a sealed page, new entries would not stay long enough to be read again */
    if (small < writers + 1)
        small = writers + 1;
    int64_t main = (int64_t)pages - 1 - small;
    return a->view.pages[QUEUE_MAIN] - (main < 1 ? 1 : main);
}

bool queue_main_is_large(const struct attachment *a)
{
    int64_t in_hand = 2 * (int64_t)(a->view.writers ? a->view.writers : 1),
            most = a->geo.page_count / SHARE_IN_HAND;
    return queue_main_excess(a) > (in_hand < most ? in_hand : most);
}

void queue_balance(struct attachment *a)
{
    while (queue_main_excess(a) < 0 && !queue_none_noted(a, QUEUE_SMALL)) {
        const struct sealed *page = &a->view.oldest[QUEUE_SMALL][a->view.next[QUEUE_SMALL]];
        if (page->stamp <= load_relaxed(&a->header->cleared_stamp) ||
            a->view.pages[QUEUE_SMALL] <= a->view.writers + 1)
            return;
        a->view.next[QUEUE_SMALL]++;
        if (pages_adopt(a, page)) {
            a->view.pages[QUEUE_SMALL]--;
            a->view.pages[QUEUE_MAIN]++;
        }
    }
}
