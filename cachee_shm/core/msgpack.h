/* msgpack.h - is a msgpack document worth decoding? Stored bytes are input.
 *
 * A decoder makes a list as long as its header says before it has read one item. A header of five bytes may
 * say a million, and a thousand of them may stand within each other: seconds, and gigabytes, for a value of a
 * few kilobytes. Each item takes a byte at least, so a document is refused where its headers say that more
 * items follow than bytes do. What is left costs as much as its length. */
#ifndef CACHEE_MSGPACK_H
#define CACHEE_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>

enum { MSGPACK_CHECKED_FROM = 1024 /* bytes: what shorter ones may cost is less than a millisecond */ };

/* False: it is cut off, or says more items than its bytes can hold. Reads each header once; extensions are
 * passed over. */
bool msgpack_bounded(const unsigned char *bytes, size_t n);

#endif
