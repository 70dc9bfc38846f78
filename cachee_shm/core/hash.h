/* hash.h - the keyed hash of keys and tags, and the keyed digest of values.
 *
 * Keys: SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the 1-3 variant is the
 * one that CPython and Rust use for their tables). The hash key is per namespace. So neither the wire nor
 * the segment's tables reveal a key, and without the hash key nobody can craft collisions.
 *
 * Values: a keyed multiply-and-fold over 8-byte words. It answers "do these two hosts hold the same bytes?"
 * between hosts that trust each other; it does not resist an attacker who knows the hash key.
 */
#ifndef CACHEE_HASH_H
#define CACHEE_HASH_H

#include "atomics.h"

static inline uint64_t rotl64(uint64_t x, int b) { return (x << b) | (x >> (64 - b)); }

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotl64(v[1], 13) ^ v[0], v[0] = rotl64(v[0], 32);
    v[2] += v[3], v[3] = rotl64(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotl64(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotl64(v[1], 17) ^ v[2], v[2] = rotl64(v[2], 32);
}

/* Hashes that no user's key has: they are reserved for canaries, see canary.h.
 *
 *   | free 10 | 0 22 | free 10 | 0 22 |
 *   63      54       31      22       0
 *
 * The free bits spread them over fences and buckets. 0 is not reserved: it means "none" in roster intents
 * and leases. A build that does not know the reservation gives one key in 2^44 such a hash. */
#define HASH_FREE 0xffc00000ffc00000ull

static inline bool hash_reserved(uint64_t hash) { return hash && !(hash & ~HASH_FREE); }

/* The reserved hash with this number, of 2^20 - 1. */
static inline uint64_t hash_reserve(uint64_t number)
{
    uint64_t n = number % ((1 << 20) - 1) + 1;
    return n << 54 | n >> 10 << 22;
}

/* Neither 0 nor reserved. */
static inline uint64_t hash_key(const uint64_t key[2], const void *bytes, size_t n)
{
    const unsigned char *in = bytes;
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull,
                     key[0] ^ 0x6c7967656e657261ull, key[1] ^ 0x7465646279746573ull};
    size_t left = n;
    for (; left >= 8; left -= 8, in += 8) {
        uint64_t m;
        memcpy(&m, in, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    uint64_t last = load_tail(bytes, n) | (uint64_t)n << 56;
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    uint64_t h = v[0] ^ v[1] ^ v[2] ^ v[3];
    return h & ~HASH_FREE ? h : h | 1;
}

static inline uint64_t fold_multiply(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Digest of `bytes` value bytes held as zero-padded shared words, seeded by the other properties in which
 * two entries may differ (type, TTL class, tags). Two lanes, so that the multiplications overlap. Never
 * 0. */
static inline uint64_t digest_words(const uint64_t key[2], uint64_t seed, const a64 *words, size_t bytes)
{
    uint64_t a = key[0] ^ seed, b = key[1] ^ bytes;
    size_t n = (bytes + 7) / 8, i = 0;
    for (; i + 1 < n; i += 2) {
        a = fold_multiply(a ^ load_relaxed(&words[i]), 0x9e3779b97f4a7c15ull ^ key[1]);
        b = fold_multiply(b ^ load_relaxed(&words[i + 1]), 0xd6e8feb86659fd93ull ^ key[0]);
    }
    if (i < n)
        a = fold_multiply(a ^ load_relaxed(&words[i]), 0x9e3779b97f4a7c15ull ^ key[1]);
    uint64_t d = fold_multiply(a ^ rotl64(b, 32), 0xa0761d6478bd642full ^ key[0]);
    return d ? d : 1;
}

/* A bucket in [0, count) from 32 hash bits, without a division. */
static inline uint32_t reduce32(uint32_t bits, uint32_t count)
{
    return (uint32_t)(((uint64_t)bits * count) >> 32);
}

#endif
