/* arming.h - watched ("armed") keys: which value this host holds, and which process reads it next.
 *
 * A host that missed an invalidation does not know that it holds an old value. If somebody suspects it (the
 * checker of another host, a person), the key is armed here by its hash:
 *
 *   - the journal keeps all that happens to the key for a while (journal.h);
 *   - one row says what is held now: since when, and which value;
 *   - the entry's index word is marked. Its next reader removes the mark and writes a row: its name, the
 *     value's digest, and whether its near cache held the value. A get of any other key pays nothing for
 *     this.
 */
#ifndef CACHEE_ARMING_H
#define CACHEE_ARMING_H

#include "index.h"
#include "journal.h"

/* True: an entry of the key is here, and is marked. */
bool arming_arm(struct attachment *a, uint64_t hash, uint64_t for_ms);

/* Mark a value that was stored while its key is armed. */
void arming_stored(struct attachment *a, uint64_t hash);

/* A reader has found this entry, and its index word is marked: write the row. */
void arming_read(struct attachment *a, struct entry_ref *e);

#endif
