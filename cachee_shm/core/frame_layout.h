/* frame_layout.h - the bytes of a FRAME as both halves of the bridge's data path read and write them.
 *
 * bridge/cachee_bridge/wire/frames.py defines the wire. This is its message 5, as msgpack's packer writes it:
 *
 *     0               4     5                                                          length + 4
 *     +---------------+-----+-----------------------------------+-------+------+---------+- - - - - -+
 *     | length u32 LE |  5  | head                              | first | last | payload |  seal, 16 |
 *     +---------------+-----+-----------------------------------+-------+------+---------+- - - - - -+
 *                           | 96 | namespace | source | incarn. |
 *                             str  str         uint
 *
 *     length    counts the type (5) and the body, not itself and not the seal
 *     head      the array's first byte and three of its six fields. It is the same in every frame of one
 *               stream, so Python packs it once, and C copies or compares it as a whole. If the head is
 *               encoded in another way (a longer form of the same number), it is not equal, and the frame
 *               is left to Python
 *     first, last   uint: positions of the source's ring, 1 to 2^63 - 1, first <= last
 *     payload   bin: records as relay.h has them
 *     seal      only where the link has a shared secret
 *
 *     uint      the shortest of   00..7f   cc u8   cd u16   ce u32   cf u64            all big-endian
 *     bin       the shortest of   c4 u8 length   c5 u16 length   c6 u32 length
 *
 * Everything here is private memory of one process. The functions that take stop at `end` and read nothing
 * beyond it.
 */
#ifndef CACHEE_FRAME_LAYOUT_H
#define CACHEE_FRAME_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    FRAME_TYPE = 5,
    FRAME_PREFIX_BYTES = 5, /* length and type */
    FRAME_SEAL_BYTES = 16,
    FRAME_BYTES_MAX = 1 << 20, /* of `length` */
    /* of a payload of records; a longer one ends the link (intake.py) */
    FRAME_KEYS_BYTES_MAX = 128 * 1024,
    FRAME_HEAD_BYTES_MAX = 1 + (2 + 64) + (2 + 63) + 9, /* the longest names of a namespace and a host */
    FRAME_UINT_BYTES_MAX = 9,
    FRAME_BIN_HEADER_BYTES_MAX = 5,
};

#define FRAME_POSITION_MAX ((1ull << 63) - 1)

/* A whole frame, without its payload and its seal, is never longer than this. */
enum {
    FRAME_OVERHEAD_BYTES_MAX = FRAME_PREFIX_BYTES + FRAME_HEAD_BYTES_MAX + 2 * FRAME_UINT_BYTES_MAX +
        FRAME_BIN_HEADER_BYTES_MAX,
};

/* `n` bytes of a big-endian number. */
static inline uint64_t frame_number(const unsigned char *at, uint32_t n)
{
    uint64_t number = 0;
    for (uint32_t i = 0; i < n; i++)
        number = number << 8 | at[i];
    return number;
}

static inline unsigned char *frame_put_number(unsigned char *at, uint64_t number, uint32_t n)
{
    for (uint32_t i = n; i-- > 0; number >>= 8)
        at[i] = (unsigned char)number;
    return at + n;
}

/* ---- what the sender writes: the shortest form ---- */

/* FRAME_PREFIX_BYTES. `body_bytes` is what follows, without the seal. */
static inline unsigned char *frame_put_prefix(unsigned char *at, uint32_t body_bytes)
{
    uint32_t length = body_bytes + 1;
    for (uint32_t i = 0; i < 4; i++)
        at[i] = (unsigned char)(length >> 8 * i);
    at[4] = FRAME_TYPE;
    return at + FRAME_PREFIX_BYTES;
}

/* At most FRAME_UINT_BYTES_MAX. */
static inline unsigned char *frame_put_uint(unsigned char *at, uint64_t number)
{
    if (number < 0x80) {
        *at = (unsigned char)number;
        return at + 1;
    }
    uint32_t code = number <= UINT8_MAX ? 0 : number <= UINT16_MAX ? 1 : number <= UINT32_MAX ? 2 : 3;
    *at = (unsigned char)(0xcc + code);
    return frame_put_number(at + 1, number, 1u << code);
}

/* At most FRAME_BIN_HEADER_BYTES_MAX; the bytes follow. */
static inline unsigned char *frame_put_bin_header(unsigned char *at, uint32_t bytes)
{
    uint32_t code = bytes <= UINT8_MAX ? 0 : bytes <= UINT16_MAX ? 1 : 2;
    *at = (unsigned char)(0xc4 + code);
    return frame_put_number(at + 1, bytes, 1u << code);
}

/* ---- what the receiver reads ---- */

/* The length of a message, from the four bytes at `at`. */
static inline uint32_t frame_length(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Reads a uint of any form. Returns the byte after it. NULL: there is no uint, or it does not end before
 * `end`. */
static inline const unsigned char *frame_take_uint(const unsigned char *at, const unsigned char *end,
                                                   uint64_t *number)
{
    if (at >= end)
        return NULL;
    unsigned char code = *at++;
    if (code < 0x80) {
        *number = code;
        return at;
    }
    if (code < 0xcc || code > 0xcf)
        return NULL;
    uint32_t n = 1u << (code - 0xcc);
    if ((size_t)(end - at) < n)
        return NULL;
    *number = frame_number(at, n);
    return at + n;
}

/* Reads the header of a bin of any form. Returns the start of its bytes, all of which lie before `end`.
 * NULL: there is no bin, or it does not end before `end`. */
static inline const unsigned char *frame_take_bin(const unsigned char *at, const unsigned char *end,
                                                  uint32_t *bytes)
{
    if (at >= end || *at < 0xc4 || *at > 0xc6)
        return NULL;
    uint32_t n = 1u << (*at++ - 0xc4);
    if ((size_t)(end - at) < n)
        return NULL;
    uint64_t length = frame_number(at, n);
    at += n;
    if ((size_t)(end - at) < length)
        return NULL;
    *bytes = (uint32_t)length;
    return at;
}

#endif
