/* orphan.h - an orphan is a segment that was left because its file's name was removed, or names another
 * file now. Its successor is the segment that has the name.
 *
 * A process that dies in the orphan may owe an announcement (for example of an open `writing` block), which
 * the successor does not know. So each process that moves from the orphan to the successor clears the
 * successor if a process has died in the orphan. The slot of the dead process says how far this has got:
 *
 *   LIVE, holder dead ── claimed ──▶ SWEPT ── the successor is cleared ──▶ FREE
 *   SWEPT, its claimant dead, or gone on ── claimed by another ──▶ SWEPT
 *
 * So a slot is freed only after a clear that began after its claim. If a process dies in between, the next
 * one clears again. Nothing is announced in the orphan, because no bridge reads its ring any more. */
#ifndef CACHEE_ORPHAN_H
#define CACHEE_ORPHAN_H

#include "recovery.h"

/* Clear the successor if `owed`, or if a process has died in the orphan. False: the successor is retired,
 * and the clear is still owed. */
bool orphan_clear(struct attachment *orphan, struct attachment *successor, bool owed);

#endif
