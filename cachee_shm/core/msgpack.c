/* msgpack.c - see msgpack.h. */
#include "msgpack.h"

#include <stdint.h>

struct item {              /* what an item's first byte says */
    unsigned length_bytes; /* size of the number that follows the first byte; 0: none follows */
    unsigned per;          /* items for each one that the number counts: 1 for an array, 2 for a map */
    uint64_t bytes;        /* of the item itself, beside those that the number counts */
    uint64_t items;        /* items inside, if no number follows */
    bool counts_bytes;     /* the number counts bytes, not items */
};

/* For the first bytes 0xc0 to 0xdf. */
static struct item msgpack_item_of_code(unsigned char c)
{
    /* from float 32 to fixext 16 */
    static const unsigned char fixed[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17};
    if (c <= 0xc3)
        return (struct item){0};
    if (c <= 0xc6)
        return (struct item){.length_bytes = 1u << (c - 0xc4), .counts_bytes = true};
    if (c <= 0xc9)
        return (struct item){.length_bytes = 1u << (c - 0xc7), .counts_bytes = true, .bytes = 1};
    if (c <= 0xd8)
        return (struct item){.bytes = fixed[c - 0xca]};
    if (c <= 0xdb)
        return (struct item){.length_bytes = 1u << (c - 0xd9), .counts_bytes = true};
    return (struct item){.length_bytes = c & 1 ? 4 : 2, .per = c <= 0xdd ? 1 : 2};
}

static struct item msgpack_item_of(unsigned char c)
{
    if (c < 0x80 || c >= 0xe0)
        return (struct item){0};
    if (c < 0x90)
        return (struct item){.items = 2 * (c & 15)};
    if (c < 0xa0)
        return (struct item){.items = c & 15};
    return c < 0xc0 ? (struct item){.bytes = c & 31} : msgpack_item_of_code(c);
}

bool msgpack_bounded(const unsigned char *bytes, size_t n)
{
    uint64_t wanted = 1;
    size_t at = 0;
    while (wanted) {
        if (wanted > n - at)
            return false;
        struct item item = msgpack_item_of(bytes[at++]);
        uint64_t number = 0;
        if (item.length_bytes > n - at)
            return false;
        for (unsigned i = 0; i < item.length_bytes; i++)
            number = number << 8 | bytes[at++];
        uint64_t skipped = item.bytes + (item.counts_bytes ? number : 0);
        if (skipped > n - at)
            return false;
        at += skipped;
        wanted += item.items + item.per * number - 1;
    }
    return true;
}
