/* msgpack.h - is a msgpack document worth decoding? Stored bytes are input.
 *
 * A decoder makes a list as long as its header says before it has read one item. A header of five bytes may
 * claim a million items, and a thousand such headers may be nested: decoding a value of a few kilobytes
 * would take seconds and gigabytes. Each item takes at least one byte, so a document is refused if its
 * headers claim more items than bytes follow. The cost of decoding any other document is proportional to
 * its length. */
#ifndef CACHEE_MSGPACK_H
#define CACHEE_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>

enum { MSGPACK_CHECKED_FROM = 1024 /* bytes: what shorter ones may cost is less than a millisecond */ };

/* False: the document is cut off, or claims more items than its bytes can hold. Reads each header once;
 * extensions are skipped. */
bool msgpack_bounded(const unsigned char *bytes, size_t n);

#endif
