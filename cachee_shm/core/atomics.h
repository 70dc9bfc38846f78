/* atomics.h - the only file that names memory orders.
 *
 * Every access to memory that two processes may use at the same time goes through a function of this file.
 * So a reader can check the concurrency of the whole core by the pairings below, and ThreadSanitizer sees
 * every access.
 *
 *   pairing    first what, then what
 *              written by -> read by
 *
 *   READY      the header, then its state
 *              segment_fill -> segment_read_header
 *   PUBLISH    an entry, then its index word
 *              index_publish, index_replace, evict_move_span -> index_look, entry_open
 *   PAGE       the generation, then new bytes
 *              pages_open_spare -> entry_confirm, pages_span_of
 *   WATERMARK  entries, then the watermark
 *              pages_commit -> pages_take, survey_look_through
 *   LIFE       the writer's name, then its bytes
 *              pages_note_writer -> pages_life_of
 *   RING       a slot's hash and meta, at once
 *              ring_append -> ring_read
 *   TAIL       record and fence, then the tail
 *              ring_help -> ring_tail
 *   FENCE      a fence, then what follows from it
 *              fence_raise, buckets_raise_listed -> fence_of, entry_valid
 *   DOUBT      a deadline of doubt, then its record in the ring
 *              doubt_raise_until -> doubt_until
 *   DEKKER     an index word | a fence, each side then reads the other
 *              index_publish, index_replace, index_finish -> ring_append, relay_map_fence
 *   VERDICT    the verdict, then the pending bit
 *              index_decide -> index_is_undecided
 *   DOORBELL   the tail or sync_wanted | armed, each side then reads the other
 *              ring_append, peers_ask -> doorbell_arm
 *   LEFT       left | a slot of the roster, each side then reads the other
 *              peers_leave -> peers_left
 *   INTENT     an intent, then the write
 *              cache_begin, cache_delete_by, debts_take_intent -> debts_announce_from, debts_announce_intents
 *   NAME       `since`, then a name, then `since` again
 *              peers_rename -> peers_name_at
 *   LEASE      where a load began, then when
 *              lease_say_began -> lease_look_at
 *   WAITS      what a loader waits for, then what others wait for
 *              lease_waits -> lease_chain_follow
 *   LOCK       a claim of a name, then other claims of it
 *              lock_try_at -> lock_look
 *   MAIL       an order, then the mailbox's tail
 *              prewarm_put -> prewarm_take
 *   JOURNAL    a row or a name, then its stamp
 *              journal_put -> journal_get
 *   ARMED      an armed key, then journal_interest
 *              journal_settle -> journal_armed_classes
 *   PEERS      the peers, then bridge_until_ms
 *              peers_vouch -> peers_synced
 *
 * In five pairings, at least one of the two sides must see what the other did. Both have a full fence
 * between their store and their load:
 *
 *   DEKKER     a publisher puts its word in, then reads the fences
 *              an event raises its fence, then reads the index words
 *   DOORBELL   a writer moves the tail or sync_wanted, then reads armed
 *              the bridge stores armed, then reads tail and sync_wanted
 *   LEFT       the bridge stores left, then counts the workers in the roster
 *              a worker joins the roster, then reads left
 *   LOCK       a process claims a place for a name, then looks for other claims of that name; each
 *              competitor does the same
 *   WAITS      a loader stores which key it waits for, then follows what others wait for; each of them does
 *              the same
 *
 * tests/core/test_atomics.py compares the table with the sources.
 *
 * Ordering on aarch64 follows from these pairings. The torture programs ran on aarch64 only under
 * emulation, which does not reorder memory accesses as a real machine may.
 */
#ifndef CACHEE_ATOMICS_H
#define CACHEE_ATOMICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* The usual direction of a branch: the compiler moves the rare code out of the way. */
#define LIKELY(condition) __builtin_expect((condition), 1)
#define UNLIKELY(condition) __builtin_expect((condition), 0)
/* ALWAYS_INLINE: a hit runs this. NEVER_INLINE: a hit does not run this, and would have to save registers
 * for it. Left alone, the compiler decides by the number of callers, and decides wrongly. */
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline))

typedef _Atomic uint64_t a64;
typedef _Atomic uint32_t a32;

static inline uint64_t load_acquire(const a64 *p) { return atomic_load_explicit(p, memory_order_acquire); }
static inline uint64_t load_relaxed(const a64 *p) { return atomic_load_explicit(p, memory_order_relaxed); }
static inline void store_release(a64 *p, uint64_t v) { atomic_store_explicit(p, v, memory_order_release); }
static inline void store_relaxed(a64 *p, uint64_t v) { atomic_store_explicit(p, v, memory_order_relaxed); }

static inline uint32_t load32_acquire(const a32 *p) { return atomic_load_explicit(p, memory_order_acquire); }
static inline uint32_t load32_relaxed(const a32 *p) { return atomic_load_explicit(p, memory_order_relaxed); }
static inline void store32_release(a32 *p, uint32_t v) { atomic_store_explicit(p, v, memory_order_release); }
static inline void store32_relaxed(a32 *p, uint32_t v) { atomic_store_explicit(p, v, memory_order_relaxed); }

/* Compare and swap; on failure *seen holds what is there now. */
static inline bool cas(a64 *p, uint64_t *seen, uint64_t v)
{
    return atomic_compare_exchange_strong_explicit(p, seen, v, memory_order_acq_rel, memory_order_acquire);
}

static inline bool cas32(a32 *p, uint32_t *seen, uint32_t v)
{
    return atomic_compare_exchange_strong_explicit(p, seen, v, memory_order_acq_rel, memory_order_acquire);
}

/* Relaxed is enough where the word carries no data of its own (frequency bits): nothing is published by
 * it. */
static inline bool cas_hint(a64 *p, uint64_t *seen, uint64_t v)
{
    return atomic_compare_exchange_weak_explicit(p, seen, v, memory_order_relaxed, memory_order_relaxed);
}

static inline uint64_t add_relaxed(a64 *p, uint64_t v)
{
    return atomic_fetch_add_explicit(p, v, memory_order_relaxed);
}

/* A counter with one writer: no locked instruction is needed to add to it. */
static inline void bump_own(a64 *p, uint64_t v) { store_relaxed(p, load_relaxed(p) + v); }

#if defined(__SANITIZE_THREAD__)
#define CACHEE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CACHEE_TSAN 1
#endif
#endif

#ifdef CACHEE_TSAN
/* ThreadSanitizer does not model fences: a read-modify-write of one global word stands in for each. */
static a64 tsan_fence_word;
static inline void fence_acquire(void)
{
    atomic_fetch_add_explicit(&tsan_fence_word, 0, memory_order_acq_rel);
}
static inline void fence_release(void)
{
    atomic_fetch_add_explicit(&tsan_fence_word, 0, memory_order_acq_rel);
}
static inline void fence_seq_cst(void)
{
    atomic_fetch_add_explicit(&tsan_fence_word, 0, memory_order_seq_cst);
}
#else
static inline void fence_acquire(void) { atomic_thread_fence(memory_order_acquire); }
static inline void fence_release(void) { atomic_thread_fence(memory_order_release); }
static inline void fence_seq_cst(void) { atomic_thread_fence(memory_order_seq_cst); }
#endif

/* A full fence right after a read-modify-write of this thread, which on x86-64 was a full fence already. */
#if defined(__x86_64__) && !defined(CACHEE_TSAN)
static inline void fence_seq_cst_after_rmw(void) { atomic_signal_fence(memory_order_seq_cst); }
#else
static inline void fence_seq_cst_after_rmw(void) { fence_seq_cst(); }
#endif

/* A hint that *p will be written soon: its cache line may be far away, and so may the page table entry for
 * it. */
static inline void prefetch_to_write(const void *p) { __builtin_prefetch(p, 1); }

/* Raise *p to at least v. A late helper may call it with an old v: then it does nothing. Each failed try
 * means that another process has raised the word to less than v, and that happens fewer times than there
 * are tries. False: the word is still below v, because something keeps writing garbage into it. */
enum { RAISE_TRIES_MAX = 1 << 16 };
static inline bool raise_max(a64 *p, uint64_t v)
{
    uint64_t seen = load_relaxed(p);
    for (uint32_t tries = 0; seen < v && tries < RAISE_TRIES_MAX; tries++)
        if (cas(p, &seen, v))
            return true;
    return seen >= v;
}

/* One 16-byte compare and swap: a ring slot is published whole or not at all. */
typedef struct {
    a64 meta;
    a64 hash;
} __attribute__((aligned(16))) pair128;

static inline bool cas128(pair128 *p, uint64_t old_meta, uint64_t old_hash, uint64_t meta, uint64_t hash)
{
#if defined(CACHEE_TSAN)
    unsigned __int128 old = ((unsigned __int128)old_hash << 64) | old_meta;
    unsigned __int128 new = ((unsigned __int128)hash << 64) | meta;
    return __sync_bool_compare_and_swap((unsigned __int128 *)(void *)p, old, new);
#elif defined(__x86_64__)
    bool done;
    __asm__ __volatile__("lock cmpxchg16b %1"
                         : "=@ccz"(done), "+m"(*p), "+a"(old_meta), "+d"(old_hash)
                         : "b"(meta), "c"(hash)
                         : "memory");
    return done;
#elif defined(__aarch64__)
    /* Exclusive pair: available on every ARMv8, unlike CASP. ldaxp/stlxp give acquire and release. A failed
     * comparison stores back what was read: only a successful stlxp proves that the pair was read whole. One
     * block: nothing of the compiler's may come between the two. */
    uint64_t seen_meta, seen_hash, put_meta, put_hash;
    uint32_t done, failed;
    __asm__ __volatile__("1: ldaxp %[sm], %[sh], %[p]\n"
                         "   cmp   %[sm], %[om]\n"
                         "   ccmp  %[sh], %[oh], #0, eq\n"
                         "   csel  %[pm], %[nm], %[sm], eq\n"
                         "   csel  %[ph], %[nh], %[sh], eq\n"
                         "   cset  %w[done], eq\n"
                         "   stlxp %w[failed], %[pm], %[ph], %[p]\n"
                         "   cbnz  %w[failed], 1b\n"
                         : [sm] "=&r"(seen_meta), [sh] "=&r"(seen_hash), [pm] "=&r"(put_meta),
                           [ph] "=&r"(put_hash), [done] "=&r"(done), [failed] "=&r"(failed), [p] "+Q"(*p)
                         : [om] "r"(old_meta), [oh] "r"(old_hash), [nm] "r"(meta), [nh] "r"(hash)
                         : "cc", "memory");
    return done;
#else
#error "cachee needs a 16-byte compare-and-swap: x86-64 (cmpxchg16b) or aarch64 (ldaxp/stlxp)"
#endif
}

/* Fewer than 8 private bytes, as a word padded with zeros. Unlike a memcpy of unknown length, this is not a
 * function call. The loads overlap, so most lengths need one branch. */
static inline uint64_t load_few(const unsigned char *p, size_t n)
{
    if (n >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        return first | (uint64_t)last << 8 * (n - 4);
    }
    return n ? p[0] | (uint64_t)p[n / 2] << 8 * (n / 2) | (uint64_t)p[n - 1] << 8 * (n - 1) : 0;
}

/* The bytes after the last whole word of n bytes, padded with zeros. If there is a whole word, one load is
 * enough. */
static inline uint64_t load_tail(const unsigned char *bytes, size_t n)
{
    uint64_t w;
    if (n < 8)
        return load_few(bytes, n);
    if (n % 8 == 0)
        return 0;
    memcpy(&w, bytes + n - 8, 8);
    return w >> (64 - 8 * (n % 8));
}

static inline void store_tail(unsigned char *p, uint64_t w, size_t n)
{
    if (n & 4)
        memcpy(p, &w, 4), p += 4, w >>= 32;
    if (n & 2)
        memcpy(p, &w, 2), p += 2, w >>= 16;
    if (n & 1)
        *p = (unsigned char)w;
}

/* Contended bytes. A plain memcpy of bytes that another process may be writing is a data race in C11, so
 * they are moved as relaxed 8-byte words; the caller validates afterwards (PAGE pairing). `shared` is
 * 8-byte aligned and its region is a multiple of 8 bytes long; `bytes` need not be. */
static inline void racing_read(void *private_dst, const a64 *shared, size_t bytes)
{
    unsigned char *dst = private_dst;
    /* unrolled by hand, because compilers do not vectorise atomic loads */
    for (; bytes >= 32; bytes -= 32, shared += 4, dst += 32) {
        uint64_t w0 = load_relaxed(shared), w1 = load_relaxed(shared + 1);
        uint64_t w2 = load_relaxed(shared + 2), w3 = load_relaxed(shared + 3);
        memcpy(dst, &w0, 8);
        memcpy(dst + 8, &w1, 8);
        memcpy(dst + 16, &w2, 8);
        memcpy(dst + 24, &w3, 8);
    }
    for (; bytes >= 8; bytes -= 8, shared++, dst += 8) {
        uint64_t w = load_relaxed(shared);
        memcpy(dst, &w, 8);
    }
    if (bytes)
        store_tail(dst, load_relaxed(shared), bytes);
}

/* The last word is padded with zeros, so that equal values are equal words. */
static inline void racing_write(a64 *shared, const void *private_src, size_t bytes)
{
    const unsigned char *src = private_src;
    uint64_t tail = load_tail(src, bytes);
    for (; bytes >= 32; bytes -= 32, shared += 4, src += 32) {
        uint64_t w0, w1, w2, w3;
        memcpy(&w0, src, 8);
        memcpy(&w1, src + 8, 8);
        memcpy(&w2, src + 16, 8);
        memcpy(&w3, src + 24, 8);
        store_relaxed(shared, w0);
        store_relaxed(shared + 1, w1);
        store_relaxed(shared + 2, w2);
        store_relaxed(shared + 3, w3);
    }
    for (; bytes >= 8; bytes -= 8, shared++, src += 8) {
        uint64_t w;
        memcpy(&w, src, 8);
        store_relaxed(shared, w);
    }
    if (bytes)
        store_relaxed(shared, tail);
}

static inline bool racing_equal(const a64 *shared, const void *private_bytes, size_t bytes)
{
    const unsigned char *mine = private_bytes;
    size_t whole = bytes / 8;
    for (size_t i = 0; i < whole; i++) {
        uint64_t w;
        memcpy(&w, mine + 8 * i, 8);
        if (load_relaxed(&shared[i]) != w)
            return false;
    }
    return bytes % 8 == 0 || load_relaxed(&shared[whole]) == load_tail(mine, bytes);
}

#endif
